"""TensorFlow's graph optimizer (Grappler), which may make other bits of two models that compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

__all__ = ["optimizer_option"]


@contextmanager
def optimizer_option(name: str, value: bool) -> Iterator[None]:
    """Set an option of the optimizer that is otherwise the opposite, and put back what it was."""
    before = tf.config.optimizer.get_experimental_options().get(name, not value)
    tf.config.optimizer.set_experimental_options({name: value})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})
