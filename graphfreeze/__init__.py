"""Freeze chosen elements of chosen weights in an exported Keras model, and train the rest anywhere onnxruntime runs.

Importing this package is cheap: TensorFlow and onnxruntime load when a function that needs them is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphfreeze.errors import (
    ArtifactReadError,
    CheckFailedError,
    DataError,
    FileError,
    GraphfreezeError,
    ModelReadError,
    OutputError,
    SelectorError,
    SpecError,
    UnsupportedDtypeError,
    UnsupportedError,
    UnsupportedOperationError,
    UnsupportedVariableUseError,
    UsageError,
    ValidationError,
    VerificationError,
)

if TYPE_CHECKING:
    from graphfreeze.folding import fold
    from graphfreeze.keras_export import export
    from graphfreeze.pipeline import inspect, rewrite, validate, verify
    from graphfreeze.runtime import Trainer, train
    from graphfreeze.selection import Selection

__version__ = "0.1.0"

__all__ = [
    "ArtifactReadError",
    "CheckFailedError",
    "DataError",
    "FileError",
    "GraphfreezeError",
    "ModelReadError",
    "OutputError",
    "Selection",
    "SelectorError",
    "SpecError",
    "Trainer",
    "UnsupportedDtypeError",
    "UnsupportedError",
    "UnsupportedOperationError",
    "UnsupportedVariableUseError",
    "UsageError",
    "ValidationError",
    "VerificationError",
    "__version__",
    "export",
    "fold",
    "inspect",
    "rewrite",
    "train",
    "validate",
    "verify",
]

_HOMES = {
    "Selection": "graphfreeze.selection",
    "Trainer": "graphfreeze.runtime",
    "export": "graphfreeze.keras_export",
    "fold": "graphfreeze.folding",
    "inspect": "graphfreeze.pipeline",
    "rewrite": "graphfreeze.pipeline",
    "train": "graphfreeze.runtime",
    "validate": "graphfreeze.pipeline",
    "verify": "graphfreeze.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
