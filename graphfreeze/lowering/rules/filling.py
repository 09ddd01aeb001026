"""Arrays made from a number, a pattern or a smaller array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.layouts import in_layout, stored_layout
from graphfreeze.lowering.rule import PLAIN, UNUSED, Node, rule
from graphfreeze.lowering.tensor import Layout, Tensor

__all__ = ["emit_broadcast"]


def emit_broadcast(node: Node, source: Tensor, output: Tensor) -> Tensor:
    """Broadcast the source to the output's shape, in every layout that costs the source nothing.

    Which of them is wanted shows later; the others are pruned.
    """
    if source.shapes == output.shapes:
        return source
    ones = (1,) * len(node.lowering.samples)
    dims = [*[ones] * (output.rank - source.rank), *source.dims]
    layouts: list[Layout] = [PLAIN]
    if output.rank > 2:
        long = [axis for axis, dim in enumerate(dims) if dim != ones]
        layouts = [
            layout
            for layout in Layout
            if [axis for axis in layout.permutation(output.rank) if axis in long] == long
            or (source.rank == output.rank and layout in source.values)
        ]
    for layout in layouts:
        if source.rank == output.rank and layout in source.values:
            value = source.values[layout]
        else:
            value = node.reshape(node.value(source), in_layout(dims, layout))
        output.values[layout] = node.emit("Expand", value, node.vector(in_layout(output.dims, layout)))
    return output


@rule("BroadcastTo", inputs=(UNUSED,))
def broadcast_to(node: Node) -> Tensor:
    """The input repeated along its axes of size 1."""
    return emit_broadcast(node, node.inputs[0], node.outputs[0])


@rule("Fill", inputs=(UNUSED,))
def fill(node: Node) -> Tensor:
    """An array of one number."""
    return emit_broadcast(node, node.inputs[1], node.outputs[0])


def _constant(number: int, formula: str) -> Callable[[Node], Tensor]:
    def lower(node: Node) -> Tensor:
        one = node.lowering.constant(np.full((), number, node.dtype))
        return emit_broadcast(node, one, node.outputs[0])

    lower.__doc__ = formula
    return lower


rule("ZerosLike", inputs=(UNUSED,))(_constant(0, "Zeros in the shape of the input."))
rule("OnesLike", inputs=(UNUSED,))(_constant(1, "Ones in the shape of the input."))


@rule("Tile", inputs=(UNUSED,))
def tile(node: Node) -> Tensor:
    """The input repeated along its axes."""
    source, multiples, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if multiples.known is None:
        output.values[PLAIN] = node.emit("Tile", node.value(source), node.cast(node.value(multiples), np.int64))
        return output
    times = [tuple(int(known[axis]) for known in multiples.known) for axis in range(source.rank)]
    if all(set(source.dim(axis)) == {1} or set(times[axis]) == {1} for axis in range(source.rank)):
        return emit_broadcast(node, source, output)
    layout = stored_layout(source)
    output.values[layout] = node.emit("Tile", node.value(source, layout), node.vector(in_layout(times, layout)))
    return output


@rule("Range")
def range_(node: Node, start: ir.Value, limit: ir.Value, delta: ir.Value) -> ir.Value:
    """The numbers from start to limit in steps of delta."""
    return node.emit("Range", start, limit, delta)
