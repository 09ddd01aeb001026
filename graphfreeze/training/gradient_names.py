"""What the graphs call gradients: `gradient/NAME`, or `gradient_rows/NAME` and `gradient_indices/NAME`."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["gradient_names", "indices_name", "rows_name", "rows_of"]

_ROWS, _INDICES = "gradient_rows/", "gradient_indices/"


def rows_name(name: str) -> str:
    """What the rows of a parameter's gradient are called."""
    return _ROWS + name


def indices_name(name: str) -> str:
    """What says which row of the parameter each of them is of."""
    return _INDICES + name


def gradient_names(name: str, by_rows: Collection[str]) -> list[str]:
    """What the optimizer takes as the gradient of a parameter."""
    return [rows_name(name), indices_name(name)] if name in by_rows else [f"gradient/{name}"]


def rows_of(label: str) -> str | None:
    """The parameter of whose gradient an input or output is the rows or their indices; None for any other."""
    found = next((prefix for prefix in (_ROWS, _INDICES) if label.startswith(prefix)), None)
    return None if found is None else label.removeprefix(found)
