"""Depthwise convolutions of images, and their gradients."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.convolution_forms import Convolution
from graphfreeze.lowering.convolution_geometry import image_dims, operation_window, slice_taps
from graphfreeze.lowering.depthwise_products import DepthwiseProducts
from graphfreeze.lowering.depthwise_rows import DepthwiseRows
from graphfreeze.lowering.depthwise_taps import DepthwiseTaps
from graphfreeze.lowering.rule import FILTER, IMAGES, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.tensor import Tensor


@rule("DepthwiseConv2dNative", inputs=(IMAGES, FILTER), outputs=(IMAGES,))
def depthwise_convolution(node: Node, x: ir.Value, w: ir.Value) -> ir.Value:
    """Depthwise convolution with any depth multiplier: a convolution with one group per channel."""
    grouped = _convolution(node, node.inputs[0], node.inputs[1], node.outputs[0])
    if (products := _products(grouped)) and products.suits:
        return products.forward(x, w)
    if (taps := _taps(grouped)) and taps.suits_forward:
        return taps.forward(x, w)
    return grouped.forward(x, _grouped_filter(grouped, w))


@rule("DepthwiseConv2dNativeBackpropInput", inputs=(UNUSED, FILTER, IMAGES), outputs=(IMAGES,))
def input_gradient(node: Node, w: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a depthwise convolution's input."""
    grouped = _convolution(node, node.outputs[0], node.inputs[1], node.inputs[2])
    if (products := _products(grouped)) and products.suits:
        return products.input_gradient(w, dy)
    if (taps := _taps(grouped)) and taps.suits_input_gradient:
        return taps.input_gradient(w, dy)
    return grouped.input_gradient(_grouped_filter(grouped, w), dy)


@rule("DepthwiseConv2dNativeBackpropFilter", inputs=(IMAGES, UNUSED, IMAGES), outputs=(FILTER,))
def filter_gradient(node: Node, x: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a depthwise convolution's filter: per tap, a sum of products over images and positions."""
    grouped = _convolution(node, node.inputs[0], node.outputs[0], node.inputs[2])
    window, channels = grouped.window, grouped.inputs
    multiplier = grouped.outputs // channels
    if (products := _products(grouped)) and products.suits:
        return node.reshape(products.filter_gradient(x, dy), [multiplier, channels, *window.kernel])
    if (rows := _rows(grouped)) and rows.suits_filter_gradient:
        return node.reshape(rows.filter_gradient(x, dy), [multiplier, channels, *window.kernel])
    if (taps := _taps(grouped)) and taps.suits_filter_gradient:
        return node.reshape(taps.filter_gradient(x, dy), [multiplier, channels, *window.kernel])
    over = node.int64([0, *range(3, 3 + len(window.output))])
    dy = node.reshape(dy, [grouped.batch, channels, multiplier, *window.output])
    sums = []
    for tap in slice_taps(node, x, window):
        product = node.emit("Mul", node.emit("Unsqueeze", tap, node.int64([2])), dy)
        sums.append(node.reshape(node.emit("ReduceSum", product, over, keepdims=0), [channels, multiplier, 1]))
    together = sums[0] if len(sums) == 1 else node.emit("Concat", *sums, axis=2)
    return node.reshape(node.transpose(together, [1, 0, 2]), [multiplier, channels, *window.kernel])


def _convolution(node: Node, x: Tensor, w: Tensor, y: Tensor) -> Convolution:
    shape = w.static_shape
    if shape is None:
        raise CannotLower("its filter follows the batch size; a filter of fixed shape would be covered")
    *kernel, channels, multiplier = shape
    window = operation_window(node, x, y, kernel)
    return Convolution(node, window, image_dims(node, x)[0], channels, channels * multiplier, channels)


def _rows(grouped: Convolution) -> DepthwiseRows | None:
    """The form with a matrix for each channel and row, which there is for one filter a channel."""
    if grouped.outputs != grouped.inputs:
        return None
    return DepthwiseRows(grouped.node, grouped.window, grouped.batch, grouped.inputs)


def _products(grouped: Convolution) -> DepthwiseProducts | None:
    """The form with a matrix for each channel, which there is for one filter a channel."""
    if grouped.outputs != grouped.inputs:
        return None
    return DepthwiseProducts(grouped.node, grouped.window, grouped.batch, grouped.inputs)


def _taps(grouped: Convolution) -> DepthwiseTaps | None:
    """The form with the channels last, which there is for one filter a channel."""
    if grouped.outputs != grouped.inputs:
        return None
    return DepthwiseTaps(grouped.node, grouped.window, grouped.batch, grouped.inputs)


def _grouped_filter(grouped: Convolution, w: ir.Value) -> ir.Value:
    """The filter [multiplier, channels, *kernel] as that of a convolution with one group per channel."""
    node, kernel = grouped.node, grouped.window.kernel
    by_channel = w if grouped.outputs == grouped.inputs else node.transpose(w, [1, 0, *range(2, 2 + len(kernel))])
    return node.reshape(by_channel, [grouped.outputs, 1, *kernel])
