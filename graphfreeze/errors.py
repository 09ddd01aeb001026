"""Every error that graphfreeze raises on purpose, with the exit code that the command line turns it into.

```
GraphfreezeError
├── CheckFailedError            1  a check ran and found a difference
│   ├── VerificationError          the rewritten SavedModel is not what the plan says
│   └── ValidationError            gradients, losses or frozen elements disagree; a demanded device is absent
├── UsageError                  2  the request is wrong: options, selectors, specification, data
│   ├── SelectorError
│   ├── SpecError
│   └── DataError
├── UnsupportedError            3  the model holds something that is not supported yet
│   ├── UnsupportedOperationError  operations without a lowering rule, all of them at once
│   ├── UnsupportedVariableUseError
│   └── UnsupportedDtypeError
└── FileError                   4  something cannot be read, or cannot be written
    ├── ModelReadError
    ├── ArtifactReadError
    └── OutputError
```

A message says what was expected, what was found, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "ArtifactReadError",
    "CheckFailedError",
    "DataError",
    "FileError",
    "GraphfreezeError",
    "ModelReadError",
    "OutputError",
    "SelectorError",
    "SpecError",
    "UnsupportedDtypeError",
    "UnsupportedError",
    "UnsupportedOperationError",
    "UnsupportedVariableUseError",
    "UsageError",
    "ValidationError",
    "VerificationError",
]


class GraphfreezeError(Exception):
    """The base of all errors of graphfreeze. `exit_code` is what the command line exits with.

    Args:
        message: What was expected, what was found, and what to do.
        details: JSON-serialisable facts for pipelines, printed by `--json`; a failed check puts its report here.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class CheckFailedError(GraphfreezeError):
    """A check ran to its end and found a difference."""

    exit_code = 1


class VerificationError(CheckFailedError):
    """The rewritten SavedModel does not do what the freeze plan says, or differs elsewhere from the original."""


class ValidationError(CheckFailedError):
    """The artifact's numbers differ from the reference, or the demanded device did not run it."""


class UsageError(GraphfreezeError):
    """The request itself is wrong: an option, a name, a combination."""

    exit_code = 2


class SelectorError(UsageError):
    """A selector does not parse, matches nothing, or does not fit its variable."""


class SpecError(UsageError):
    """A specification file is not valid."""


class DataError(UsageError):
    """A data file lacks a key, has one too many, or holds an array of the wrong shape or dtype."""


class UnsupportedError(GraphfreezeError):
    """The model holds something that graphfreeze does not support yet."""

    exit_code = 3


class UnsupportedOperationError(UnsupportedError):
    """TensorFlow operations of the training step have no lowering rule."""


class UnsupportedVariableUseError(UnsupportedError):
    """A targeted variable reaches an operation that is not known to be safe."""


class UnsupportedDtypeError(UnsupportedError):
    """A targeted variable, or a tensor of the training step, has a dtype that is not supported."""


class FileError(GraphfreezeError):
    """Something on disk cannot be read or written."""

    exit_code = 4


class ModelReadError(FileError):
    """The MODEL is missing, corrupt, or not a SavedModel."""


class ArtifactReadError(FileError):
    """The OUT directory of a rewrite is missing, incomplete or corrupt."""


class OutputError(FileError):
    """The output cannot be written."""
