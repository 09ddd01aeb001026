"""Takes the masked reads out of the forward half of a training step, where the state makes them identities.

In the artifact a parameter's frozen elements hold their frozen values from the start, and no step changes them. There
`mask*var + stop_gradient((1-mask)*const)` is `var` itself, bit for bit, and so is `where(mask, var, const)`. The
gradients are traced already: their mask stays. What goes is one product and one sum per read, and a constant as large
as the variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.selection.plan import FrozenVariable
from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation

__all__ = ["read_state_directly"]

_GATHERS = frozenset({"GatherV2", "GatherNd"})
_PASSES_ON = frozenset({"Identity", "StopGradient"})


def read_state_directly(named: NamedGraph, frozen: Mapping[str, FrozenVariable]) -> None:
    """Replace, in place, every masked read of these inputs by the input itself, or by the gather of it.

    Only a node that masks with the plan's own mask and frozen values is replaced; anything else stays as it is.

    Args:
        named: A graph of the training step.
        frozen: The plan's part for each input that has frozen elements, by the input's name.
    """
    carried = {
        id(edge): frozen[name] for name, edge in zip(named.inputs, named.graph.inputs, strict=True) if name in frozen
    }
    if carried:
        _replace(named.graph, carried)
        named.graph.prune()


def _replace(graph: Graph, carried: dict[int, FrozenVariable]) -> None:
    """Replace in one graph, whose edges `carried` hold raw values of variables or gathers of them."""
    carried = dict(carried)
    renamed: dict[int, Edge] = {}
    for operation in graph.operations:
        operation.inputs = [renamed.get(id(edge), edge) for edge in operation.inputs]
        first = operation.inputs[0] if operation.inputs else None
        if id(first) in carried and (operation.type in _GATHERS or operation.type == "Identity"):
            carried[id(operation.outputs[0])] = carried[id(first)]
            continue
        raw = _masked(operation, carried)
        if raw is not None:
            renamed[id(operation.outputs[0])] = raw
        for body in operation.bodies.values():
            # A While's bodies take its inputs, an If's branches all but the predicate.
            arguments = operation.inputs[len(operation.inputs) - len(body.inputs) :]
            unchanged = _invariant(operation, len(arguments))
            inner = {
                id(edge): carried[id(argument)]
                for edge, argument, stays in zip(body.inputs, arguments, unchanged, strict=True)
                if stays and id(argument) in carried
            }
            _replace(body, inner)
    graph.outputs = [renamed.get(id(edge), edge) for edge in graph.outputs]


def _masked(operation: Operation, carried: Mapping[int, FrozenVariable]) -> Edge | None:
    """The raw value behind a masked read, or None where the operation is none."""
    if operation.type == "SelectV2":
        mask, raw, values = operation.inputs
        return raw if _is_plan(raw, mask, values, carried, "select") else None
    if operation.type != "AddV2":
        return None
    for product, values in (operation.inputs, operation.inputs[::-1]):
        if product.producer is None or product.producer.type != "Mul":
            continue
        for mask, raw in (product.producer.inputs, product.producer.inputs[::-1]):
            if _is_plan(raw, mask, values, carried, "blend"):
                return raw
    return None


def _is_plan(raw: Edge, mask: Edge, values: Edge, carried: Mapping[int, FrozenVariable], form: str) -> bool:
    frozen = carried.get(id(raw))
    if frozen is None or frozen.form != form:
        return False
    gather = _gather_of(raw)
    mask_constant, value_constant = _constant(mask, gather), _constant(values, gather)
    if mask_constant is None or value_constant is None:
        return False
    trainable = frozen.full_mask
    if mask_constant.ndim > trainable.ndim or value_constant.shape != trainable.shape:
        return False
    masks = bool(np.all(np.broadcast_to(mask_constant, trainable.shape) == trainable))
    # What a select holds at trainable elements does not matter; a blend must add -0.0, which changes no bit.
    beside = value_constant if form == "select" else -np.zeros((), value_constant.dtype)
    return masks and np.where(trainable, beside, frozen.value).tobytes() == value_constant.tobytes()


def _invariant(operation: Operation, count: int) -> list[bool]:
    """Which arguments of a body stay what they are: all but the variables of a loop that change."""
    body = operation.bodies.get("body")
    if body is None:
        return [True] * count
    return [edge is result for edge, result in zip(body.inputs, body.outputs, strict=True)]


def _gather_of(edge: Edge) -> Operation | None:
    """The gather that an edge comes from through identities, or None."""
    producer = edge.producer
    while producer is not None and producer.type in _PASSES_ON:
        producer = producer.inputs[0].producer
    return producer if producer is not None and producer.type in _GATHERS else None


def _constant(edge: Edge, gather: Operation | None) -> npt.NDArray[Any] | None:
    """The constant behind a mask or the frozen values: itself, or what is gathered with the read's own indices."""
    producer = edge.producer
    while producer is not None and producer.type in _PASSES_ON:
        producer = producer.inputs[0].producer
    if producer is not None and producer.type in _GATHERS:
        if gather is None or producer.type != gather.type or producer.inputs[1] is not gather.inputs[1]:
            return None
        producer = producer.inputs[0].producer
    if producer is None or producer.type != "Const":
        return None
    array: npt.NDArray[Any] = tensor_util.MakeNdarray(producer.attributes["value"].tensor)
    return array
