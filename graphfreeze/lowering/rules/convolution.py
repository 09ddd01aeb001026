"""Convolutions of images and volumes, and their gradients."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.convolution_forms import Convolution
from graphfreeze.lowering.convolution_geometry import batch_and_channels, operation_slide, operation_window
from graphfreeze.lowering.open_convolution import OpenConvolution
from graphfreeze.lowering.open_window import is_open, open_window
from graphfreeze.lowering.rule import FILTER, IMAGES, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.sequence_convolution import SequenceConvolution
from graphfreeze.lowering.tensor import Tensor


@rule("Conv2D", "Conv3D", inputs=(IMAGES, FILTER), outputs=(IMAGES,))
def convolution(node: Node, x: ir.Value, w: ir.Value) -> ir.Value:
    """Convolution with groups, strides, dilations and any padding; with SAME the size of the filter may be computed."""
    return _convolution(node, node.inputs[0], node.inputs[1], node.outputs[0]).forward(x, w)


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2", inputs=(UNUSED, FILTER, IMAGES), outputs=(IMAGES,))
def input_gradient(node: Node, w: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a convolution's input, which is also the transposed convolution."""
    return _convolution(node, node.outputs[0], node.inputs[1], node.inputs[2]).input_gradient(w, dy)


@rule("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", inputs=(IMAGES, UNUSED, IMAGES), outputs=(FILTER,))
def filter_gradient(node: Node, x: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a convolution's filter."""
    return _convolution(node, node.inputs[0], node.outputs[0], node.inputs[2]).filter_gradient(x, dy)


def _convolution(node: Node, x: Tensor, w: Tensor, y: Tensor) -> Convolution | OpenConvolution | SequenceConvolution:
    *kernel, depth, outputs = w.shape
    if depth is None or outputs is None:
        raise CannotLower("only run time knows the channels of its filter; a fixed number would be covered")
    batch, inputs = batch_and_channels(node, x)
    channels = batch, inputs, outputs, inputs // depth
    static = [size for size in kernel if size is not None]
    if len(static) < len(kernel):
        return OpenConvolution(node, operation_slide(node, x, y), w.dims[:-2], *channels)
    if is_open(node, x):
        return SequenceConvolution(node, open_window(node, x, y, static), *channels)
    return Convolution(node, operation_window(node, x, y, static), *channels)
