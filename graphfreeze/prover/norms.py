"""The norms of gradients by which a training step clips: frozen elements must have no part in them.

A gradient of a targeted variable is a tensor of its shape that ends, element by element, in writes of the variable and
of its slots, and does not begin, element by element, with what a variable holds. Its norm counts when it reaches a
write of the variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import CALLS, READS, Context
from graphfreeze.prover.origins import ELEMENT_BY_ELEMENT, Origins
from graphfreeze.prover.session_graph import REFERENCE_NODES
from graphfreeze.prover.targets import Target
from graphfreeze.prover.writes import write_of

__all__ = ["find_norms"]

LISTS = CALLS | {"IdentityN"}
"""Operations with one list of outputs: elsewhere, a position does not say which output it is."""


def find_norms(context: Context, targets: Mapping[int, Target], captured: Iterable[str]) -> dict[str, Target]:
    """The nodes that take a gradient to square it for a norm, by name, each with the gradient's variable."""
    nodes = context.view.nodes
    if not context.sources or not any(write_of(node) is not None for node in nodes.values()):
        return {}
    consumers: dict[tuple[str, int], list[tuple[node_def_pb2.NodeDef, int]]] = {}
    for node in nodes.values():
        for position, text in enumerate(data_inputs(node)):
            consumers.setdefault(Tensor.parse(text).key, []).append((node, position))
    squares = {name for name, node in nodes.items() if _squares(context, node, consumers)}
    gradients = sorted({Tensor.parse(nodes[name].input[0]) for name in squares})
    # They go by numbers that no object node has.
    numbers = {tensor: -1 - k for k, tensor in enumerate(gradients)}
    ends = Origins(context, captured, marked=numbers, marking=squares).ends() if squares else {}
    found = {}
    for name in sorted(squares):
        taken = Tensor.parse(nodes[name].input[0])
        written = ends.get(numbers[taken])
        owners = set() if written is None else {_owner(targets[end]) for end in written}
        owner = owners.pop() if len(owners) == 1 else None
        if owner is None:
            continue
        target = targets[owner]
        if nodes[name].attr["T"].type != target.dtype or _shape_of(context, taken) != target.shape:
            continue
        if not _begins_with_value(context, taken) and owner in _written_from(context, nodes[name], targets):
            found[name] = target
    return found


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
    """What the model notes of a tensor's shape, where it is certain which of a node's outputs it is."""
    node = context.view.nodes.get(tensor.node)
    noted = [] if node is None or "_output_shapes" not in node.attr else node.attr["_output_shapes"].list.shape
    if node is None or tensor.position >= len(noted) or (len(noted) > 1 and node.op not in LISTS):
        return None
    shape = noted[tensor.position]
    sizes = tuple(int(dim.size) for dim in shape.dim)
    return None if shape.unknown_rank or any(size < 0 for size in sizes) else sizes


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
