"""Random numbers of the gamma distribution, and so of the beta distribution: the same as TensorFlow's for a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.philox import derive_key_and_counter, emit_words
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, Node, rule
from graphfreeze.lowering.rules.random import emit_normal, emit_uniform, require_philox
from graphfreeze.lowering.tensor import Tensor

_DOUBLE = np.dtype(np.float64)  # TensorFlow computes in float64, whatever the result is
_BLOCKS_PER_RESULT = 256  # how far TensorFlow spaces the counters of two results
_ATTEMPTS = 12
_BLOCKS = _ATTEMPTS + 3  # two attempts take at most two blocks, the first one of each kind and the last number one more


@rule("StatelessRandomGammaV3", inputs=(UNUSED, PLAIN, PLAIN, KNOWN, PLAIN))
def gamma(node: Node, key: ir.Value, counter: ir.Value, algorithm: npt.NDArray[Any], alpha: ir.Value) -> ir.Value:
    """Numbers of the gamma distribution, drawn after Marsaglia and Tsang."""
    require_philox(algorithm)
    return _fill(node, key, counter, alpha, node.inputs[4])


@rule("StatelessRandomGammaV2", inputs=(UNUSED, PLAIN, PLAIN))
def gamma_of_seed(node: Node, seed: ir.Value, alpha: ir.Value) -> ir.Value:
    """Numbers of the gamma distribution, drawn after Marsaglia and Tsang."""
    return _fill(node, *derive_key_and_counter(node, seed), alpha, node.inputs[2])


def _fill(node: Node, key: ir.Value, counter: ir.Value, alpha: ir.Value, source: Tensor) -> ir.Value:
    output = node.outputs[0]
    alphas, counts = (tuple(int(np.prod(s, dtype=np.int64)) for s in of.shapes) for of in (source, output))
    per_alpha = tuple(count // size for count, size in zip(counts, alphas, strict=True))
    double = Node(node.lowering, node.operation, node.inputs, [Tensor(_DOUBLE, output.shapes)])
    groups = node.vector([counts])
    words = emit_words(node, key, counter, groups, skip=_BLOCKS_PER_RESULT, each=_BLOCKS)
    column = node.reshape(node.cast(alpha, _DOUBLE), [alphas, 1, 1])
    column = node.reshape(node.emit("Expand", column, node.vector([alphas, per_alpha, 1])), [counts, 1])
    normals, uniforms = (_in_rows(node, emit(double, words)) for emit in (emit_normal, emit_uniform))
    drawn = _Draws(double, column, normals, uniforms).lower(source.known)
    # The results of one alpha come one after the other, and stand side by side.
    swapped = node.transpose(node.reshape(drawn, [alphas, per_alpha]), [1, 0])
    return node.cast(node.reshape(swapped, output.dims), node.dtype)


def _in_rows(node: Node, columns: list[ir.Value]) -> ir.Value:
    """Two numbers for each block, all of a result in a row."""
    deep = [node.emit("Unsqueeze", column, node.int64([1])) for column in columns]
    return node.emit("Reshape", node.emit("Concat", *deep, axis=1), node.int64([-1, 2 * _BLOCKS]))


@dataclass
class _Stream:
    """Numbers of one kind for each result: which block they come from, and how many of its two are left."""

    numbers: ir.Value
    block: ir.Value
    left: ir.Value


class _Draws:
    """Attempts to draw each result until one is accepted, in columns with a row for each result."""

    def __init__(self, node: Node, alpha: ir.Value, normals: ir.Value, uniforms: ir.Value) -> None:
        self.node = node
        self.alpha = alpha
        zero = self._number(0, np.int64)
        self.normals, self.uniforms = _Stream(normals, zero, zero), _Stream(uniforms, zero, zero)
        self.next_block = zero

    def lower(self, known: Sequence[npt.NDArray[Any]] | None) -> ir.Value:
        """One number for each alpha, whose values may be known."""
        exponential = self._exponential()
        if known is not None and all((alpha == 1).all() for alpha in known):
            return exponential
        found = self._accepted()
        if known is not None and all((alpha != 1).all() for alpha in known):
            return found
        return self._emit("Where", self._emit("Equal", self.alpha, self._number(1)), exponential, found)

    def _emit(self, op_type: str, *inputs: Any) -> ir.Value:
        return self.node.emit(op_type, *inputs)

    def _number(self, number: float, dtype: Any = _DOUBLE) -> Any:
        return self.node.lowering.builder.constant(np.full((1, 1), number, dtype))

    def _exponential(self) -> ir.Value:
        """For alpha = 1: -log(1 - u)."""
        second = self.node.emit("Slice", self.uniforms.numbers, *map(self.node.int64, ([1], [2], [1])))
        return self._emit("Neg", self._emit("Log", self._emit("Sub", self._number(1), second)))

    def _draw(self, stream: _Stream, where: ir.Value | None = None) -> ir.Value:
        """The next number of a stream; it moves on only where that is asked for."""
        empty = self._emit("Equal", stream.left, self._number(0, np.int64))
        opens = empty if where is None else self._emit("And", empty, where)
        stream.block = self._emit("Where", opens, self.next_block, stream.block)
        self.next_block = self._emit("Add", self.next_block, self.node.cast(opens, np.int64))
        filled = self._emit("Where", empty, self._number(2, np.int64), stream.left)
        left = self._emit("Sub", filled, self._number(1, np.int64))
        stream.left = left if where is None else self._emit("Where", where, left, stream.left)
        index = self._emit("Add", self._emit("Mul", stream.block, self._number(2, np.int64)), left)
        rows = self._emit("Shape", self.alpha)
        return self.node.emit("GatherElements", stream.numbers, self._emit("Expand", index, rows), axis=1)

    def _accepted(self) -> ir.Value:
        emit, number = self._emit, self._number
        one, half = number(1), number(0.5)
        is_small = emit("Less", self.alpha, one)
        d = emit("Add", self.alpha, emit("Where", is_small, number(2 / 3), number(-1 / 3)))
        c = emit("Div", number(1 / 3), emit("Sqrt", d))
        result, done = number(0), None
        for _ in range(_ATTEMPTS):
            x = self._draw(self.normals)
            v = emit("Add", one, emit("Mul", c, x))
            positive = emit("Greater", v, number(0))
            v = emit("Where", positive, v, one)
            v = emit("Mul", emit("Mul", v, v), v)
            u = self._draw(self.uniforms, positive)
            square = emit("Mul", x, x)
            squeezed = emit("Less", u, emit("Sub", one, emit("Mul", emit("Mul", number(0.0331), square), square)))
            slack = emit("Mul", d, emit("Add", emit("Sub", one, v), emit("Log", v)))
            bound = emit("Add", emit("Mul", half, square), slack)
            accepted = emit("And", positive, emit("Or", squeezed, emit("Less", emit("Log", u), bound)))
            drawn = emit("Mul", d, v)
            first = accepted if done is None else emit("And", accepted, emit("Not", done))
            factor = emit("Pow", self._draw(self.uniforms, emit("And", first, is_small)), emit("Div", one, self.alpha))
            drawn = emit("Where", is_small, emit("Mul", drawn, factor), drawn)
            result = emit("Where", first, drawn, result)
            done = accepted if done is None else emit("Or", done, accepted)
        found: ir.Value = result
        return found
