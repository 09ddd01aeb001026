"""The losses of Keras, by name, and the targets that each one takes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured, construct, parse_configured, snake_case

__all__ = ["LOSSES", "make_loss", "parse_loss", "sample_targets", "target_spec"]

_NOT_OFFERED = {"Loss", "CTC"}  # the base class; CTC's targets need lengths, and its operation has no ONNX form

_ALIASES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
}
_INTEGER_TARGETS = frozenset({"sparse_categorical_crossentropy", "circle"})


def _classes() -> dict[str, str]:
    found = {}
    for name in dir(keras.losses):
        item = getattr(keras.losses, name)
        if isinstance(item, type) and issubclass(item, keras.losses.Loss) and name not in _NOT_OFFERED:
            found["kl_divergence" if name == "KLDivergence" else snake_case(name)] = name
    return found


LOSSES: dict[str, str] = _classes()
"""Every loss of keras.losses that is offered: its name in snake case, and its class."""


def parse_loss(text: str) -> Configured:
    """Parse `NAME[:key=value,...]`, aliases like `mse` included."""
    name, colon, rest = text.partition(":")
    return parse_configured(_ALIASES.get(name, name) + colon + rest, "loss", LOSSES)


def make_loss(configured: Configured) -> Any:
    """The Keras loss."""
    return construct(getattr(keras.losses, LOSSES[configured.name]), configured, "loss")


def target_spec(
    configured: Configured, shape: tuple[int | None, ...], dtype: str
) -> tuple[tuple[int | None, ...], str]:
    """The shape and dtype of the targets for outputs of this shape and dtype."""
    if configured.name in _INTEGER_TARGETS:
        if len(shape) < 2:
            raise UsageError(
                f"the loss {configured.name!r} needs outputs with one score per class, found the shape {shape}; "
                "choose a loss for such outputs, mean_squared_error or binary_crossentropy say"
            )
        return shape[:-1], "int64"
    return shape, dtype


def sample_targets(
    configured: Configured, rng: np.random.Generator, shape: tuple[int, ...], classes: int
) -> npt.NDArray[Any]:
    """Random targets of that shape which the loss is defined for.

    Args:
        configured: The loss.
        rng: Where the randomness comes from.
        shape: The targets' shape, batch included.
        classes: The size of the outputs' last axis.
    """
    name = configured.name
    if name in _INTEGER_TARGETS:
        return rng.integers(0, classes, shape)
    if name.startswith("binary") or name in ("dice", "tversky"):
        return rng.integers(0, 2, shape)
    if "categorical" in name and "hinge" not in name:
        one_hot: npt.NDArray[Any] = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
        return one_hot
    if "hinge" in name:
        return 2 * rng.integers(0, 2, shape) - 1
    if name in ("kl_divergence", "poisson", "mean_squared_logarithmic_error", "mean_absolute_percentage_error"):
        return rng.uniform(0.1, 1.0, shape)
    return rng.normal(size=shape)
