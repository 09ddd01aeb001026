"""Computes before a loop, for all iterations at once, what needs nothing of the iteration before.

The input of a recurrent cell times its kernel, the slopes of activations: one large operation instead of many small
ones. The loop then walks along the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphfreeze.lowering.tensor import Dim, Induction, Tensor
from graphfreeze.training.graph import Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering
    from graphfreeze.lowering.loop_body import ScanBody

__all__ = ["lower_for_all_iterations", "merge_rows", "split_rows"]

_UNARY = {
    *("Abs", "Cast", "Elu", "Exp", "Expm1", "LeakyRelu", "Log", "Log1p", "LogicalNot", "Neg", "Reciprocal", "Relu"),
    *("Relu6", "Rsqrt", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Square", "Tanh"),
}
_BINARY = {
    *("Add", "AddV2", "Div", "DivNoNan", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd"),
    *("LogicalOr", "Maximum", "Minimum", "Mul", "NotEqual", "Pow", "RealDiv", "SquaredDifference", "Sub"),
    *("ReluGrad", "RsqrtGrad", "SigmoidGrad", "SqrtGrad", "TanhGrad"),
}
_ELEMENTWISE = _UNARY | _BINARY | {"SelectV2"}
_SLOPES = {"SigmoidGrad": 0, "TanhGrad": 0, "ReluGrad": 1}
"""Gradients that are a slope times the gradient behind: which input the slope depends on."""


def lower_for_all_iterations(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The operation's output as an item of what it gives for all iterations, or None where it is not made so."""
    if operation.type not in _ELEMENTWISE and operation.type != "MatMul":
        return None
    for loop in reversed(lowering.loops):
        sources = [loop.source(tensor) for tensor in inputs]
        if any(source is not None for source in sources):
            return _lower(lowering, loop, operation, inputs, sources)
    return None


def _lower(
    lowering: Lowering,
    loop: ScanBody,
    operation: Operation,
    inputs: Sequence[Tensor],
    sources: Sequence[tuple[Tensor, Induction] | None],
) -> list[Tensor] | None:
    free = [source is not None or loop.is_outside(tensor) for source, tensor in zip(sources, inputs, strict=True)]
    found = [source for source in sources if source is not None]
    rows, at = found[0]
    if not all(free):
        slope = _SLOPES.get(operation.type)
        source = None if slope is None else sources[slope]
        return None if slope is None or source is None else _slope(lowering, loop, operation, inputs, slope, source)
    if any(other.dim(0) != rows.dim(0) or index != at for other, index in found):
        return None
    if operation.type == "MatMul":
        transposed = operation.attributes.get("transpose_a")
        if sources[0] is None or sources[1] is not None or (transposed is not None and transposed.b):
            return None
        merged = lowering.lower(operation, [merge_rows(lowering, rows), inputs[1]])[0]
        made = merged if merged.missing else split_rows(lowering, merged, rows.dim(0))
    else:
        ranks = [tensor.rank for tensor in inputs]
        rank = rows.rank - 1
        if any(ranks[i] != rank if source is not None else ranks[i] > rank for i, source in enumerate(sources)):
            return None
        whole = [source[0] if source is not None else inputs[i] for i, source in enumerate(sources)]
        made = lowering.lower(operation, whole)[0]
    return None if made.missing else _item(lowering, loop, made, at)


def _slope(
    lowering: Lowering,
    loop: ScanBody,
    operation: Operation,
    inputs: Sequence[Tensor],
    position: int,
    source: tuple[Tensor, Induction],
) -> list[Tensor] | None:
    rows, at = source
    behind = inputs[1 - position]
    one = lowering.constant(np.ones((1,) * rows.rank, rows.dtype))
    if behind.rank != rows.rank - 1:
        return None
    # A gradient is linear in the gradient behind: with ones there it is the slope.
    ones = lowering.tensor(
        lowering.builder.emit("Expand", lowering.value(one), lowering.shape(rows.dims)), rows.dtype, rows.dims
    )
    slopes = lowering.lower(operation, [rows, ones] if position == 0 else [ones, rows])[0]
    item = None if slopes.missing else _item(lowering, loop, slopes, at)
    if item is None:
        return None
    return lowering.lower(
        Operation("Mul", operation.name, list(operation.inputs), list(operation.outputs)), [behind, *item]
    )


def _item(lowering: Lowering, loop: ScanBody, rows: Tensor, at: Induction) -> list[Tensor] | None:
    item = loop.read(rows, at)
    return None if item is None else [lowering.tensor(item, rows.dtype, rows.dims[1:])]


def merge_rows(lowering: Lowering, rows: Tensor) -> Tensor:
    """Rows of batches as one batch."""
    first: Dim = tuple(one * two for one, two in zip(rows.dim(0), rows.dim(1), strict=True))
    dims = [first, *rows.dims[2:]]
    return lowering.tensor(lowering.reshape(lowering.value(rows), dims), rows.dtype, dims)


def split_rows(lowering: Lowering, merged: Tensor, count: Dim) -> Tensor:
    """The one batch as that many rows again."""
    batch: Dim = tuple(all_ // rows for all_, rows in zip(merged.dim(0), count, strict=True))
    dims = [count, batch, *merged.dims[1:]]
    return lowering.tensor(lowering.reshape(lowering.value(merged), dims), merged.dtype, dims)
