"""Activation functions and their gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.direct import declare_direct
from graphfreeze.lowering.layouts import stored_layout
from graphfreeze.lowering.rule import UNUSED, Node, elementwise, rule
from graphfreeze.lowering.rules.exponential import emit_expm1
from graphfreeze.lowering.tensor import Tensor

__all__ = ["emit_sigmoid"]

_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_SCALE_ALPHA = 1.7580993408473768599402175208123


declare_direct(
    __name__,
    (
        ("Relu", "Relu", "max(x, 0)."),
        ("Elu", "Elu", "x where positive, else exp(x) - 1."),
        ("Softplus", "Softplus", "log(1 + exp(x))."),
        ("Softsign", "Softsign", "x / (1 + |x|)."),
        ("Tanh", "Tanh", "The hyperbolic tangent."),
    ),
)


@elementwise("Relu6")
def relu6(node: Node, x: ir.Value) -> ir.Value:
    """min(max(x, 0), 6)."""
    return node.emit("Clip", x, node.scalar(0, 0), node.scalar(6, 0))


@elementwise("Selu")
def selu(node: Node, x: ir.Value) -> ir.Value:
    """scale * x where positive, else scale * alpha * (exp(x) - 1), with the constants of self-normalising networks."""
    if node.dtype == np.float64:  # the attributes of ONNX's Selu are in float32
        below = node.emit("Mul", emit_expm1(node, x), node.scalar(_SELU_SCALE_ALPHA))
        above = node.emit("Mul", x, node.scalar(_SELU_SCALE))
        return node.emit("Where", node.emit("Less", x, node.scalar(0)), below, above)
    return node.emit("Selu", x, alpha=_SELU_SCALE_ALPHA / _SELU_SCALE, gamma=_SELU_SCALE)


@elementwise("LeakyRelu")
def leaky_relu(node: Node, x: ir.Value) -> ir.Value:
    """x where positive, else alpha * x."""
    return node.emit("LeakyRelu", x, alpha=node.attribute("alpha", 0.2))


def emit_sigmoid(node: Node, x: ir.Value) -> ir.Value:
    """1 / (1 + exp(-x)), precise in relation to itself.

    onnxruntime's Sigmoid errs by 1e-7 where the result is smaller than that, and log(sigmoid(x)) of a loss is then
    wrong in its first digits. It takes half the time, though, and in a loop's body it serves gates, for which the
    absolute error is what counts.
    """
    if node.lowering.builder.depth:
        return node.emit("Sigmoid", x)
    return node.emit("Reciprocal", node.emit("Add", node.emit("Exp", node.emit("Neg", x)), node.scalar(1)))


@elementwise("Sigmoid")
def sigmoid(node: Node, x: ir.Value) -> ir.Value:
    """1 / (1 + exp(-x))."""
    return emit_sigmoid(node, x)


def _along_channels(operator: str, formula: str) -> Callable[..., Tensor]:
    def lower(node: Node) -> Tensor:
        x, output = node.inputs[0], node.outputs[0]
        layout = stored_layout(x)
        axis = layout.axis(x.rank - 1, x.rank)
        output.values[layout] = node.emit(operator, node.value(x, layout), axis=axis)
        return output

    lower.__doc__ = formula
    return lower


rule("Softmax", inputs=(UNUSED,))(_along_channels("Softmax", "exp(x) / sum(exp(x)) along the last axis."))
rule("LogSoftmax", inputs=(UNUSED,))(_along_channels("LogSoftmax", "log(softmax(x)) along the last axis."))


# -- gradients


@elementwise("ReluGrad")
def relu_grad(node: Node, dy: ir.Value, features: ir.Value) -> ir.Value:
    """dy where the features are positive, else 0."""
    return _where(node, node.emit("Greater", features, node.scalar(0)), dy)


@elementwise("Relu6Grad")
def relu6_grad(node: Node, dy: ir.Value, features: ir.Value) -> ir.Value:
    """dy where the features are between 0 and 6, else 0."""
    if node.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        above = node.emit("Greater", features, node.scalar(0))
        return _where(node, node.emit("And", above, node.emit("Less", features, node.scalar(6))), dy)
    # One comparison instead of two: those between are what clipping to the numbers next to 0 and 6 leaves as it is.
    # Next to 0 is the least number that no device takes for 0.
    least, six = node.scalar(np.finfo(node.dtype).tiny, 0), node.scalar(6, 0)
    between = node.emit("Clip", features, least, np.nextafter(six, least))
    return _where(node, node.emit("Equal", between, features), dy)


def _where(node: Node, condition: ir.Value, dy: ir.Value) -> ir.Value:
    """dy where the condition holds, else 0: as a product, like TensorFlow's. Where takes half as long again."""
    return node.emit("Mul", dy, node.cast(condition, node.dtype))


@elementwise("LeakyReluGrad")
def leaky_relu_grad(node: Node, dy: ir.Value, features: ir.Value) -> ir.Value:
    """dy where the features are positive, else alpha * dy."""
    scaled = node.emit("Mul", dy, node.scalar(node.attribute("alpha", 0.2)))
    return node.emit("Where", node.emit("Greater", features, node.scalar(0)), dy, scaled)


@elementwise("EluGrad")
def elu_grad(node: Node, dy: ir.Value, y: ir.Value) -> ir.Value:
    """dy where y is positive, else dy * (y + 1)."""
    below = node.emit("Mul", dy, node.emit("Add", y, node.scalar(1)))
    return node.emit("Where", node.emit("Less", y, node.scalar(0)), below, dy)


@elementwise("SeluGrad")
def selu_grad(node: Node, dy: ir.Value, y: ir.Value) -> ir.Value:
    """dy * scale where y is positive, else dy * (y + scale * alpha)."""
    below = node.emit("Mul", dy, node.emit("Add", y, node.scalar(_SELU_SCALE_ALPHA)))
    above = node.emit("Mul", dy, node.scalar(_SELU_SCALE))
    return node.emit("Where", node.emit("Less", y, node.scalar(0)), below, above)


@elementwise("SoftplusGrad")
def softplus_grad(node: Node, dy: ir.Value, features: ir.Value) -> ir.Value:
    """dy / (1 + exp(-features))."""
    return node.emit("Mul", dy, emit_sigmoid(node, features))


@elementwise("SoftsignGrad")
def softsign_grad(node: Node, dy: ir.Value, features: ir.Value) -> ir.Value:
    """dy / (1 + |features|)^2."""
    root = node.emit("Add", node.emit("Abs", features), node.scalar(1))
    return node.emit("Div", dy, node.emit("Mul", root, root))


@elementwise("TanhGrad")
def tanh_grad(node: Node, y: ir.Value, dy: ir.Value) -> ir.Value:
    """dy * (1 - y^2)."""
    return node.emit("Mul", dy, node.emit("Sub", node.scalar(1), node.emit("Mul", y, y)))


@elementwise("SigmoidGrad")
def sigmoid_grad(node: Node, y: ir.Value, dy: ir.Value) -> ir.Value:
    """dy * y * (1 - y)."""
    return node.emit("Mul", dy, node.emit("Mul", y, node.emit("Sub", node.scalar(1), y)))
