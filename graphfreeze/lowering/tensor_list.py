"""What lowering knows of a TensorList, the variant that TensorFlow's loops collect their results in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TensorList"]


@dataclass(eq=False, slots=True)
class TensorList:
    """A TensorList."""
