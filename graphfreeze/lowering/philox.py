"""TensorFlow's counter-based random generator, Philox4x32-10, in ONNX: the same bits for the same seed.

The arithmetic is on uint64 vectors that hold 32-bit words. onnxruntime has these kernels on the CPU only, so on CUDA
these nodes, and nothing else, run on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["Words", "count_blocks", "derive_key_and_counter", "emit_words", "interleave", "join_words"]

Words = list[ir.Value]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = np.array([0xFFFFFFFF], np.uint64)
_WORD_BITS = np.array([32], np.uint64)
# The key that TensorFlow scrambles a seed with.
_SEED_KEY = (0x3EC8F720, 0x02461E29)


def _low_word(node: Node, value: ir.Value) -> ir.Value:
    """The lower 32 bits."""
    return node.emit("BitwiseAnd", value, _MASK)


def _high_word(node: Node, value: ir.Value) -> ir.Value:
    """The upper 32 bits."""
    return node.emit("BitShift", value, _WORD_BITS, direction="RIGHT")


def join_words(node: Node, low: ir.Value, high: ir.Value) -> ir.Value:
    """A 64-bit number of two words."""
    return node.emit("BitwiseOr", low, node.emit("BitShift", high, _WORD_BITS, direction="LEFT"))


def _philox(node: Node, counter: Words, key: Words) -> Words:
    """Four words for each counter of four words."""
    first, second, third, fourth = counter
    key_0, key_1 = key
    for round_ in range(_ROUNDS):
        product_0 = node.emit("Mul", first, np.array([_MULTIPLIERS[0]], np.uint64))
        product_1 = node.emit("Mul", third, np.array([_MULTIPLIERS[1]], np.uint64))
        first = node.emit("BitwiseXor", node.emit("BitwiseXor", _high_word(node, product_1), second), key_0)
        third = node.emit("BitwiseXor", node.emit("BitwiseXor", _high_word(node, product_0), fourth), key_1)
        second, fourth = _low_word(node, product_1), _low_word(node, product_0)
        if round_ < _ROUNDS - 1:
            key_0 = _low_word(node, node.emit("Add", key_0, np.array([_KEY_STEPS[0]], np.uint64)))
            key_1 = _low_word(node, node.emit("Add", key_1, np.array([_KEY_STEPS[1]], np.uint64)))
    return [first, second, third, fourth]


def derive_key_and_counter(node: Node, seed: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The key (uint64 of shape [1]) and counter (uint64 of shape [2]) that TensorFlow derives from a seed."""
    signed = node.cast(node.cast(seed, np.int64), np.uint64)
    halves = [node.emit("Slice", signed, node.int64([k]), node.int64([k + 1])) for k in range(2)]
    counter = [word(node, half) for half in halves for word in (_low_word, _high_word)]
    key = [node.lowering.builder.constant(np.array([word], np.uint64)) for word in _SEED_KEY]
    mixed = _philox(node, counter, key)
    upper = join_words(node, mixed[2], mixed[3])
    return join_words(node, mixed[0], mixed[1]), node.emit("Concat", np.zeros(1, np.uint64), upper, axis=0)


def count_blocks(node: Node, count: Dim, size: int) -> ir.Value:
    """How many blocks of a size hold `count` results, as an int64 vector of one number."""
    padded = node.vector([tuple(n + size - 1 for n in count)])
    return node.emit("Div", padded, np.array([size], np.int64))


def emit_words(node: Node, key: ir.Value, counter: ir.Value, groups: ir.Value, skip: int = 1, each: int = 1) -> Words:
    """Blocks of four words, as four vectors.

    Args:
        node: The operation that is being lowered.
        key: uint64 of shape [1].
        counter: uint64 of shape [2] (at least); the lower half does not overflow within one operation.
        groups: How many groups of blocks: int64 of shape [1].
        skip: How far the counter moves from group to group.
        each: How many consecutive blocks a group has; the vectors are then `groups * each` long.
    """
    numbers = node.emit("Range", np.int64(0), node.emit("Squeeze", groups), np.int64(1))
    if skip != 1:
        numbers = node.emit("Mul", numbers, np.array([skip], np.int64))
    if each != 1:
        column = node.emit("Unsqueeze", numbers, node.int64([1]))
        numbers = node.emit("Add", column, np.arange(each, dtype=np.int64).reshape(1, each))
        numbers = node.emit("Reshape", numbers, node.int64([-1]))
    numbers = node.cast(numbers, np.uint64)
    low = node.emit("Add", numbers, node.emit("Slice", counter, node.int64([0]), node.int64([1])))
    high = node.emit("Slice", counter, node.int64([1]), node.int64([2]))
    words = [_low_word(node, low), _high_word(node, low), _low_word(node, high), _high_word(node, high)]
    return _philox(node, words, [_low_word(node, key), _high_word(node, key)])


def interleave(node: Node, columns: Sequence[ir.Value], count: Dim) -> ir.Value:
    """The vectors' elements in turn, as one vector of which the first `count` are kept."""
    deep = [node.emit("Unsqueeze", column, node.int64([1])) for column in columns]
    flat = node.emit("Reshape", node.emit("Concat", *deep, axis=1), node.int64([-1]))
    return node.emit("Slice", flat, node.int64([0]), node.vector([count]))
