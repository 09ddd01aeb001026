"""Blocks of space moved to the batch or to the channels, and back."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import crop
from graphfreeze.lowering.rule import CHANNELS_FIRST, IMAGES, KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.tensor import Dim, Layout, Tensor

Numbers = npt.NDArray[Any]


@rule("SpaceToBatchND", inputs=(UNUSED, KNOWN, KNOWN))
def space_to_batch(node: Node, block: Numbers, paddings: Numbers) -> Tensor:
    """Each position within a block of the padded space becomes a batch of its own."""
    blocks, layout = _blocks(node, block)
    count = len(blocks)
    x = node.value(node.inputs[0], layout)
    batch, channels, *_ = _channels_first(node.inputs[0], layout)
    _, _, *sizes = _channels_first(node.outputs[0], layout)
    x = x if layout is CHANNELS_FIRST else node.emit("Unsqueeze", x, node.int64([1]))
    if paddings.any():
        rest = [0] * (len(sizes) - count)
        x = node.emit("Pad", x, node.int64([0, 0, *paddings[:, 0], *rest, 0, 0, *paddings[:, 1], *rest]))
    split = [part for axis in range(count) for part in (sizes[axis], blocks[axis])]
    x = node.reshape(x, [batch, channels, *split, *sizes[count:]])
    within, across = range(3, 3 + 2 * count, 2), range(2, 2 + 2 * count, 2)
    x = node.transpose(x, [*within, 0, 1, *across, *range(2 + 2 * count, 2 + count + len(sizes))])
    return _placed(node, node.reshape(x, _channels_first(node.outputs[0], layout)), layout)


@rule("BatchToSpaceND", inputs=(UNUSED, KNOWN, KNOWN))
def batch_to_space(node: Node, block: Numbers, crops: Numbers) -> Tensor:
    """The opposite of SpaceToBatchND: batches become positions within blocks, then the borders are cut off."""
    blocks, layout = _blocks(node, block)
    count = len(blocks)
    x = node.value(node.inputs[0], layout)
    _, channels, *sizes = _channels_first(node.inputs[0], layout)
    batch, _, *reached = _channels_first(node.outputs[0], layout)
    x = node.reshape(x, [*blocks, batch, channels, *sizes])
    across = [axis for pair in zip(range(count + 2, 2 * count + 2), range(count), strict=True) for axis in pair]
    x = node.transpose(x, [count, count + 1, *across, *range(2 * count + 2, count + 2 + len(sizes))])
    grown = [tuple(part * factor for part in size) for size, factor in zip(sizes, blocks, strict=False)]
    x = node.reshape(x, [batch, channels, *grown, *sizes[count:]])
    if crops.any():
        start, length = [int(cut) for cut in crops[:, 0]], [size[0] for size in reached[:count]]
        x = crop(node, x, [size[0] for size in grown], start, length)
    return _placed(node, x, layout)


@rule("SpaceToDepth", inputs=(IMAGES,), outputs=(IMAGES,))
def space_to_depth(node: Node, x: ir.Value) -> ir.Value:
    """Blocks of space become channels."""
    return node.emit("SpaceToDepth", x, blocksize=_block_size(node))


@rule("DepthToSpace", inputs=(IMAGES,), outputs=(IMAGES,))
def depth_to_space(node: Node, x: ir.Value) -> ir.Value:
    """Channels become blocks of space."""
    return node.emit("DepthToSpace", x, blocksize=_block_size(node), mode="DCR")


def _blocks(node: Node, block: Numbers) -> tuple[list[int], Layout]:
    """The blocks, and the layout in which their axes are the last but those that are not in blocks."""
    rank = node.inputs[0].rank
    if not 0 < len(block) < rank:
        raise CannotLower(f"its blocks have {len(block)} axes; blocks of the axes behind the batch are covered")
    sizes = node.inputs[0].dims[1 : 1 + len(block)]
    for size in sizes:
        if len(set(size)) > 1:
            followed = node.lowering.sizes.origin(size)
            raise CannotLower(f"an axis of its blocks follows {followed}; export the model with its size fixed")
    return [int(size) for size in block], CHANNELS_FIRST if len(block) < rank - 1 else PLAIN


def _channels_first(tensor: Tensor, layout: Layout) -> list[Dim]:
    """The dimensions with the channels second, of which there is one where all axes behind the batch are in blocks."""
    if layout is PLAIN:
        return [tensor.dim(0), (1,) * len(tensor.shapes), *tensor.dims[1:]]
    batch, *sizes, channels = tensor.dims
    return [batch, channels, *sizes]


def _placed(node: Node, x: ir.Value, layout: Layout) -> Tensor:
    (output,) = node.outputs
    output.values[layout] = node.reshape(x, output.dims) if layout is PLAIN else x
    return output


def _block_size(node: Node) -> int:
    if node.inputs[0].rank != 4:
        raise CannotLower("its data format is vectorised; NHWC and NCHW are covered")
    return int(node.attribute("block_size"))
