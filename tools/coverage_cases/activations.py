"""Every activation of keras.activations, by name."""

from __future__ import annotations

import keras

from tools.coverage_cases.case import Case, after_dense

__all__ = ["activation_cases", "activation_names"]

_NOT_ACTIVATIONS = {"deserialize", "get", "serialize"}
_ARGUMENTS = {"threshold": {"threshold": 0.2, "default_value": -0.1}}


def activation_names() -> list[str]:
    """The public functions of keras.activations."""
    names = [name for name in dir(keras.activations) if not name.startswith("_") and name not in _NOT_ACTIVATIONS]
    return [name for name in names if callable(getattr(keras.activations, name))]


def activation_cases() -> list[Case]:
    """Each one between a Dense and the loss."""

    def apply(name: str) -> Case:
        function, arguments = getattr(keras.activations, name), _ARGUMENTS.get(name, {})
        layer = lambda h: keras.layers.Activation(lambda x: function(x, **arguments))(h)  # noqa: E731 - in place
        return Case("activations", name, after_dense((6,), layer), tracks=name)

    return [apply(name) for name in activation_names()]
