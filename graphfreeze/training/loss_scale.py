"""Scaling of the loss, so that float16 gradients do not vanish: `loss_scale=dynamic`, or `loss_scale_factor=1024`.

What leaves the graph `gradients` is scaled back: the gradients of the loss itself, as without scaling. The optimizer
takes these, and what only it knows, that a gradient is not finite and the step is left out, it sees in them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured, construct

__all__ = ["LossScale", "scales_loss", "with_loss_scale"]

_DYNAMIC, _FIXED, _PREFIX = "loss_scale", "loss_scale_factor", "loss_scale."
_SCALE = "dynamic_scale"


@dataclass(frozen=True, eq=False)
class LossScale:
    """By what the loss is multiplied.

    Attributes:
        factor: A number, or the `tf.Variable` of a factor that adapts.
        arguments: For `keras.optimizers.LossScaleOptimizer`, where it adapts.
    """

    factor: Any
    arguments: dict[str, Any]

    name = f"{_DYNAMIC}/{_SCALE}"
    """What the artifact calls the factor that adapts."""

    @property
    def is_dynamic(self) -> bool:
        """Whether the factor adapts."""
        return isinstance(self.factor, tf.Variable)

    def of_loss(self, loss: Any) -> Any:
        """The gradient that a tape starts with."""
        return tf.ones_like(loss) * tf.cast(self.factor, loss.dtype)

    def unscaled(self, gradient: Any) -> Any:
        """The gradient of the loss itself, a tensor or rows of one."""
        return keras.ops.divide(gradient, tf.cast(self.factor, gradient.dtype))

    def around(self, optimizer: Any) -> Any:
        """The optimizer that leaves out steps whose gradients are not finite, and adapts the factor."""
        if not self.is_dynamic:
            return optimizer
        made = construct(
            lambda **arguments: _OfUnscaledGradients(optimizer, name=_DYNAMIC, **arguments),
            Configured("loss_scale_optimizer", self.arguments),
            "optimizer",
        )
        made.factor = self.factor
        return made


class _OfUnscaledGradients(keras.optimizers.LossScaleOptimizer):  # type: ignore[misc]  # Keras has no types
    """A LossScaleOptimizer that takes gradients of the loss itself, and a factor that is there before it is built.

    To scale by a power of two and back changes no bit.
    """

    factor: Any

    def add_variable(self, shape: Any, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """As in Keras, but for the factor."""
        if name != _SCALE:
            return super().add_variable(shape, *args, name=name, **kwargs)
        made = keras.Variable(self.factor, dtype="float32", name=name, trainable=False)
        self._track_variable(made)
        return made

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """One step."""
        scaled = [keras.ops.multiply(gradient, tf.cast(self.factor, gradient.dtype)) for gradient in grads]
        super().apply(scaled, trainable_variables)


def scales_loss(configured: Configured) -> list[str]:
    """The arguments of an optimizer that say how the loss is scaled."""
    return [key for key in configured.arguments if key in (_DYNAMIC, _FIXED) or key.startswith(_PREFIX)]


def with_loss_scale(configured: Configured) -> Configured:
    """The optimizer's arguments with the scaling that they describe, if any, as a `LossScale` in `loss_scale`.

    Raises:
        UsageError: The arguments do not fit.
    """
    if isinstance(configured.arguments.get(_DYNAMIC), LossScale):
        return configured
    own = {key: value for key, value in configured.arguments.items() if not key.startswith(_PREFIX)}
    dotted = {
        key.removeprefix(_PREFIX): value for key, value in configured.arguments.items() if key.startswith(_PREFIX)
    }
    kind, factor = own.pop(_DYNAMIC, None), own.pop(_FIXED, None)
    if kind is None and factor is None and not dotted:
        return configured
    if kind not in (None, "dynamic") or (kind is None and dotted) or (kind is not None and factor is not None):
        raise UsageError(
            f"the optimizer {configured.name!r} has {dict(configured.arguments)}: expected loss_scale=dynamic, with "
            "loss_scale.initial_scale and loss_scale.dynamic_growth_steps if need be, or a fixed loss_scale_factor"
        )
    number = factor if kind is None else dotted.get("initial_scale", 2.0**15)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
        raise UsageError(f"the loss of the optimizer {configured.name!r} is scaled by {number}: expected a number > 0")
    scale = tf.Variable(float(number), dtype=tf.float32, name=_SCALE) if kind else float(number)
    return Configured(configured.name, {**own, _DYNAMIC: LossScale(scale, dotted)})
