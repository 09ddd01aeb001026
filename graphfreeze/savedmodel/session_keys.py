"""From which checkpoint keys a session restores the variables that signatures use.

A session and `tf.saved_model.load` need not restore a variable from the same key: a Keras 3 export holds each value
twice, and its restore function reads the second one into the handle that its signatures take.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import tensorflow as tf

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.main_graph import node_of, variable_handles

if TYPE_CHECKING:
    from graphfreeze.savedmodel.model import SavedModel

__all__ = ["session_keys"]


def session_keys(model: SavedModel) -> dict[int, tuple[str, ...]]:
    """Object node -> the checkpoint keys from which a session restores the handles that stand for it, sorted."""
    restored = _restored_handles(model)
    found: defaultdict[int, set[str]] = defaultdict(set)
    for tensor, node in variable_handles(model.meta_graph, model.functions, model.main_body).items():
        if tensor in restored:
            found[node].add(restored[tensor])
    return {node: tuple(sorted(keys)) for node, keys in found.items()}


def _restored_handles(model: SavedModel) -> dict[str, str]:
    """Handle in the main graph -> the key that the restore function assigns to it."""
    main = model.main_body
    position = main.positions.get(node_of(model.meta_graph.saver_def.restore_op_name))
    if position is None or "f" not in main.nodes[position].attr:
        return {}
    call = main.nodes[position]
    function = call.attr["f"].func.name
    if function not in model.functions:
        return {}
    body = model.body(function)
    assigned = {
        _origin(body, node.input[0]): key
        for node in body.nodes
        if node.op == "AssignVariableOp" and (key := _restored_key(body, node.input[1])) is not None
    }
    return {
        main.tensor(call.input[i]): assigned[argument]
        for i, argument in enumerate(body.arguments)
        if argument in assigned
    }


def _origin(body: Body, reference: str) -> str:
    """The tensor that a chain of operations with one data input begins with."""
    tensor = body.tensor(reference)
    seen: set[str] = set()
    while tensor not in seen and (position := body.positions.get(tensor.split(":", 1)[0])) is not None:
        seen.add(tensor)
        inputs = [r for r in body.nodes[position].input if not r.startswith("^")]
        if len(inputs) != 1:
            break
        tensor = body.tensor(inputs[0])
    return tensor


def _restored_key(body: Body, reference: str) -> str | None:
    """The key of the RestoreV2 whose output reaches a tensor unchanged; None where it comes from elsewhere."""
    tensor = _origin(body, reference)
    name, _, output = tensor.partition(":")
    position = body.positions.get(name)
    if position is None or body.nodes[position].op != "RestoreV2":
        return None
    read = body.nodes[position]
    names = body.positions.get(read.input[1].split(":", 1)[0]) if len(read.input) > 1 else None
    if names is None or body.nodes[names].op != "Const":
        return None
    try:
        keys = tf.make_ndarray(body.nodes[names].attr["value"].tensor).reshape(-1)
        key: bytes = keys[int(output.rsplit(":", 1)[1])]
        return key.decode()
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ModelReadError(
            f"The function that restores variables is corrupt: the output {output!r} of {name!r} has no key in "
            f"{body.nodes[names].name!r}. Export the model again."
        ) from error
