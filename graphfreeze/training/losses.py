"""The losses of Keras, by name, and the targets that each one takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured, construct, parse_configured, snake_case

__all__ = ["LOSSES", "OutputLoss", "make_loss", "parse_loss", "parse_losses", "sample_targets", "target_spec"]

_NOT_OFFERED = {"Loss"}  # the base class

_ALIASES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
}
_INTEGER_TARGETS = frozenset({"sparse_categorical_crossentropy", "categorical_generalized_cross_entropy", "circle"})


_SPELT = {"KLDivergence": "kl_divergence", "CTC": "ctc"}

_LABELS = "labels"
"""The argument of `ctc` that Keras does not have: how many labels a target has, zeros at the end included."""


def _classes() -> dict[str, str]:
    found = {}
    for name in dir(keras.losses):
        item = getattr(keras.losses, name)
        if isinstance(item, type) and issubclass(item, keras.losses.Loss) and name not in _NOT_OFFERED:
            found[_SPELT.get(name, snake_case(name))] = name
    return found


LOSSES: dict[str, str] = _classes()
"""Every loss of keras.losses that is offered: its name in snake case, and its class."""


@dataclass(frozen=True)
class OutputLoss:
    """The loss of one output.

    Attributes:
        output: The output's name, or None for the only output of the endpoint.
        loss: The Keras loss.
        weight: Its factor in the sum of all losses.
    """

    output: str | None
    loss: Configured
    weight: float = 1.0


def parse_loss(text: str) -> OutputLoss:
    """Parse `[OUTPUT=]NAME[:key=value,...][:weight=W]`, aliases like `mse` included.

    Raises:
        UsageError: The name is unknown, an argument has no `=`, or the weight is not a finite number.
    """
    head, colon, rest = text.partition(":")
    output, equals, name = head.rpartition("=")
    if equals and not output:
        raise UsageError(f"in {text!r}: expected the name of an output before the '='")
    # The weight is one more key=value to the parser, after a colon that keeps it apart for the reader.
    configured = parse_configured(_ALIASES.get(name, name) + colon + rest.replace(":", ","), "loss", LOSSES)
    arguments = dict(configured.arguments)
    weight = arguments.pop("weight", 1.0)
    if isinstance(weight, bool | str) or not math.isfinite(weight):
        raise UsageError(f"in {text!r}: the weight is {weight!r}, expected a number")
    return OutputLoss(output if equals else None, Configured(configured.name, arguments), float(weight))


def parse_losses(texts: str | Sequence[str]) -> list[OutputLoss]:
    """Parse one loss, or the losses of several outputs."""
    return [parse_loss(text) for text in ([texts] if isinstance(texts, str) else texts)]


def make_loss(configured: Configured) -> Any:
    """The Keras loss.

    Raises:
        UsageError: Keras refuses its arguments, or it gives no single number.
    """
    if configured.name == "ctc":
        arguments = {key: value for key, value in configured.arguments.items() if key != _LABELS}
        configured = Configured(configured.name, arguments)
    loss = construct(getattr(keras.losses, LOSSES[configured.name]), configured, "loss")
    if loss.reduction in (None, "none"):
        raise UsageError(
            f"the loss {configured.name!r} with reduction=none gives a number for each example, and a step minimises "
            "one: choose sum_over_batch_size, sum, mean or mean_with_sample_weight"
        )
    return loss


def target_spec(
    configured: Configured, shape: tuple[int | None, ...], dtype: str
) -> tuple[tuple[int | None, ...], str]:
    """The shape and dtype of the targets for outputs of this shape and dtype."""
    if configured.name == "ctc":
        return (shape[0], _label_count(configured, shape)), "int32"
    if configured.name in _INTEGER_TARGETS:
        if len(shape) < 2:
            raise UsageError(
                f"the loss {configured.name!r} needs outputs with one score per class, found the shape {shape}; "
                "choose a loss for such outputs, mean_squared_error or binary_crossentropy say"
            )
        return shape[:-1], "int64"
    return shape, dtype


def _label_count(configured: Configured, shape: tuple[int | None, ...]) -> int:
    if len(shape) != 3:
        raise UsageError(
            f"the loss 'ctc' needs outputs with scores of each class at each time step, found the shape {shape}"
        )
    count = configured.arguments.get(_LABELS, shape[1])
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(
            f"the loss 'ctc' needs to know how many labels its targets have at most: ctc:labels=20, say; found {count}"
        )
    return count


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
    if name == "ctc":
        # Half as many labels as there is room for, so that there is a path through them; 0 is the blank.
        labels = rng.integers(1, max(classes, 2), shape)
        return np.where(np.arange(shape[1]) < max(1, shape[1] // 2 - 1), labels, 0)
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
