"""Numbers that are the same in every run, found backwards from whoever takes them, also behind calls."""

from __future__ import annotations

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.frames import Frame, constant_of, divides, source_of
from graphfreeze.prover.graph_view import GraphView, data_inputs, integer_attr
from graphfreeze.prover.handles import CALLS

__all__ = ["number_of"]

Place = tuple[Frame, str, bool]
"""A tensor, and whether it is a vector whose first number is asked for."""


def number_of(frame: Frame, text: str) -> int | None:
    """The number that a scalar is in every run.

    Args:
        frame: Where the tensor is.
        text: The tensor.

    Returns:
        The number; None where it is not found, or not the same at all calls of a function.
    """
    start: Place = (frame, text, False)
    work, seen, found = [start], {start}, set[int | None]()
    while work and None not in found:
        at = work.pop()
        behind = _behind(*at)
        if not behind:
            found.add(_constant(*at))
        fresh = [place for place in behind if place not in seen]
        seen.update(fresh)
        work += fresh
    return found.pop() if len(found) == 1 else None


def _behind(frame: Frame, text: str, first: bool) -> list[Place]:
    """The tensors that hold the same number; none where it is found here, or not at all."""
    tensor = source_of(frame.view, text)
    node = frame.view.nodes.get(tensor.node)
    if node is None:
        given = frame.given(tensor.node)
        return [] if given.unknown else [(caller, passed, first) for caller, passed in given.passed]
    if node.op in CALLS or divides(frame.view, node):
        callee = frame.called(node, "f" if node.op in CALLS else "else_branch")
        returned = None if callee is None else callee.returned(tensor.position)
        return [] if callee is None or returned is None else [(callee, returned, first)]
    if node.op == "StridedSlice" and not first and _is_first_of(frame.view, node):
        return [(frame, node.input[0], True)]
    return []


def _constant(frame: Frame, text: str, first: bool) -> int | None:
    array = constant_of(frame.view, text)
    fits = array is not None and array.ndim == (1 if first else 0) and array.size and array.dtype.kind in "iu"
    return int(array.flat[0]) if fits and array is not None else None


def _is_first_of(view: GraphView, node: node_def_pb2.NodeDef) -> bool:
    """Whether a StridedSlice takes element 0 of a vector."""
    others = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")
    if integer_attr(node, "shrink_axis_mask") != 1 or any(integer_attr(node, name) for name in others):
        return False
    bounds = [constant_of(view, text) for text in data_inputs(node)[1:]]
    return all(b is not None and b.shape == (1,) for b in bounds) and bounds[0] is not None and not bounds[0].any()
