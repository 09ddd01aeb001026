"""The norms of gradients by which a training step clips: frozen elements must have no part in them.

A gradient of a targeted variable is a tensor of its shape that ends, element by element, in writes of the variable and
of its slots, and does not begin, element by element, with what a variable holds. Its norm counts when it reaches a
write of the variable. The rows of a sparse gradient count likewise, where their squares come to their places in a
tensor of the variable's shape before they are summed up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.frames import Frame, number_of, source_of
from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import CALLS, READS, Context
from graphfreeze.prover.origins import ELEMENT_BY_ELEMENT, Origin, Origins
from graphfreeze.prover.session_graph import REFERENCE_NODES
from graphfreeze.prover.targets import Target
from graphfreeze.prover.writes import write_of

__all__ = ["find_norms"]

LISTS = CALLS | {"IdentityN"}
"""Operations with one list of outputs: elsewhere, a position does not say which output it is."""


class _Rows(NamedTuple):
    """Squares of a sparse gradient's rows: the node that squares, the rows' indices, and how many the variable has."""

    square: str
    indices: Tensor
    height: int


def find_norms(context: Context, targets: Mapping[int, Target], captured: Iterable[str]) -> dict[str, Target]:
    """The nodes whose first input has to be zero at frozen elements, by name, each with the gradient's variable."""
    nodes = context.view.nodes
    if not context.sources or not any(write_of(node) is not None for node in nodes.values()):
        return {}
    consumers: dict[tuple[str, int], list[tuple[node_def_pb2.NodeDef, int]]] = {}
    for node in nodes.values():
        for position, text in enumerate(data_inputs(node)):
            consumers.setdefault(Tensor.parse(text).key, []).append((node, position))
    squares = {name: name for name, node in nodes.items() if _squares(context, node, consumers)}
    frame = Frame(context)
    placed = {name: rows for name, node in nodes.items() if (rows := _placed_rows(frame, node)) is not None}
    squares |= {name: rows.square for name, rows in placed.items()}
    # Gradients go by numbers that no object node has.
    marks: dict[Tensor, Origin] = {}
    for k, (name, square) in enumerate(sorted(squares.items())):
        rows = placed.get(name)
        origin = Origin(-1 - k) if rows is None else Origin(-1 - k, rows.indices, height=rows.height)
        marks.setdefault(Tensor.parse(nodes[square].input[0]), origin)
    ends = Origins(context, captured, marked=marks, marking=squares.values()).ends() if squares else {}
    found = {}
    for name, square in sorted(squares.items()):
        taken = Tensor.parse(nodes[square].input[0])
        rows, mark = placed.get(name), marks[taken]
        written = ends.get(mark.variable)
        owners = set() if written is None else {_owner(targets[end]) for end in written}
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None or mark.rows != (None if rows is None else rows.indices):
            continue
        target = targets[owner]
        shape = _shape_of(context, Tensor.parse(nodes[name].input[0]))
        if rows is not None and shape is not None:
            shape = (rows.height, *shape[1:])
        if nodes[name].attr["T"].type != target.dtype or shape != target.shape:
            continue
        if not _begins_with_value(context, taken) and owner in _written_from(context, nodes[name], targets):
            found[name] = target
    return found


def _placed_rows(frame: Frame, node: node_def_pb2.NodeDef) -> _Rows | None:
    """The squares of rows that a node sums up, after each came to its place in a whole."""
    nodes = frame.view.nodes
    if node.op != "Sum" or _shape_of(frame.context, Tensor(node.name, "output", 0)) != ():
        return None
    whole = nodes.get(Tensor.parse(node.input[0]).node)
    if whole is None or whole.op != "UnsortedSegmentSum" or len(data_inputs(whole)) < 3:
        return None
    square = nodes.get(Tensor.parse(whole.input[0]).node)
    height = number_of(frame, whole.input[2])
    if square is None or square.op != "Square" or height is None:
        return None
    return _Rows(square.name, source_of(frame.view, whole.input[1]), height)


def _owner(target: Target) -> int:
    return target.node_id if target.slot_of is None else target.slot_of.node_id


def _squares(
    context: Context,
    node: node_def_pb2.NodeDef,
    consumers: Mapping[tuple[str, int], list[tuple[node_def_pb2.NodeDef, int]]],
) -> bool:
    if node.op == "L2Loss":
        return True
    takers = consumers.get((node.name, 0), []) if node.op == "Square" else []
    whole = [n.op == "Sum" and k == 0 and _shape_of(context, Tensor(n.name, "output", 0)) == () for n, k in takers]
    return bool(whole) and all(whole)


def _shape_of(context: Context, tensor: Tensor) -> tuple[int, ...] | None:
    """What the model notes of a tensor's shape, where it is certain which of a node's outputs it is.

    A size that is not known is -1.
    """
    node = context.view.nodes.get(tensor.node)
    noted = [] if node is None or "_output_shapes" not in node.attr else node.attr["_output_shapes"].list.shape
    if node is None or tensor.position >= len(noted) or (len(noted) > 1 and node.op not in LISTS):
        return None
    shape = noted[tensor.position]
    sizes = tuple(int(dim.size) for dim in shape.dim)
    return None if shape.unknown_rank else sizes


def _begins_with_value(context: Context, tensor: Tensor) -> bool:
    work, seen = [tensor.node], set[str]()
    while work:
        node = context.view.nodes.get(work.pop())
        if node is None or node.op in READS or node.op in REFERENCE_NODES:
            return True
        if node.op in ELEMENT_BY_ELEMENT | {"IdentityN"} and node.name not in seen:
            seen.add(node.name)
            work.extend(Tensor.parse(text).node for text in data_inputs(node))
    return False


def _written_from(context: Context, start: node_def_pb2.NodeDef, targets: Mapping[int, Target]) -> set[int]:
    by_source: dict[str, list[node_def_pb2.NodeDef]] = {}
    for node in context.view.nodes.values():
        for text in data_inputs(node):
            by_source.setdefault(Tensor.parse(text).node, []).append(node)
    work, seen, found = [start.name], {start.name}, set[int]()
    while work:
        for node in by_source.get(work.pop(), ()):
            write = write_of(node)
            if write is not None:
                written = [context.variable_of(node.input[position]) for position in write.handles]
                found.update(_owner(targets[variable]) for variable in written if variable is not None)
            elif node.name not in seen:
                seen.add(node.name)
                work.append(node.name)
    return found
