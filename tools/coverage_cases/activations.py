"""Every activation of keras.activations, by name."""

from __future__ import annotations

from typing import Any

import keras

from tools.coverage_cases.case import Case, after_dense

__all__ = ["activation_cases", "activation_names"]

_NOT_ACTIVATIONS = {"deserialize", "get", "serialize"}
_ARGUMENTS = {"threshold": {"threshold": 0.2, "default_value": -0.1}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "celu": {"alpha": 0.5},
    "elu": {"alpha": 0.5},
    "gelu": {"approximate": True},
    "glu": {"axis": 1},
    "hard_shrink": {"threshold": 0.2},
    "leaky_relu": {"negative_slope": 0.4},
    "log_softmax": {"axis": 1},
    "relu": {"negative_slope": 0.1, "max_value": 1.5, "threshold": 0.2},
    "soft_shrink": {"threshold": 0.2},
    "softmax": {"axis": 1},
    "squareplus": {"b": 2},
}


def activation_names() -> list[str]:
    """The public functions of keras.activations."""
    names = [name for name in dir(keras.activations) if not name.startswith("_") and name not in _NOT_ACTIVATIONS]
    return [name for name in names if callable(getattr(keras.activations, name))]


def activation_cases() -> list[Case]:
    """Each one between a Dense and the loss."""

    def apply(name: str, arguments: dict[str, Any]) -> Case:
        function = getattr(keras.activations, name)
        layer = lambda h: keras.layers.Activation(lambda x: function(x, **arguments))(h)  # noqa: E731 - in place
        if arguments is _OPTIONS.get(name):
            options = ", ".join(f"{key}={value}" for key, value in arguments.items())
            return Case("activations", f"{name} {options}", after_dense((4, 6), layer))
        return Case("activations", name, after_dense((6,), layer), tracks=name)

    cases = [apply(name, _ARGUMENTS.get(name, {})) for name in activation_names()]
    return [*cases, *(apply(name, arguments) for name, arguments in _OPTIONS.items())]
