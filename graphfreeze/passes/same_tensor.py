"""Which tensors are the same, what a small constant is behind calls, and what is tested for zeros: found backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2, types_pb2

from graphfreeze.passes.callers import Caller
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CALLS
from graphfreeze.savedmodel.handle_flow import Context

if TYPE_CHECKING:
    from graphfreeze.passes.value_ends import ValueEnds

__all__ = ["brought_together", "divides", "first_size", "integer", "same_tensor", "squared_by", "tested_for_zero"]

_INTEGERS = (types_pb2.DT_INT32, types_pb2.DT_INT64)
_STEPS = 100
"""How far a constant is looked for."""


def same_tensor(body: Body, reference: str) -> str:
    """The tensor that a reference is a copy of, if of integers perhaps with more bits."""
    tensor = body.tensor(reference)
    seen: set[str] = set()
    while tensor not in seen:
        seen.add(tensor)
        node = _maker(body, tensor)
        if node is None or not (node.op == "Identity" or (node.op == "Cast" and _widens(node))):
            break
        tensor = body.tensor(node.input[0])
    return tensor


def tested_for_zero(body: Body, reference: str) -> str | None:
    """The tensor of which it is asked whether any element is zero or not a number, if that is what a tensor answers."""
    node = _maker(body, same_tensor(body, reference))
    for _ in range(2):
        if node is not None and node.op == "Any":
            node = _maker(body, same_tensor(body, node.input[0]))
    if node is None or node.op != "LogicalOr":
        return None
    equal, is_nan = (_maker(body, same_tensor(body, reference)) for reference in node.input[:2])
    if equal is None or equal.op != "Equal" or is_nan is None or is_nan.op != "IsNan":
        return None
    zero = _constant(_maker(body, same_tensor(body, equal.input[1])))
    tested = same_tensor(body, equal.input[0])
    is_zero = zero is not None and zero.shape == () and zero == 0
    return tested if is_zero and same_tensor(body, is_nan.input[0]) == tested else None


def divides(body: Body, node: node_def_pb2.NodeDef) -> bool:
    """Whether a node is how Keras 3 divides a sparse tensor: without side effects, by whether the divisor has zeros."""
    if node.op != "StatelessIf":
        return False
    condition, *operands = (reference for reference in node.input if not reference.startswith("^"))
    tested = tested_for_zero(body, condition)
    return tested is not None and tested in {same_tensor(body, reference) for reference in operands}


def first_size(bodies: ValueEnds, context: Context, reference: str) -> int | None:
    """The number that a scalar is, found behind calls, branches, and the first element of a vector.

    Args:
        bodies: The bodies of the model.
        context: Where the scalar is.
        reference: The scalar.
    """
    return _first_size(bodies, context, reference, is_first=False, calls=())


def _first_size(
    bodies: ValueEnds, context: Context, reference: str, *, is_first: bool, calls: tuple[Caller, ...]
) -> int | None:
    """The same of a scalar, or of the first element of a vector; `calls` are those that the search is in."""
    for _ in range(_STEPS):
        body = bodies.model.body(context.function)
        tensor = same_tensor(body, reference)
        node = _maker(body, tensor)
        if node is None:
            if tensor not in body.arguments or (not calls and bodies.callers.is_run_otherwise(context)):
                return None
            *outer, last = calls or (None,)
            callers = bodies.callers.of(context) if last is None else [last]
            position, found = body.arguments.index(tensor), set[int | None]()
            for context, i, first in callers:
                passed = bodies.model.body(context.function).nodes[i].input[first + position]
                before = tuple(caller for caller in outer if caller is not None)
                found.add(_first_size(bodies, context, passed, is_first=is_first, calls=before))
            return found.pop() if len(found) == 1 else None
        if node.op == "Const":
            number = _constant(node)
            if number is None or number.ndim != is_first or not number.size:
                return None
            return int(number.reshape(-1)[0])
        if node.op == "StridedSlice" and not is_first and _takes_first(body, node):
            is_first, reference = True, node.input[0]
            continue
        position = int(tensor.rpartition(":")[2])
        if node.op not in CALLS and not divides(body, node):
            return None
        skipped = "then_branch" if node.op not in CALLS else ""
        i = body.positions[node.name]
        inner = [c for c in bodies.analysis.contexts[context].calls if c.node == i and c.slot.attribute != skipped]
        if len(inner) != 1:
            return None
        calls = (*calls, Caller(context, i, int(node.op not in CALLS)))
        context = inner[0].callee
        returned = bodies.model.body(context.function).returned
        if position >= len(returned):
            return None
        reference = returned[position]
    return None


class Together(NamedTuple):
    """How rows of the same index are summed up: indices, of which some are the same, and each of these once."""

    indices: str
    each_once: str


def brought_together(body: Body, reference: str) -> Together | None:
    """By which indices a sum of segments brings rows together, if `Unique` found its segments."""
    tensor = same_tensor(body, reference)
    position = body.positions.get(tensor.split(":", 1)[0])
    if position is None or body.nodes[position].op != "Unique":
        return None
    segments = body.output(position, "idx", 0) if body.in_function else body.output(position, "", 1)
    if tensor != segments:
        return None
    return Together(same_tensor(body, body.nodes[position].input[0]), body.output(position, "y", 0))


def squared_by(body: Body, node: node_def_pb2.NodeDef) -> str | None:
    """The tensor that a node squares, element by element; None where it does not."""
    if node.op == "Square":
        return body.tensor(node.input[0])
    if node.op == "Mul" and same_tensor(body, node.input[0]) == same_tensor(body, node.input[1]):
        return body.tensor(node.input[0])
    if node.op == "Pow":
        exponent = _maker(body, body.tensor(node.input[1]))
        while exponent is not None and exponent.op in ("Identity", "Cast"):
            exponent = _maker(body, body.tensor(exponent.input[0]))
        number = _constant(exponent)
        if number is not None and number.shape == () and number == 2:
            return body.tensor(node.input[0])
    return None


def integer(node: node_def_pb2.NodeDef, name: str) -> int:
    """An integer attribute, 0 where it is missing: asking for a missing one would add it."""
    return int(node.attr[name].i) if name in node.attr else 0


def _maker(body: Body, tensor: str) -> node_def_pb2.NodeDef | None:
    """The node that yields a tensor; None for arguments."""
    position = body.positions.get(tensor.split(":", 1)[0])
    return None if position is None else body.nodes[position]


def _widens(node: node_def_pb2.NodeDef) -> bool:
    types = tuple(node.attr[name].type for name in ("SrcT", "DstT") if name in node.attr)
    return types in (_INTEGERS, (types_pb2.DT_INT32,) * 2, (types_pb2.DT_INT64,) * 2)


def _constant(node: node_def_pb2.NodeDef | None) -> npt.NDArray[Any] | None:
    if node is None or node.op != "Const":
        return None
    found: npt.NDArray[Any] = tf.make_ndarray(node.attr["value"].tensor)
    return found if found.dtype.kind in "iuf" or found.dtype.name == "bfloat16" else None


def _takes_first(body: Body, node: node_def_pb2.NodeDef) -> bool:
    """Whether a slice is element 0 of a vector."""
    bounds = [_constant(_maker(body, same_tensor(body, reference))) for reference in node.input[1:4]]
    masks = {name: integer(node, f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    is_plain = masks.pop("shrink_axis") == 1 and not any(masks.values())
    is_one = all(bound is not None and bound.shape == (1,) for bound in bounds)
    return is_plain and is_one and bounds[0] is not None and int(bounds[0][0]) == 0
