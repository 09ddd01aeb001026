"""Patches of images and volumes: what a window holds at each place, as channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node, rule


@rule("ExtractImagePatches", "ExtractVolumePatches")
def extract_patches(node: Node, x: ir.Value) -> ir.Value:
    """The elements of a window that slides over space, one place after the other, those of one place as channels."""
    source, output = node.inputs[0], node.outputs[0]
    windows, strides = node.attribute("ksizes")[1:-1], node.attribute("strides")[1:-1]
    rates = node.attribute("rates", [1] * (len(windows) + 2))[1:-1]
    counts = output.dims[1:-1]
    places, before, after = [], [], []
    for axis, (window, stride, rate) in enumerate(zip(windows, strides, rates, strict=True), 1):
        size, count = source.shape[axis], output.shape[axis]
        if size is None or count is None:
            followed = node.lowering.sizes.origin(source.dim(axis))
            raise CannotLower(f"patches of an axis that follows {followed}; axes of a fixed size are covered")
        place = np.arange(count)[:, None] * stride + np.arange(window) * rate
        # SAME puts what is missing for the last place around the axis, the odd one behind it.
        missing = max(int(place.max(initial=-1)) + 1 - size, 0) if node.attribute("padding") == "SAME" else 0
        places.append(place)
        before.append(missing // 2)
        after.append(missing - missing // 2)
    if any(after):
        x = node.emit("Pad", x, node.int64([0, *before, 0, 0, *after, 0]))
    # Each axis becomes two: the places, and what the window holds there. [batch, place, within, ..., channels]
    for index, place in enumerate(places):
        x = node.emit("Gather", x, node.lowering.builder.constant(place), axis=1 + 2 * index)
    last = 1 + 2 * len(places)
    x = node.transpose(x, [0, *range(1, last, 2), *range(2, last, 2), last])
    return node.reshape(x, [source.dim(0), *counts, output.dims[-1]])
