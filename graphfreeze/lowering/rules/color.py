"""Colours of images, in their last axis."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.rule import Node, rule
from graphfreeze.lowering.rules.comparison import emit_where


@rule("RGBToHSV")
def rgb_to_hsv(node: Node, image: ir.Value) -> ir.Value:
    """Hue, saturation and value of red, green and blue."""
    one, zero = node.scalar(1), node.scalar(0)
    axis = node.int64([node.inputs[0].rank - 1])
    red, green, blue = _channels(node, image)
    value = node.emit("ReduceMax", image, axis, keepdims=1)
    spread = node.emit("Sub", value, node.emit("ReduceMin", image, axis, keepdims=1))
    is_grey, is_black = (node.emit("LessOrEqual", tensor, zero) for tensor in (spread, value))
    constant = node.lowering.builder.constant
    sixth = node.emit(
        "Mul", node.emit("Div", one, emit_where(node, is_grey, constant(one), spread)), node.scalar(1 / 6)
    )

    def hue_from(first: ir.Value, second: ir.Value, offset: float) -> ir.Value:
        scaled = node.emit("Mul", sixth, node.emit("Sub", first, second))
        return node.emit("Add", scaled, node.scalar(offset)) if offset else scaled

    hue = emit_where(node, node.emit("Equal", green, value), hue_from(blue, red, 2 / 6), hue_from(red, green, 4 / 6))
    hue = emit_where(node, node.emit("Equal", red, value), hue_from(green, blue, 0), hue)
    hue = emit_where(node, is_grey, constant(zero), hue)
    hue = emit_where(node, node.emit("Less", hue, zero), node.emit("Add", hue, one), hue)
    ratio = node.emit("Div", spread, emit_where(node, is_black, constant(one), value))
    saturation = emit_where(node, is_black, constant(zero), ratio)
    return node.emit("Concat", hue, saturation, value, axis=-1)


@rule("HSVToRGB")
def hsv_to_rgb(node: Node, image: ir.Value) -> ir.Value:
    """Red, green and blue of hue, saturation and value."""
    one, zero, two = node.scalar(1), node.scalar(0), node.scalar(2)
    hue, saturation, value = _channels(node, image)
    angle = node.emit("Mul", hue, node.scalar(6))

    def distance(center: float) -> ir.Value:
        return node.emit("Abs", node.emit("Sub", angle, node.scalar(center)))

    shares = [
        node.emit("Sub", distance(3), one),
        node.emit("Sub", two, distance(2)),
        node.emit("Sub", two, distance(4)),
    ]
    grey = node.emit("Sub", one, saturation)
    colors = []
    for share in shares:
        clipped = node.emit("Min", node.emit("Max", share, zero), one)
        colors.append(node.emit("Mul", node.emit("Add", grey, node.emit("Mul", saturation, clipped)), value))
    return node.emit("Concat", *colors, axis=-1)


def _channels(node: Node, image: ir.Value) -> list[ir.Value]:
    return node.emit_many("Split", image, outputs=3, axis=node.inputs[0].rank - 1, num_outputs=3)
