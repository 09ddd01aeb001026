"""Keras' division of the rows of a gradient, without the branch for divisors that are zero or not a number.

There, Keras adds rows, so that what is looked up nowhere becomes 0 / 0, too; and where an index is there twice, it
takes rows that do not exist. The divisors of its optimizers are roots of squares with an epsilon added. They are zero
where that underflows (Adafactor's is 1e-30, squared), or where there is none (see `takes_rows`); an element whose
squares are not a number is none itself, whatever is taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras.src.backend.tensorflow.sparse as keras_sparse
import tensorflow as tf

__all__ = ["dividing_rows_only"]


class _WithoutBranches:
    """TensorFlow as Keras' division sees it: of `cond`, what stands where no divisor is zero or not a number."""

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)

    @staticmethod
    def cond(_: Any, __: Callable[[], Any], divide_rows: Callable[[], Any]) -> Any:
        return divide_rows()


@contextmanager
def dividing_rows_only() -> Iterator[None]:
    """Let Keras divide rows alone, while a step of an optimizer is traced."""
    before = keras_sparse.tf
    keras_sparse.tf = _WithoutBranches()
    try:
        yield
    finally:
        keras_sparse.tf = before
