"""Operations with strides over what follows the length of sequences: which size they leave of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphfreeze.lowering.attributes import to_python
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.sizes import Sizes
from graphfreeze.lowering.tensor import Tensor

if TYPE_CHECKING:
    from graphfreeze.training.graph import Operation

__all__ = ["note_strided_sizes"]

_CONVOLUTIONS = frozenset({"Conv2D", "Conv3D", "DepthwiseConv2dNative"})
_POOLINGS = frozenset({"AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D"})


def note_strided_sizes(sizes: Sizes, operation: Operation, inputs: Sequence[Tensor]) -> None:
    """Start again where an operation makes a size of the length of sequences that is not known yet.

    Raises:
        NewQuotient: Which one.
        CannotLower: It is none that could be computed.
    """
    if operation.type == "Range":
        _note_range(sizes, inputs)
    if operation.type not in _CONVOLUTIONS | _POOLINGS:
        return
    strides = to_python(operation.attributes["strides"])
    for axis, (dim, stride) in enumerate(zip(inputs[0].dims, strides, strict=True)):
        if stride == 1 or len(set(dim)) == 1:
            continue
        if sizes.divided(dim, _beyond(operation, inputs, axis, stride), stride, is_filled=True) is None:
            raise CannotLower(
                f"a stride of {stride} over an axis that follows {sizes.origin(dim)} in a way for which there is no "
                "formula (it is three times the length, say, or the batch); export the model with its size fixed"
            )


def _note_range(sizes: Sizes, inputs: Sequence[Tensor]) -> None:
    start, limit, step = (tensor.number for tensor in inputs)
    if start is not None and limit is not None and step is not None and len(set(step)) == 1 and abs(step[0]) > 1:
        passed = tuple((to - since) * (1 if step[0] > 0 else -1) for since, to in zip(start, limit, strict=True))
        if len(set(passed)) > 1:
            sizes.divided(passed, abs(step[0]) - 1, abs(step[0]))


def _beyond(operation: Operation, inputs: Sequence[Tensor], axis: int, stride: int) -> int:
    """How many elements more an axis would have with as many windows, side by side without anything around."""
    attributes = {name: to_python(value) for name, value in operation.attributes.items() if name in _ATTRIBUTES}
    if attributes["padding"] == "SAME":
        return stride - 1
    dilations = attributes.get("dilations") or [1] * inputs[0].rank
    extent = (_taps(operation, inputs, axis, attributes) - 1) * int(dilations[axis]) + 1
    given = attributes["explicit_paddings"][2 * axis : 2 * axis + 2] if attributes["padding"] == "EXPLICIT" else []
    return int(stride - extent + sum(given))


_ATTRIBUTES = frozenset({"data_format", "dilations", "explicit_paddings", "ksize", "padding"})


def _taps(operation: Operation, inputs: Sequence[Tensor], axis: int, attributes: dict[str, Any]) -> int:
    if operation.type in _POOLINGS:
        return int(attributes["ksize"][axis])
    size = inputs[1].shape[axis - (2 if attributes.get("data_format", "NHWC").startswith("NC") else 1)]
    if size is None:
        raise CannotLower("the size of its filter and of the axis are both known only at run time; one may be")
    return size
