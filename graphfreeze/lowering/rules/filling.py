"""Arrays made from a number, a pattern or a smaller array."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.broadcast import broadcast
from graphfreeze.lowering.layouts import in_layout, stored_layout
from graphfreeze.lowering.rule import PLAIN, UNUSED, Node, rule
from graphfreeze.lowering.tensor import Tensor


@rule("BroadcastTo", inputs=(UNUSED,))
def broadcast_to(node: Node) -> Tensor:
    """The input repeated along its axes of size 1."""
    return broadcast(node.lowering, node.inputs[0], node.outputs[0])


@rule("Fill", inputs=(UNUSED,))
def fill(node: Node) -> Tensor:
    """An array of one number."""
    return broadcast(node.lowering, node.inputs[1], node.outputs[0])


def _constant(number: int, formula: str) -> Callable[[Node], Tensor]:
    def lower(node: Node) -> Tensor:
        one = node.lowering.constant(np.full((), number, node.dtype))
        return broadcast(node.lowering, one, node.outputs[0])

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
        return broadcast(node.lowering, source, output)
    layout = stored_layout(source)
    output.values[layout] = node.emit("Tile", node.value(source, layout), node.vector(in_layout(times, layout)))
    return output


@rule("Range")
def range_(node: Node, start: ir.Value, limit: ir.Value, delta: ir.Value) -> ir.Value:
    """The numbers from start to limit in steps of delta."""
    return node.emit("Range", start, limit, delta)


@rule("Empty", inputs=(UNUSED,))
def empty(node: Node) -> ir.Value:
    """An array for something to be written to: zeros."""
    return node.emit("Expand", node.scalar(0), node.shape(node.outputs[0]))
