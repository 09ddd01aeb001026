"""Biases: one number per channel."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.layouts import stored_layout
from graphfreeze.lowering.rule import UNUSED, Node, rule
from graphfreeze.lowering.tensor import Layout, Tensor


def _channel_axis(node: Node, rank: int) -> int:
    return 1 if str(node.attribute("data_format", "NHWC")).startswith("NC") else rank - 1


@rule("BiasAdd", "BiasAddV1", inputs=(UNUSED,))
def bias_add(node: Node) -> Tensor:
    """x + bias along the channel axis, for both data formats."""
    x, bias = node.inputs
    output = node.outputs[0]
    if x.rank > 2 and (layout := stored_layout(x)).axis(_channel_axis(node, x.rank), x.rank) == 1:
        convolution = node.value(x, layout).producer()
        if convolution is not None and convolution.op_type == "Conv" and len(convolution.inputs) == 2:
            output.values[layout] = _biased(node, convolution, node.value(bias))
            return output
    if _channel_axis(node, x.rank) == x.rank - 1:
        layout = node.lowering.common_layout([x, bias], x.rank)
        values = [node.lowering.broadcastable(tensor, layout, x.rank) for tensor in (x, bias)]
    else:
        layout = Layout.PLAIN
        values = [node.value(x), node.reshape(node.value(bias), [1, bias.dim(0), *[1] * (x.rank - 2)])]
    output.values[layout] = node.emit("Add", *values)
    return output


def _biased(node: Node, convolution: ir.Node, bias: ir.Value) -> ir.Value:
    """The convolution with a bias, which saves a pass over the result. What nothing else needs of it is pruned."""
    attributes = {name: attribute.value for name, attribute in convolution.attributes.items()}
    return node.emit("Conv", *convolution.inputs, bias, **attributes)


@rule("BiasAddGrad", inputs=(UNUSED,))
def bias_add_grad(node: Node) -> ir.Value:
    """The sum over all axes but the channels'."""
    x = node.inputs[0]
    layout = stored_layout(x)
    channel = layout.axis(_channel_axis(node, x.rank), x.rank)
    axes = [axis for axis in range(x.rank) if axis != channel]
    return node.emit("ReduceSum", node.value(x, layout), node.int64(axes), keepdims=0)
