"""What the graphs call gradients: `gradient/NAME`, or `gradient/NAME:rows` and `gradient/NAME:indices`."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["gradient_names", "indices_name", "rows_name", "rows_of"]

_ROWS, _INDICES = ":rows", ":indices"


def rows_name(name: str) -> str:
    """What the rows of a parameter's gradient are called."""
    return f"gradient/{name}{_ROWS}"


def indices_name(name: str) -> str:
    """What says which row of the parameter each of them is of."""
    return f"gradient/{name}{_INDICES}"


def gradient_names(name: str, by_rows: Collection[str]) -> list[str]:
    """What the optimizer takes as the gradient of a parameter."""
    return [rows_name(name), indices_name(name)] if name in by_rows else [f"gradient/{name}"]


def rows_of(label: str) -> str | None:
    """The parameter of whose gradient an input or output is the rows or their indices; None for any other."""
    found = next((suffix for suffix in (_ROWS, _INDICES) if label.endswith(suffix)), None)
    return label.removeprefix("gradient/").removesuffix(found) if found and label.startswith("gradient/") else None
