"""Reductions along axes. None of them transposes its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.layouts import place, stored_layout
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.exponential import emit_log1p
from graphfreeze.lowering.tensor import Tensor

_REDUCIBLE = tuple(map(np.dtype, (np.float16, np.float32, np.float64, np.int32, np.int64)))


def _reduce(node: Node, operator: str, through: np.dtype[np.generic] | None) -> Tensor:
    """Reduce in the layout that the input is stored in, computing in the dtype `through`."""
    source, output = node.inputs[0], node.outputs[0]
    known = node.inputs[1].constant
    if known is None:
        raise CannotLower("axes that are computed at run time; constant axes are covered")
    axes = node.axes(known, source.rank)
    if not axes:
        return source
    if operator == "ReduceSum" and axes == list(range(source.rank - 2)) and output.rank == 2 and source.product:
        output.values[PLAIN] = _sum_of_products(node, *source.product)
        return output
    layout = stored_layout(source)
    value = node.value(source, layout)
    keep = bool(node.attribute("keep_dims", False))
    value = value if through is None else node.cast(value, through)
    placed = sorted(layout.axis(axis, source.rank) for axis in axes)
    value = node.emit(operator, value, node.int64(placed), keepdims=int(keep))
    value = value if through is None else node.cast(value, output.dtype)
    if keep:
        output.values[layout] = value
        return output
    remaining = [axis for axis in range(source.rank) if axis not in axes]
    order = [remaining.index(axis) for axis in layout.permutation(source.rank) if axis in remaining]
    return place(node, output, value, order)


def _sum_of_products(node: Node, first: Tensor, second: Tensor) -> ir.Value:
    """The sum of all products of a stack is one product of the stacks' rows: the gradient of a kernel, mostly."""
    rows = tuple(int(np.prod(shape[:-1], dtype=np.int64)) for shape in first.shapes)
    flat = (node.reshape(node.value(tensor), [rows, tensor.dim(-1)]) for tensor in (first, second))
    return node.emit("Gemm", *flat, transA=1)


def _numeric(operator: str, formula: str) -> Callable[[Node], Tensor]:
    def lower(node: Node) -> Tensor:
        return _reduce(node, operator, None if node.dtype in _REDUCIBLE else np.dtype(np.int64))

    lower.__doc__ = formula
    return lower


def _logical(operator: str, formula: str) -> Callable[[Node], Tensor]:
    def lower(node: Node) -> Tensor:
        return _reduce(node, operator, np.dtype(np.int32))

    lower.__doc__ = formula
    return lower


for _operation, _operator, _formula in (
    ("Sum", "ReduceSum", "The sum along the axes."),
    ("Mean", "ReduceMean", "The mean along the axes."),
    ("Max", "ReduceMax", "The largest element along the axes."),
    ("Min", "ReduceMin", "The smallest element along the axes."),
    ("Prod", "ReduceProd", "The product along the axes."),
    ("EuclideanNorm", "ReduceL2", "The square root of the sum of squares along the axes."),
):
    rule(_operation, inputs=(UNUSED,))(_numeric(_operator, _formula))
rule("All", inputs=(UNUSED,))(_logical("ReduceMin", "Whether all elements along the axes are true."))
rule("Any", inputs=(UNUSED,))(_logical("ReduceMax", "Whether any element along the axes is true."))


@rule("L2Loss", inputs=(UNUSED,))
def l2_loss(node: Node) -> Tensor:
    """Half the sum of squares of all elements, in whatever layout they are stored."""
    source, output = node.inputs[0], node.outputs[0]
    squares = node.emit("ReduceSumSquare", node.value(source, stored_layout(source)), keepdims=0)
    output.values[PLAIN] = node.emit("Mul", squares, node.scalar(0.5, 0))
    return output


def _position(operator: str, formula: str) -> Callable[..., Tensor]:
    def lower(node: Node, axis: npt.NDArray[Any]) -> Tensor:
        source = node.inputs[0]
        value = node.value(source)
        if source.dtype == np.bool_ or (source.dtype.kind in "iu" and source.dtype not in _REDUCIBLE):
            value = node.cast(value, np.int64)
        found = node.emit(operator, value, axis=int(axis) % source.rank, keepdims=0)
        node.outputs[0].values[PLAIN] = found if node.dtype == np.int64 else node.cast(found, node.dtype)
        return node.outputs[0]

    lower.__doc__ = formula
    return lower


rule("ArgMax", inputs=(UNUSED, KNOWN))(_position("ArgMax", "The first index of the largest element along an axis."))
rule("ArgMin", inputs=(UNUSED, KNOWN))(_position("ArgMin", "The first index of the smallest element along an axis."))


# -- running totals


@rule("Cumsum", inputs=(PLAIN, KNOWN))
def cumsum(node: Node, x: ir.Value, axis: npt.NDArray[Any]) -> ir.Value:
    """The running sum along an axis, also exclusive and in reverse."""
    exclusive, reverse = int(node.attribute("exclusive", False)), int(node.attribute("reverse", False))
    position = np.array(int(axis) % node.inputs[0].rank, np.int64)
    if node.dtype in _REDUCIBLE:
        return node.emit("CumSum", x, position, exclusive=exclusive, reverse=reverse)
    wide = node.emit("CumSum", node.cast(x, np.int64), position, exclusive=exclusive, reverse=reverse)
    return node.cast(wide, node.dtype)


@rule("Cumprod", inputs=(PLAIN, KNOWN))
def cumprod(node: Node, x: ir.Value, axis: npt.NDArray[Any]) -> ir.Value:
    """The running product along an axis, also exclusive and in reverse, by doubling steps."""
    return _running(node, x, int(axis), 1, lambda one, other: node.emit("Mul", one, other))


@rule("CumulativeLogsumexp", inputs=(PLAIN, KNOWN))
def cumulative_logsumexp(node: Node, x: ir.Value, axis: npt.NDArray[Any]) -> ir.Value:
    """The logarithm of the running sum of exponentials along an axis, also exclusive and in reverse."""

    def add(one: ir.Value, other: ir.Value) -> ir.Value:
        distance = node.emit("Abs", node.emit("Sub", one, other))
        rest = emit_log1p(node, node.emit("Exp", node.emit("Neg", distance)))
        return node.emit("Add", node.emit("Max", one, other), rest)

    # What stands for the logarithm of nothing is the lowest number.
    return _running(node, x, int(axis), float(np.finfo(node.dtype).min), add)


def _running(
    node: Node, x: ir.Value, axis: int, neutral: float, combine: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """All elements up to each one combined, by doubling steps, also exclusive and in reverse."""
    rank = node.inputs[0].rank
    at = axis % rank
    length = node.inputs[0].shape[at]
    if length is None:
        raise CannotLower("its axis follows the batch or the length of sequences; axes of fixed size are covered")
    reverse = bool(node.attribute("reverse", False))

    def shifted(value: ir.Value, steps: int) -> ir.Value:
        pads = np.zeros((2, rank), np.int64)
        pads[1 if reverse else 0, at] = steps
        starts, ends = ([steps], [length]) if reverse else ([0], [length - steps])
        kept = node.emit("Slice", value, node.int64(starts), node.int64(ends), node.int64([at]))
        return node.emit("Pad", kept, pads.reshape(-1), node.scalar(neutral, 0))

    if node.attribute("exclusive", False):
        x = shifted(x, 1)
    steps = 1
    while steps < length:
        x = combine(x, shifted(x, steps))
        steps *= 2
    return x
