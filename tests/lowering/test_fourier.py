"""Complex numbers and Fourier transforms, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

PAIR = {"re": Argument((None, 3, 4, 6)), "im": Argument((None, 3, 4, 6))}
TRANSFORMS = ["fft", "ifft", "fft2d", "ifft2d", "fft3d", "ifft3d"]


def split(value: Any) -> list[Any]:
    return [tf.math.real(value), tf.math.imag(value)]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_complex_transforms(name: str) -> None:
    transform = getattr(tf.signal, name)
    check(gradients(lambda re, im: split(transform(tf.complex(re, im)))), PAIR)


@pytest.mark.parametrize(
    "name,lengths",
    [("rfft", [6]), ("rfft", [5]), ("rfft", [9]), ("rfft2d", [4, 6]), ("rfft2d", [3, 8]), ("rfft3d", [3, 4, 6])],
)
def test_transforms_of_real_numbers(name: str, lengths: list[int]) -> None:
    def function(x: Any) -> list[Any]:
        return split(getattr(tf.signal, name)(x, lengths))

    # TensorFlow has no gradient of a cropped or padded transform over several axes, nor of rfft3d.
    check(gradients(function) if lengths in ([6], [4, 6]) else function, {"x": Argument((None, 3, 4, 6))})


@pytest.mark.parametrize(
    "name,lengths", [("irfft", [10]), ("irfft", [7]), ("irfft", [14]), ("irfft2d", [4, 10]), ("irfft3d", [3, 4, 10])]
)
def test_inverse_transforms_to_real_numbers(name: str, lengths: list[int]) -> None:
    def function(re: Any, im: Any) -> Any:
        return getattr(tf.signal, name)(tf.complex(re, im), lengths)

    check(gradients(function) if lengths in ([10], [4, 10]) else function, PAIR)


@pytest.mark.parametrize("length", [600, 1018, 521])
def test_long_transforms(length: int) -> None:
    def function(x: Any) -> list[Any]:
        half = tf.signal.rfft(x)
        return [*split(half), tf.signal.irfft(half * tf.complex(x[:, :1], 2 * x[:, 1:2]), [length])]

    check(gradients(function), {"x": Argument((None, length))})


def complex_arithmetic(a: Any, b: Any) -> list[Any]:
    x, y = tf.complex(a, b), tf.complex(b, a + 3)
    pieces = [x * y, x / y, tf.square(x) - y, -tf.math.conj(y), tf.concat([x, y], -1)[..., 1:5], tf.reduce_sum(x, 1)]
    pieces += [tf.stack([x, y], 1), tf.cast(a, x.dtype) * x, tf.transpose(tf.reshape(x, [-1, 6, 2]), [0, 2, 1])]
    return [*(part for piece in pieces for part in split(piece)), tf.abs(y), tf.cast(x, a.dtype)]


def test_arithmetic() -> None:
    check(gradients(complex_arithmetic), {"a": Argument((None, 4, 3)), "b": Argument((None, 4, 3))})


def _over_the_batch(x: Any) -> Any:
    return tf.math.real(tf.signal.fft(tf.transpose(tf.complex(x, x))))


def test_what_is_not_covered_says_so() -> None:
    def through_a_loop(x: Any) -> Any:
        return tf.math.real(tf.while_loop(lambda c: tf.abs(c[0, 0]) < 9, lambda c: [c + c], [tf.complex(x, x)])[0])

    cases: list[tuple[Callable[..., Any], Argument, str]] = [
        (lambda x: tf.math.real(tf.exp(tf.complex(x, x))), Argument((None, 4)), "complex numbers; real numbers"),
        (through_a_loop, Argument((None, 4)), "complex64 of shape .* has no value"),
        (_over_the_batch, Argument((None, 4)), "length is not fixed"),
        (lambda x: tf.math.real(tf.signal.rfft(tf.transpose(x), [4])), Argument((None, 4)), "known only at run time"),
        (lambda x: tf.math.real(tf.signal.rfft(x)), Argument((None, 4099)), "prime length 4099"),
    ]
    for function, argument, message in cases:
        with pytest.raises(UnsupportedOperationError, match=message):
            lower(function, {"x": argument})
