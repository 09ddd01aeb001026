"""Random numbers of TensorFlow's stateless generator: the same as TensorFlow's for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.native_noise import emit_native, named_noise
from graphfreeze.lowering.philox import (
    Words,
    count_blocks,
    derive_key_and_counter,
    emit_words,
    interleave,
    join_words,
)
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule, special
from graphfreeze.lowering.tensor import Dim, Tensor

__all__ = ["emit_normal", "emit_uniform", "require_philox"]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_PHILOX, _AUTOMATIC = 1, 3
_BLOCKS_PER_GROUP = 256  # how far TensorFlow spaces the counters of truncated normal numbers, per block of results
_TRUNCATED_AT = 2.0


# -- seeds


@rule("StatelessRandomGetKeyCounter")
def key_and_counter(node: Node, seed: ir.Value) -> list[ir.Value]:
    """The generator's key and counter of a seed."""
    return list(derive_key_and_counter(node, seed))


@rule("StatelessRandomGetKeyCounterAlg")
def key_counter_and_algorithm(node: Node, seed: ir.Value) -> list[ir.Value]:
    """The generator's key and counter of a seed, and the algorithm's number."""
    return [*derive_key_and_counter(node, seed), node.lowering.builder.constant(np.array(_PHILOX, np.int32))]


@special("StatelessRandomGetAlg")
def algorithm(node: Node) -> list[Tensor]:
    """The number of the generator's algorithm: Philox."""
    return [node.lowering.constant(np.array(_PHILOX, np.int32))]


# -- distributions: each makes columns of results from blocks of four 32-bit words

Distribution = Callable[[Node, Words], list[ir.Value]]


def _columns_per_block(node: Node) -> int:
    return 2 if node.dtype.itemsize == 8 else 4


def _pairs(words: Words) -> list[tuple[ir.Value, ir.Value]]:
    return [(words[0], words[1]), (words[2], words[3])]


def _unit(node: Node, low: ir.Value, high: ir.Value | None = None) -> ir.Value:
    """A float in [0, 1) of one word, or of two for float64: as many bits as the mantissa has."""
    is_bfloat16 = node.dtype == _BFLOAT16
    bits = 7 if is_bfloat16 else {2: 10, 4: 23, 8: 52}[node.dtype.itemsize]
    if high is not None:  # TensorFlow takes the upper 20 bits from the first word
        low = join_words(node, high, node.emit("BitwiseAnd", low, np.array([0xFFFFF], np.uint64)))
    else:
        low = node.emit("BitwiseAnd", low, np.array([2**bits - 1], np.uint64))
    if is_bfloat16:  # onnxruntime's CPU kernels cannot multiply it
        return node.cast(node.emit("Mul", node.cast(low, np.float32), np.array([2.0**-bits], np.float32)), node.dtype)
    return node.emit("Mul", node.cast(low, node.dtype), np.array([2.0**-bits], node.dtype))


def emit_uniform(node: Node, words: Words) -> list[ir.Value]:
    """Columns of uniform numbers in [0, 1), in the dtype of the node's output."""
    if node.dtype == np.float64:
        return [_unit(node, low, high) for low, high in _pairs(words)]
    return [_unit(node, word) for word in words]


def emit_normal(node: Node, words: Words) -> list[ir.Value]:
    """Columns of normal numbers, made after Box and Muller, in the dtype of the node's output."""
    if node.dtype.itemsize == 2:
        raise CannotLower(f"normal numbers in {node.dtype}; float32 and float64 are covered")
    units = emit_uniform(node, words)
    columns = []
    for first, second in zip(units[::2], units[1::2], strict=True):
        bounded = node.emit("Max", first, np.array([1e-7], node.dtype))
        radius = node.emit("Sqrt", node.emit("Mul", node.emit("Log", bounded), np.array([-2], node.dtype)))
        angle = node.emit("Mul", second, np.array([2 * math.pi], node.dtype))
        columns += [node.emit("Mul", node.emit(wave, angle), radius) for wave in ("Sin", "Cos")]
    return columns


def _whole_range(node: Node, words: Words) -> list[ir.Value]:
    if node.dtype.itemsize == 8:
        return [node.cast(join_words(node, low, high), node.dtype) for low, high in _pairs(words)]
    return [node.cast(word, node.dtype) for word in words]


def _fill(node: Node, key: ir.Value, counter: ir.Value, distribution: Distribution) -> ir.Value:
    """The output, filled by a distribution."""
    output = node.outputs[0]
    per_block = _columns_per_block(node)
    count = _count(output)
    columns = distribution(node, emit_words(node, key, counter, count_blocks(node, count, per_block)))
    return named_noise(node, node.reshape(interleave(node, columns, count), output.dims))


def _count(output: Tensor) -> Dim:
    return tuple(int(np.prod(shape, dtype=np.int64)) for shape in output.shapes)


def require_philox(number: npt.NDArray[Any]) -> None:
    """Check the algorithm's number.

    Raises:
        CannotLower: It is another algorithm.
    """
    if int(number) not in (_PHILOX, _AUTOMATIC):
        raise CannotLower(f"random numbers of algorithm {int(number)}; Philox (1) is covered")


def _declare(kind: str, distribution: Distribution, formula: str) -> None:
    def lower(node: Node, key: ir.Value, counter: ir.Value, algorithm: npt.NDArray[Any]) -> ir.Value:
        require_philox(algorithm)
        return emit_native(node, kind, key, counter) or _fill(node, key, counter, distribution)

    def lower_seed(node: Node, seed: ir.Value) -> ir.Value:
        return emit_native(node, kind, seed) or _fill(node, *derive_key_and_counter(node, seed), distribution)

    lower.__doc__ = lower_seed.__doc__ = formula
    rule(f"{kind}V2", inputs=(UNUSED, PLAIN, PLAIN, KNOWN))(lower)
    rule(kind, inputs=(UNUSED, PLAIN))(lower_seed)


_declare("StatelessRandomUniform", emit_uniform, "Uniform numbers in [0, 1).")
_declare("StatelessRandomNormal", emit_normal, "Normal numbers.")
_declare("StatelessRandomUniformFullInt", _whole_range, "Integers from the dtype's whole range.")


# -- integers in a range


def _in_range(node: Node, low: ir.Value, high: ir.Value) -> Distribution:
    """`low + bits % (high - low)` in unsigned arithmetic."""

    def distribution(node: Node, words: Words) -> list[ir.Value]:
        ends = [node.cast(node.cast(value, np.int64), np.uint64) for value in (low, high)]
        size = node.emit("Sub", ends[1], ends[0])
        if node.dtype.itemsize == 8:
            words = [join_words(node, *pair) for pair in _pairs(words)]
        results = [node.emit("Add", ends[0], node.emit("Mod", word, size)) for word in words]
        return [node.cast(node.cast(result, np.int64), node.dtype) for result in results]

    return distribution


@rule("StatelessRandomUniformIntV2", inputs=(UNUSED, PLAIN, PLAIN, KNOWN, PLAIN, PLAIN))
def uniform_integers(
    node: Node,
    key: ir.Value,
    counter: ir.Value,
    algorithm: npt.NDArray[Any],
    low: ir.Value,
    high: ir.Value,
) -> ir.Value:
    """Uniform integers in a range."""
    require_philox(algorithm)
    return _fill(node, key, counter, _in_range(node, low, high))


@rule("StatelessRandomUniformInt", inputs=(UNUSED, PLAIN, PLAIN, PLAIN))
def uniform_integers_of_seed(node: Node, seed: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """Uniform integers in a range."""
    return _fill(node, *derive_key_and_counter(node, seed), _in_range(node, low, high))


# -- truncated normal numbers


@rule("StatelessTruncatedNormalV2", inputs=(UNUSED, PLAIN, PLAIN, KNOWN))
def truncated_normal(node: Node, key: ir.Value, counter: ir.Value, algorithm: npt.NDArray[Any]) -> ir.Value:
    """Normal numbers of which those beyond 2 are drawn again."""
    require_philox(algorithm)
    return emit_native(node, "StatelessTruncatedNormal", key, counter) or _fill_truncated(node, key, counter)


@rule("StatelessTruncatedNormal", inputs=(UNUSED, PLAIN))
def truncated_normal_of_seed(node: Node, seed: ir.Value) -> ir.Value:
    """Normal numbers of which those beyond 2 are drawn again."""
    native = emit_native(node, "StatelessTruncatedNormal", seed)
    return native or _fill_truncated(node, *derive_key_and_counter(node, seed))


def _fill_truncated(node: Node, key: ir.Value, counter: ir.Value) -> ir.Value:
    """TensorFlow draws each group of results until it is full.

    Here a group draws `draws` numbers at once and takes the first that are small enough; that they do not suffice has
    a probability below 1e-14 per group.
    """
    output = node.outputs[0]
    per_group = _columns_per_block(node)
    count = _count(output)
    groups = count_blocks(node, count, per_group)
    draws = 16
    each = draws // per_group
    words = emit_words(node, key, counter, groups, skip=per_group * _BLOCKS_PER_GROUP // 4, each=each)
    columns = [node.emit("Unsqueeze", column, node.int64([1])) for column in emit_normal(node, words)]
    drawn = node.emit("Reshape", node.emit("Concat", *columns, axis=1), node.int64([-1, draws]))
    small = node.emit("Less", node.emit("Abs", drawn), node.scalar(_TRUNCATED_AT, 2))
    rank = node.emit("CumSum", node.cast(small, np.int32), np.array(1, np.int64))
    zero = node.scalar(0, 2)
    taken = []
    for place in range(1, per_group + 1):
        here = node.emit("And", small, node.emit("Equal", rank, np.array([[place]], np.int32)))
        chosen = node.emit("Where", here, drawn, zero)
        taken.append(node.emit("ReduceSum", chosen, node.int64([1]), keepdims=0))
    return named_noise(node, node.reshape(interleave(node, taken, count), output.dims))
