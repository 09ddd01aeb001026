"""Where a training step takes the norm of a targeted variable's gradient to clip all gradients by it.

Frozen elements have no gradient in a step that is traced anew, so they have no part in that norm. A tensor counts as
the gradient of a variable when it has its shape, ends element by element in updates of the variable and of its slots,
and comes from no variable's value element by element (as weight decay does). The norm must itself reach the update.
The rows of a sparse gradient count likewise, where their squares are first summed into a tensor like the variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from graphfreeze.passes.same_tensor import first_size, same_tensor
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


@dataclass(frozen=True, slots=True)
class _Norm:
    """A part of a norm.

    Attributes:
        node: The node that takes what is to be zero at frozen elements.
        square: The node that takes the gradient.
        rows: Of a sparse gradient, the indices of its rows.
        count: Of a sparse gradient, how many rows the variable has.
    """

    node: int
    square: int
    rows: str | None = None
    count: int | None = None


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
        Position of the node whose first input has to be zero at frozen elements -> object node of the variable.
    """
    body, flow = ends.model.body(context.function), ends.analysis.contexts[context]
    nodes = range(len(body.nodes))
    norms = [_Norm(i, i) for i in nodes if _is_norm(body, i)]
    norms += [norm for i in nodes if (norm := _norm_of_rows(ends, body, i)) is not None]
    if not norms or not any(update_of(node) for node in body.nodes):
        return {}
    values = ends.of(context)
    squares = {norm.square for norm in norms}
    found = {}
    for norm in norms:
        gradient = body.tensor(body.nodes[norm.square].input[0])
        owners = {
            slots.get(end, end)
            for consumer in body.consumers[gradient]
            if consumer.node not in squares
            for end in values.ends_at(consumer, norm.rows, norm.count)
        }
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None or owner not in targets:
            continue
        variable = targets[owner].variable
        same_type = body.nodes[norm.node].attr["T"].type == tf.as_dtype(variable.dtype).as_datatype_enum
        shape = _shape(body, body.tensor(body.nodes[norm.node].input[0]))
        if norm.count is not None and shape is not None:
            shape = (norm.count, *shape[1:])
        like_it = same_type and shape == variable.shape and not _from_value(body, gradient)
        if like_it and owner in {slots.get(node, node) for node in _updated_from(body, flow, norm.node)}:
            found[norm.node] = owner
    return found


def _norm_of_rows(ends: ValueEnds, body: Body, i: int) -> _Norm | None:
    """The norm that a node ends which sums up squares of rows, each at its place in a whole."""
    node = body.nodes[i]
    if node.op != "Sum" or _shape(body, body.output(i, "output", 0)) != ():
        return None
    placed = body.positions.get(node.input[0].split(":", 1)[0])
    if placed is None or body.nodes[placed].op != "UnsortedSegmentSum" or len(body.nodes[placed].input) < 3:
        return None
    rows, indices, count = body.nodes[placed].input[:3]
    square = body.positions.get(rows.split(":", 1)[0])
    if square is None or body.nodes[square].op != "Square":
        return None
    height = first_size(ends, body, count)
    return None if height is None else _Norm(i, square, same_tensor(body, indices), height)


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
    """The static shape that a node notes of its output, with -1 for unknown sizes; None where there is none."""
    name, _, output = tensor.partition(":")
    position = body.positions.get(name)
    node = None if position is None else body.nodes[position]
    if node is None or "_output_shapes" not in node.attr:
        return None
    shapes = node.attr["_output_shapes"].list.shape
    index = int(output.rpartition(":")[2])
    if index >= len(shapes) or (len(shapes) > 1 and node.op not in _ONE_LIST) or shapes[index].unknown_rank:
        return None
    return tuple(int(dim.size) for dim in shapes[index].dim)


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
