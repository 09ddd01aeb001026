"""Convolutions of images and volumes, and their gradients."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.convolution_forms import Convolution
from graphfreeze.lowering.convolution_geometry import image_dims, operation_window
from graphfreeze.lowering.rule import FILTER, IMAGES, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.tensor import Tensor


@rule("Conv2D", "Conv3D", inputs=(IMAGES, FILTER), outputs=(IMAGES,))
def convolution(node: Node, x: ir.Value, w: ir.Value) -> ir.Value:
    """Convolution with groups, strides, dilations and any padding, in both data formats."""
    return _convolution(node, node.inputs[0], node.inputs[1], node.outputs[0]).forward(x, w)


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2", inputs=(UNUSED, FILTER, IMAGES), outputs=(IMAGES,))
def input_gradient(node: Node, w: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a convolution's input, which is also the transposed convolution."""
    return _convolution(node, node.outputs[0], node.inputs[1], node.inputs[2]).input_gradient(w, dy)


@rule("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", inputs=(IMAGES, UNUSED, IMAGES), outputs=(FILTER,))
def filter_gradient(node: Node, x: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a convolution's filter."""
    return _convolution(node, node.inputs[0], node.outputs[0], node.inputs[2]).filter_gradient(x, dy)


def _convolution(node: Node, x: Tensor, w: Tensor, y: Tensor) -> Convolution:
    shape = w.static_shape
    if shape is None:
        raise CannotLower("its filter follows the batch size; a filter of fixed shape would be covered")
    *kernel, depth, outputs = shape
    batch, inputs, _ = image_dims(node, x)
    return Convolution(node, operation_window(node, x, y, kernel), batch, inputs, outputs, inputs // depth)
