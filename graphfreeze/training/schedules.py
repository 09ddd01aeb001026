"""Learning rate schedules in an optimizer's arguments: `learning_rate=cosine_decay,learning_rate.decay_steps=100`."""

from __future__ import annotations

import difflib
from typing import Any

import keras

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Argument, Configured, construct, number_or_text, snake_case

__all__ = ["SCHEDULES", "with_schedule"]

_PREFIX = "learning_rate."


def _classes() -> dict[str, str]:
    base = keras.optimizers.schedules.LearningRateSchedule
    found = {}
    for name in dir(keras.optimizers.schedules):
        item = getattr(keras.optimizers.schedules, name)
        if isinstance(item, type) and issubclass(item, base) and item is not base:
            found[snake_case(name)] = name
    return found


SCHEDULES: dict[str, str] = _classes()
"""Every schedule of keras.optimizers.schedules: its name in snake case, and its class."""


def with_schedule(configured: Configured) -> Configured:
    """The optimizer's arguments with the schedule that they describe, if any, as a Keras object.

    Several numbers are written `100/200`.

    Raises:
        UsageError: There is no such schedule, or its arguments do not fit.
    """
    own = {key: value for key, value in configured.arguments.items() if "." not in key}
    dotted = {key: value for key, value in configured.arguments.items() if "." in key}
    odd = [key for key in dotted if not key.startswith(_PREFIX)]
    if odd:
        raise UsageError(f"the optimizer {configured.name!r} has no argument {odd[0]!r}")
    rate = own.get("learning_rate")
    if not isinstance(rate, str):
        if dotted:
            raise UsageError(
                f"{next(iter(dotted))!r} is an argument of a schedule: say which one, learning_rate=cosine_decay say. "
                f"Choices: {', '.join(SCHEDULES)}"
            )
        return configured
    known = {**{key: key for key in SCHEDULES}, **{value: key for key, value in SCHEDULES.items()}}
    if rate not in known:
        near = difflib.get_close_matches(rate, known, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise UsageError(
            f"the learning rate {rate!r} is neither a number nor a schedule{hint}. Choices: {', '.join(SCHEDULES)}"
        )
    arguments = {key.removeprefix(_PREFIX): _numbers(value) for key, value in dotted.items()}
    # One boundary is a list, too, which the text cannot tell.
    arguments |= {key: [arguments[key]] for key in ("boundaries",) if isinstance(arguments.get(key), int | float)}
    make = getattr(keras.optimizers.schedules, SCHEDULES[known[rate]])
    schedule = construct(make, Configured(known[rate], arguments), "learning rate schedule")
    return Configured(configured.name, {**own, "learning_rate": schedule})


def _numbers(value: Argument) -> Any:
    return [number_or_text(part) for part in value.split("/")] if isinstance(value, str) and "/" in value else value
