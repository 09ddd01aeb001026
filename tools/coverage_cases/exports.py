"""The SavedModels of cases, in a directory of their own; models that cases share are exported once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import keras

from graphfreeze.training.keras_endpoints import write_endpoints
from tools.coverage_cases.case import Case

__all__ = ["SEED", "Exports"]

SEED = 0


@dataclass
class Exports:
    """Exports models as they are needed.

    Attributes:
        directory: Where the files go.
    """

    directory: Path
    _exported: dict[Callable[[], Any], Path] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Self]:
        """A directory that is removed at the end."""
        with tempfile.TemporaryDirectory() as directory:
            yield cls(Path(directory))

    def export(self, case: Case) -> Path:
        """The SavedModel of a case."""
        if case.make not in self._exported:
            keras.utils.set_random_seed(SEED)
            directory = Path(tempfile.mkdtemp(dir=self.directory))
            save = case.save or write_endpoints
            save(case.make(), directory)
            self._exported[case.make] = directory
        return self._exported[case.make]
