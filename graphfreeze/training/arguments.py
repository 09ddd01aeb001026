"""`NAME:key=value,...`, the way losses and optimizers are written on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphfreeze.errors import UsageError

__all__ = ["Argument", "Configured", "construct", "number_or_text", "parse_configured", "snake_case"]

Argument = bool | int | float | str


@dataclass(frozen=True)
class Configured:
    """A name with keyword arguments.

    Attributes:
        name: In snake case, as the table of choices has it.
        arguments: Keyword arguments for its constructor.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def parse_configured(text: str, what: str, choices: Mapping[str, str]) -> Configured:
    """Parse `NAME[:key=value,...]`.

    Args:
        text: What the user wrote. The name may be in snake case or the class's name.
        what: "loss" or "optimizer", for messages.
        choices: The known names in snake case, and the classes they stand for.

    Raises:
        UsageError: The name is unknown or an argument has no `=`.
    """
    name, _, rest = text.partition(":")
    known = {**{key: key for key in choices}, **{value: key for key, value in choices.items()}}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise UsageError(f"unknown {what} {name!r}{hint}. Choices: {', '.join(sorted(choices))}")
    arguments: dict[str, Argument] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise UsageError(f"in {text!r}: expected key=value, found {item!r}")
        if key in arguments:
            raise UsageError(f"in {text!r}: {key!r} is given twice; give it once")
        arguments[key] = number_or_text(value)
    return Configured(known[name], arguments)


def construct(make: Callable[..., Any], configured: Configured, what: str) -> Any:
    """Call a Keras class with the arguments.

    Raises:
        UsageError: Keras refuses them.
    """
    try:
        return make(**configured.arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the {what} {configured.name!r} does not take {dict(configured.arguments)}: {error}"
        ) from error


def snake_case(name: str) -> str:
    """`BinaryCrossentropy` as `binary_crossentropy`, `RMSprop` as `rmsprop`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def number_or_text(text: str) -> Argument:
    """`true` and `false`, numbers, and what is none of these as it is."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
