"""One step of the optimizer, traced: what it makes of gradients, with every frozen element held where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.training.arguments import Configured
from graphfreeze.training.optimizers import OptimizerVariable, build_optimizer

__all__ = ["Target", "Update", "trace_update"]


@dataclass(frozen=True)
class Target:
    """A variable that the optimizer updates.

    Attributes:
        name: Its name in the artifact.
        variable: The `tf.Variable`.
        mask: Which elements train, broadcastable to the variable; None where all do.
    """

    name: str
    variable: Any
    mask: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class Update:
    """The traced update.

    Attributes:
        function: The `ConcreteFunction`: takes a gradient for each target, in their order.
        variables: The optimizer's variables.
    """

    function: Any
    variables: tuple[OptimizerVariable, ...]


def trace_update(optimizer: Configured, targets: Sequence[Target]) -> Update:
    """Make the optimizer and trace one step of it.

    Raises:
        UsageError: The optimizer's arguments do not fit.
    """
    made, variables = build_optimizer(optimizer, [(target.name, target.variable) for target in targets])

    def apply_gradients(*gradients: Any) -> list[Any]:
        """After the step every frozen element is written back: its storage keeps its bits too.

        The bits come from before the step, where the state holds the frozen values: no constant is needed for them.
        """
        masked = [target for target in targets if target.mask is not None]
        before = [target.variable.read_value() for target in masked]
        made.apply(list(gradients))
        for target, value in zip(masked, before, strict=True):
            target.variable.assign(tf.where(tf.constant(target.mask), target.variable, value))
        return []

    specs = [
        tf.TensorSpec(target.variable.shape, target.variable.dtype, name=f"gradient_{index}")
        for index, target in enumerate(targets)
    ]
    traced = tf.function(apply_gradients, autograph=False).get_concrete_function(*specs)
    return Update(traced, tuple(variables))
