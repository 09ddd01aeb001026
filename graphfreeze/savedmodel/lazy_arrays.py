"""Arrays by name that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

__all__ = ["LazyArrays"]


@dataclass(frozen=True)
class LazyArrays(Mapping[str, npt.NDArray[Any]]):
    """Arrays by name, each read whenever it is asked for, and not kept.

    Attributes:
        readers: Name -> what reads it.
    """

    readers: Mapping[str, Callable[[], npt.NDArray[Any]]]

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)
