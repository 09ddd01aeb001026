"""Numbers rounded as whole numbers of few bits would hold them, for training that is aware of quantisation.

The range is first moved ("nudged") so that 0 is one of the numbers that there are: Jacob et al., Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018, section 3. Each step is the one that
TensorFlow takes in float32, so that the results are equal to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.builder import Operand
from graphfreeze.lowering.layouts import stored_layout
from graphfreeze.lowering.rule import UNUSED, Node, elementwise, rule
from graphfreeze.lowering.tensor import Layout, Tensor


@dataclass(frozen=True)
class _Range:
    """What is left of a range.

    Attributes:
        low: The smallest number that there is.
        high: The largest one.
        step: How far two neighbours are apart.
        steps_per_one: One over that, but computed from the range.
    """

    low: ir.Value
    high: ir.Value
    step: ir.Value
    steps_per_one: ir.Value


@elementwise("FakeQuantWithMinMaxArgs")
def fake_quantize(node: Node, x: ir.Value) -> ir.Value:
    """The number nearest to x in a fixed range that is divided in 2^bits - 1 steps."""
    return _quantize(node, x, _nudged(node, *_fixed_range(node)))


@elementwise("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def fake_quantize_in_a_range(node: Node, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """The number nearest to x in a range that is divided in 2^bits - 1 steps; 0 where the range is from 0 to 0."""
    quantized = _quantize(node, x, _nudged(node, low, high))
    return node.emit("Where", _is_nothing(node, low, high), node.scalar(0), quantized)


@elementwise("FakeQuantWithMinMaxArgsGradient")
def fake_quantize_gradient(node: Node, dy: ir.Value, x: ir.Value) -> ir.Value:
    """dy where x is in the range, else 0."""
    return _kept(node, dy, _is_inside(node, x, _nudged(node, *_fixed_range(node))))


@rule("FakeQuantWithMinMaxVarsGradient", "FakeQuantWithMinMaxVarsPerChannelGradient", inputs=(UNUSED,))
def fake_quantize_in_a_range_gradient(node: Node) -> list[ir.Value | Tensor]:
    """dy where x is in the range, else 0; the sums of dy where x is below it, and where it is above it."""
    output, emit = node.outputs[0], node.emit
    layout = stored_layout(node.inputs[1])
    dy, x, low, high = (node.lowering.broadcastable(tensor, layout, output.rank) for tensor in node.inputs)
    span, is_nothing = _nudged(node, low, high), _is_nothing(node, low, high)
    output.values[layout] = _kept(node, dy, emit("Or", _is_inside(node, x, span), is_nothing))
    sums = []
    for is_outside in (emit("Less", x, span.low), emit("Greater", x, span.high)):
        outside = _kept(node, dy, emit("And", is_outside, emit("Not", is_nothing)))
        sums.append(_summed(node, outside, layout))
    return [output, *sums]


def _summed(node: Node, value: ir.Value, layout: Layout) -> ir.Value:
    """The sums of each channel, or of all elements where there is one range."""
    rank, bounds = node.outputs[0].rank, node.outputs[1]
    axes = [axis for axis in range(rank) if not bounds.rank or axis != layout.axis(rank - 1, rank)]
    return node.emit("ReduceSum", value, node.int64(axes), keepdims=0) if axes else value


def _fixed_range(node: Node) -> tuple[Operand, Operand]:
    return node.scalar(node.attribute("min")), node.scalar(node.attribute("max"))


def _nudged(node: Node, low: Operand, high: Operand) -> _Range:
    """The range so moved that 0 is a whole number of steps away from where it starts."""
    emit = node.emit
    first = node.scalar(1 if node.attribute("narrow_range") else 0)
    last = node.scalar(2 ** int(node.attribute("num_bits")) - 1)
    length, steps = emit("Sub", high, low), last - first
    step = emit("Div", length, steps)
    zero = emit("Sub", first, emit("Div", low, step))
    zero = emit("Min", emit("Max", zero, first), last)
    # The nearest whole number, halves up. To add a half first would round what is just below one to it.
    whole = emit("Floor", zero)
    is_half = emit("GreaterOrEqual", emit("Sub", zero, whole), node.scalar(0.5))
    zero = emit("Add", whole, node.cast(is_half, np.float32))
    start, end = (emit("Mul", emit("Sub", bound, zero), step) for bound in (first, last))
    return _Range(start, end, step, emit("Div", steps, length))


def _quantize(node: Node, x: ir.Value, span: _Range) -> ir.Value:
    emit, half = node.emit, node.scalar(0.5)
    zero = emit("Floor", emit("Add", emit("Mul", emit("Neg", span.low), span.steps_per_one), half))
    within = emit("Sub", emit("Max", emit("Min", x, span.high), span.low), span.low)
    # TensorFlow divides by the step in one of the three operations, and multiplies in the others.
    divides = node.type == "FakeQuantWithMinMaxVars"
    steps = emit("Div", within, span.step) if divides else emit("Mul", within, span.steps_per_one)
    return emit("Mul", emit("Floor", emit("Add", emit("Sub", steps, zero), half)), span.step)


def _is_inside(node: Node, x: ir.Value, span: _Range) -> ir.Value:
    above, below = node.emit("GreaterOrEqual", x, span.low), node.emit("LessOrEqual", x, span.high)
    return node.emit("And", above, below)


def _is_nothing(node: Node, low: ir.Value, high: ir.Value) -> ir.Value:
    """Whether the range is from 0 to 0."""
    zero = node.scalar(0)
    return node.emit("And", node.emit("Equal", low, zero), node.emit("Equal", high, zero))


def _kept(node: Node, dy: ir.Value, is_kept: ir.Value) -> ir.Value:
    return node.emit("Mul", dy, node.cast(is_kept, np.float32))
