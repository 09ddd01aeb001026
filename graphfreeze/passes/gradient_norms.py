"""Where a training step takes the norm of a targeted variable's gradient to clip all gradients by it.

Frozen elements have no gradient in a step that is traced anew, so they have no part in that norm. A tensor counts as
the gradient of a variable when it has its shape, ends element by element in updates of the variable and of its slots,
and comes from no variable's value element by element (as weight decay does). The norm must itself reach the update.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from graphfreeze.passes.value_ends import ELEMENTWISE, ValueEnds
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CALLS
from graphfreeze.savedmodel.graph_variables import REFERENCES
from graphfreeze.savedmodel.handle_flow import READS, Context, Flow
from graphfreeze.savedmodel.updates import update_of
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["find_norms"]

# Operations whose outputs are one list, so that the position in it says which shape is meant.
_ONE_LIST = CALLS | {"IdentityN"}


def find_norms(
    ends: ValueEnds, context: Context, targets: Mapping[int, FrozenVariable], slots: Mapping[int, int]
) -> dict[int, int]:
    """The norms of gradients in one body.

    Args:
        ends: Where values go, as far as the handles of targeted variables and slots are followed.
        context: The body.
        targets: Object node -> targeted variable.
        slots: Object node of a slot -> that of its variable.

    Returns:
        Position of the node that takes the gradient -> object node of the variable.
    """
    body, flow = ends.model.body(context.function), ends.analysis.contexts[context]
    norms = [i for i in range(len(body.nodes)) if _is_norm(body, i)]
    if not norms or not any(update_of(node) for node in body.nodes):
        return {}
    values = ends.of(context)
    found = {}
    for i in norms:
        gradient = body.tensor(body.nodes[i].input[0])
        owners = {
            slots.get(end, end)
            for consumer in body.consumers[gradient]
            if consumer.node not in norms
            for end in values.ends_at(consumer)
        }
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None or owner not in targets:
            continue
        variable = targets[owner].variable
        same_type = body.nodes[i].attr["T"].type == tf.as_dtype(variable.dtype).as_datatype_enum
        like_it = same_type and _shape(body, gradient) == variable.shape and not _from_value(body, gradient)
        if like_it and owner in {slots.get(node, node) for node in _updated_from(body, flow, i)}:
            found[i] = owner
    return found


def _is_norm(body: Body, i: int) -> bool:
    """Whether a node begins a sum of squares of all elements."""
    node = body.nodes[i]
    if node.op == "L2Loss":
        return True
    sums = body.consumers.get(body.output(i, "y", 0), [])
    return (
        node.op == "Square"
        and bool(sums)
        and all(
            body.nodes[j].op == "Sum" and position == 0 and _shape(body, body.output(j, "output", 0)) == ()
            for j, position in sums
        )
    )


def _shape(body: Body, tensor: str) -> tuple[int, ...] | None:
    """The static shape that a node notes of its output, or None where it is not wholly known."""
    name, _, output = tensor.partition(":")
    position = body.positions.get(name)
    node = None if position is None else body.nodes[position]
    if node is None or "_output_shapes" not in node.attr:
        return None
    shapes = node.attr["_output_shapes"].list.shape
    index = int(output.rpartition(":")[2])
    if index >= len(shapes) or (len(shapes) > 1 and node.op not in _ONE_LIST) or shapes[index].unknown_rank:
        return None
    sizes = tuple(int(dim.size) for dim in shapes[index].dim)
    return None if min(sizes, default=0) < 0 else sizes


def _from_value(body: Body, tensor: str) -> bool:
    """Whether a tensor is computed from what a variable holds, element by element."""
    pending, seen = [tensor], set[str]()
    while pending:
        position = body.positions.get(pending.pop().split(":", 1)[0])
        if position is None or body.nodes[position].op in READS or body.nodes[position].op in REFERENCES:
            return True
        node = body.nodes[position]
        if (node.op in ELEMENTWISE or node.op == "IdentityN") and node.name not in seen:
            seen.add(node.name)
            pending += [reference for reference in node.input if not reference.startswith("^")]
    return False


def _updated_from(body: Body, flow: Flow, start: int) -> set[int]:
    """The variables that are updated with what is computed from a node, in whatever way."""
    consumers: dict[str, list[int]] = {}
    for tensor, takers in body.consumers.items():
        consumers.setdefault(tensor.split(":", 1)[0], []).extend(taker.node for taker in takers)
    pending, seen, found = [start], {start}, set[int]()
    while pending:
        for j in consumers.get(body.nodes[pending.pop()].name, ()):
            update = update_of(body.nodes[j])
            if update is not None:
                handles = [body.tensor(body.nodes[j].input[position]) for position in update.handles]
                found.update(flow.handles[handle] for handle in handles if handle in flow.handles)
            elif j not in seen:
                seen.add(j)
                pending.append(j)
    return found
