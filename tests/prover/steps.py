"""A training step on variables of one shape, whatever it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["Made", "Step", "momentum"]

Made = Callable[[Any, Any, Any], Any]
"""Updates a module's variables, given a gradient and what the step is called with."""


class Step(tf.Module):
    """A step that updates variables of one shape, and others.

    Args:
        made: Updates the module's variables, given a gradient and what the step is called with.
    """

    def __init__(self, made: Made) -> None:
        super().__init__()
        self.v = tf.Variable(tf.reshape(tf.range(9.0), [3, 3]), name="v")
        self.u = tf.Variable(tf.reshape(tf.range(9.0), [3, 3]), name="u")
        self.s = tf.Variable(tf.fill([3, 3], 0.5), trainable=False, name="s")
        self.t = tf.Variable(tf.fill([3, 3], 0.25), trainable=False, name="t")
        self.r = tf.Variable(tf.ones([3]), name="r")
        self._made = made

    @tf.function(input_signature=[tf.TensorSpec([3, 3])])
    def train(self, x: Any) -> Any:
        return self._made(self, tf.matmul(x, x), x)


def momentum(m: Any, g: Any, slot: str = "s") -> Any:
    """Add to a momentum, and read what it is then."""
    held = getattr(m, slot)
    held.assign(held * 0.9 + g)
    return held.read_value()
