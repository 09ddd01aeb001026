"""The optimizers of Keras, by name, and what is known of them."""

from __future__ import annotations

import re

import keras

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured, parse_configured, snake_case

__all__ = [
    "ELEMENTWISE",
    "LEARNING_RATE",
    "NO_DECAY",
    "OPTIMIZERS",
    "STARTS_APART",
    "has_no_decay",
    "parse_optimizer",
]

LEARNING_RATE = "learning_rate"
"""What Keras calls it, and the name of the hyperparameter in the artifact."""

NO_DECAY = "exclude_from_weight_decay"
"""An argument that Keras has as a method."""

_NOT_OFFERED = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
"""The base class, and wrappers of other optimizers: that which scales the loss is an argument, `loss_scale=dynamic`,
and that of several is made where several are given."""


def _classes() -> dict[str, str]:
    found = {}
    for name in dir(keras.optimizers):
        item = getattr(keras.optimizers, name)
        if isinstance(item, type) and issubclass(item, keras.optimizers.Optimizer) and name not in _NOT_OFFERED:
            found[snake_case(name.replace("AdamW", "Adamw"))] = name
    return found


OPTIMIZERS: dict[str, str] = _classes()
"""Every optimizer of keras.optimizers that is offered: its name in snake case, and its class."""

ELEMENTWISE = frozenset(
    {
        "adadelta",
        "adagrad",
        "adam",
        "adamax",
        "adamw",
        "ftrl",
        "lion",
        "nadam",
        "rmsprop",
        "schedule_free_adamw",
        "sgd",
    }
)
"""Those whose new value and state of an element depend on that element alone, or on norms of gradients besides, in
which zeros do not count: elements that never train can be left out."""


STARTS_APART = ELEMENTWISE - {"schedule_free_adamw"}
"""Those of which no state starts at the values of the parameters."""


def parse_optimizer(text: str) -> Configured:
    """Parse `NAME[:key=value,...]`."""
    return parse_configured(text, "optimizer", OPTIMIZERS)


def has_no_decay(configured: Configured, name: str) -> bool:
    """Whether `exclude_from_weight_decay` keeps weight decay away from a parameter: by its own name, as in Keras.

    Raises:
        UsageError: It is no regular expression.
    """
    pattern = configured.arguments.get(NO_DECAY)
    if pattern is None:
        return False
    try:
        return re.search(str(pattern), name.rpartition("/")[2]) is not None
    except re.error as error:
        raise UsageError(
            f"{NO_DECAY}={pattern} is no regular expression: {error}. It is searched for in the names of parameters "
            "without their layers: bias|gamma|beta say"
        ) from error
