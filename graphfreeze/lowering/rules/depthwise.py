"""Depthwise convolutions of images, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphfreeze.lowering.convolution_forms import Convolution
from graphfreeze.lowering.convolution_geometry import batch_and_channels, operation_slide, operation_window, slice_taps
from graphfreeze.lowering.depthwise_products import DepthwiseProducts
from graphfreeze.lowering.depthwise_rows import DepthwiseRows
from graphfreeze.lowering.depthwise_taps import DepthwiseTaps
from graphfreeze.lowering.open_convolution import OpenConvolution
from graphfreeze.lowering.open_window import is_open, open_window
from graphfreeze.lowering.rule import FILTER, IMAGES, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.sequence_convolution import SequenceConvolution
from graphfreeze.lowering.tensor import Dim, Tensor

_Open = OpenConvolution | SequenceConvolution


@rule("DepthwiseConv2dNative", inputs=(IMAGES, FILTER), outputs=(IMAGES,))
def depthwise_convolution(node: Node, x: ir.Value, w: ir.Value) -> ir.Value:
    """Depthwise convolution with any depth multiplier; with SAME the size of the filter may be computed at run time."""
    grouped = _convolution(node, node.inputs[0], node.inputs[1], node.outputs[0])
    if not isinstance(grouped, Convolution):
        return grouped.forward(x, _grouped_filter(grouped, w))
    if (products := _products(grouped)) and products.suits:
        return products.forward(x, w)
    if (taps := _taps(grouped)) and taps.suits_forward:
        return taps.forward(x, w)
    return grouped.forward(x, _grouped_filter(grouped, w))


@rule("DepthwiseConv2dNativeBackpropInput", inputs=(UNUSED, FILTER, IMAGES), outputs=(IMAGES,))
def input_gradient(node: Node, w: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a depthwise convolution's input."""
    grouped = _convolution(node, node.outputs[0], node.inputs[1], node.inputs[2])
    if not isinstance(grouped, Convolution):
        return grouped.input_gradient(_grouped_filter(grouped, w), dy)
    if (products := _products(grouped)) and products.suits:
        return products.input_gradient(w, dy)
    if (taps := _taps(grouped)) and taps.suits_input_gradient:
        return taps.input_gradient(w, dy)
    return grouped.input_gradient(_grouped_filter(grouped, w), dy)


@rule("DepthwiseConv2dNativeBackpropFilter", inputs=(IMAGES, UNUSED, IMAGES), outputs=(FILTER,))
def filter_gradient(node: Node, x: ir.Value, dy: ir.Value) -> ir.Value:
    """The gradient of a depthwise convolution's filter: per tap, a sum of products over images and positions."""
    grouped = _convolution(node, node.inputs[0], node.outputs[0], node.inputs[2])
    if not isinstance(grouped, Convolution):
        return _depthwise_filter(grouped, grouped.filter_gradient(x, dy))
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


def _convolution(node: Node, x: Tensor, w: Tensor, y: Tensor) -> Convolution | _Open:
    *kernel, channels, multiplier = w.shape
    if channels is None or multiplier is None:
        raise CannotLower("only run time knows the channels of its filter; a fixed number would be covered")
    grouped = batch_and_channels(node, x)[0], channels, channels * multiplier, channels
    static = [size for size in kernel if size is not None]
    if len(static) < len(kernel):
        return OpenConvolution(node, operation_slide(node, x, y), w.dims[:-2], *grouped)
    if is_open(node, x):
        return SequenceConvolution(node, open_window(node, x, y, static), *grouped)
    return Convolution(node, operation_window(node, x, y, static), *grouped)


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


def _grouped_filter(grouped: Convolution | _Open, w: ir.Value) -> ir.Value:
    """The filter [multiplier, channels, *kernel] as that of a convolution with one group per channel."""
    node, kernel = grouped.node, _kernel(grouped)
    by_channel = w if grouped.outputs == grouped.inputs else node.transpose(w, [1, 0, *range(2, 2 + len(kernel))])
    return node.reshape(by_channel, [grouped.outputs, 1, *kernel])


def _depthwise_filter(grouped: _Open, w: ir.Value) -> ir.Value:
    """The other way round."""
    node, kernel, channels = grouped.node, _kernel(grouped), grouped.inputs
    by_channel = node.reshape(w, [channels, grouped.outputs // channels, *kernel])
    return node.transpose(by_channel, [1, 0, *range(2, 2 + len(kernel))])


def _kernel(grouped: Convolution | _Open) -> Sequence[Dim | int]:
    return grouped.kernel if isinstance(grouped, OpenConvolution) else grouped.window.kernel
