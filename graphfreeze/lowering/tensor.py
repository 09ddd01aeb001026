"""What lowering knows of a TensorFlow tensor: dtype, shape at several batch sizes, value if known, ONNX values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

if TYPE_CHECKING:
    from graphfreeze.lowering.tensor_list import TensorList
    from graphfreeze.training.graph import Operation

__all__ = ["Dim", "Induction", "Layout", "Tensor"]

Dim = tuple[int, ...]
"""One dimension, once per sample batch size. All equal: static. Otherwise it follows the batch."""


class Layout(Enum):
    """How the axes of an ONNX value are ordered, relative to TensorFlow's order."""

    PLAIN = "plain"
    """As TensorFlow has it."""
    CHANNELS_FIRST = "channels_first"
    """[batch, channels, *spatial], for TensorFlow's [batch, *spatial, channels]."""
    FILTER = "filter"
    """[out, in, *spatial], for TensorFlow's filters [*spatial, in, out]."""

    def permutation(self, rank: int) -> list[int]:
        """The `perm` of the Transpose from TensorFlow's order to this one."""
        match self:
            case Layout.PLAIN:
                return list(range(rank))
            case Layout.CHANNELS_FIRST:
                return [0, rank - 1, *range(1, rank - 1)]
            case Layout.FILTER:
                return [rank - 1, rank - 2, *range(rank - 2)]

    def axis(self, axis: int, rank: int) -> int:
        """Where TensorFlow's (non-negative) axis is in this layout."""
        return self.permutation(rank).index(axis)


@dataclass(frozen=True, slots=True)
class Induction:
    """An integer scalar of a loop's body that is `scale * iteration + offset`; the offset may follow sizes."""

    scale: int
    offset: Dim
    iteration: ir.Value


@dataclass(eq=False, slots=True)
class Tensor:
    """A TensorFlow tensor while its graph is lowered.

    The graph is interpreted at several sample batch sizes at once. Whatever is equal at all of them is static;
    what differs must be an affine function of the batch size, and is computed from it in the ONNX graph.

    Attributes:
        dtype: Its numpy dtype (`object` for variants).
        shapes: Its shape at each sample batch size.
        known: Its value at each sample batch size where it is known now, otherwise None.
        values: The ONNX values that hold it, by layout. Empty until something needs it.
        missing: The operations without a rule that it depends on. Such a tensor has a shape but no value.
        origin: The operation, its inputs and the number of its output that made a known tensor, for when its value must
            be computed at run time.
        induction: Set inside a loop's body where it is an affine function of the iteration.
        tensor_list: Set where it is a TensorList (a variant).
        narrow: Set where it is a broadcast of a tensor of the same rank: that tensor.
        alternatives: Of what either branch of an If keeps for its gradient: the predicate, and what each keeps.
        scaled: Set where it is an image multiplied by a number per channel: both, the channels second.
        product: Set where it is a stack of products, each of a transposed matrix and another: both stacks.
        repeated: Set where it is a constant array over and over, along new leading axes: that array.
        parts: Of complex numbers whose value is not known: the real and the imaginary parts.
    """

    dtype: np.dtype[Any]
    shapes: tuple[tuple[int, ...], ...]
    known: tuple[npt.NDArray[Any], ...] | None = None
    values: dict[Layout, ir.Value] = field(default_factory=dict)
    missing: frozenset[Operation] = frozenset()
    origin: tuple[Operation, list[Tensor], int] | None = None
    induction: Induction | None = None
    tensor_list: TensorList | None = None
    narrow: Tensor | None = None
    scaled: tuple[ir.Value, ir.Value] | None = None
    product: tuple[Tensor, Tensor] | None = None
    repeated: npt.NDArray[Any] | None = None
    parts: tuple[Tensor, Tensor] | None = None
    alternatives: tuple[ir.Value, Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shapes[0])

    def dim(self, axis: int) -> Dim:
        """One dimension at each sample batch size."""
        return tuple([shape[axis] for shape in self.shapes])

    @property
    def dims(self) -> list[Dim]:
        """All dimensions at each sample batch size."""
        return list(zip(*self.shapes, strict=True))

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape with None for what follows the batch."""
        return tuple(dim[0] if len(set(dim)) == 1 else None for dim in self.dims)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape if all of it is static, otherwise None."""
        return self.shapes[0] if all(shape == self.shapes[0] for shape in self.shapes[1:]) else None

    @property
    def constant(self) -> npt.NDArray[Any] | None:
        """The value if it is known and the same at every sample batch size, otherwise None."""
        if self.known is None:
            return None
        first = self.known[0]
        for other in self.known[1:]:
            if other is not first and (other.shape != first.shape or other.tobytes() != first.tobytes()):
                return None
        return first

    @property
    def number(self) -> Dim | None:
        """The value at each sample if it is a known whole number, otherwise None."""
        if self.known is None or self.dtype.kind != "i" or self.rank:
            return None
        return tuple(int(array) for array in self.known)

    @property
    def size(self) -> int:
        """The number of elements at the first sample batch size."""
        return int(np.prod(self.shapes[0], dtype=np.int64))
