"""Arrays that are a constant one over and over, once for each example, and where such a mask holds.

`tf.repeat` broadcasts how often each element is repeated over the batch before it makes a mask of that. Where the mask
holds is then as good as constant: the same places in each round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.lowering.eager import execute_operation
from graphfreeze.lowering.tensor import Dim, Layout, Tensor
from graphfreeze.training.graph import Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["lower_repeated", "note_repeated"]


def note_repeated(operation: Operation, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Note of the output of some operations what it is a repetition of."""
    if operation.type not in _ROUNDS or any(tensor.missing or tensor.constant is not None for tensor in outputs):
        return
    (output,) = outputs
    found = _ROUNDS[operation.type](operation, inputs)
    if found is None:
        return
    if operation.type == "Reshape":
        found = found.reshape(-1)
        fits = output.rank == 1 and found.size > 0
    else:
        fits = all(shape[output.rank - found.ndim :] == found.shape for shape in output.shapes)
    if fits:
        output.repeated = found


def lower_repeated(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The largest number of an array that repeats another, and where a mask does not vanish; otherwise None."""
    found = inputs[0].repeated if inputs else None
    if found is None or not found.size:
        return None
    if operation.type == "Max":
        axes = inputs[1].constant
        is_whole = axes is not None and len({int(axis) % inputs[0].rank for axis in axes.flat}) == inputs[0].rank
        return [lowering.constant(found.max())] if is_whole and not operation.attributes["keep_dims"].b else None
    return _places(lowering, found, inputs[0].dim(0)) if operation.type == "Where" and inputs[0].rank == 1 else None


def _places(lowering: Lowering, mask: npt.NDArray[Any], size: Dim) -> list[Tensor]:
    """The places in one round, moved by where each round starts."""
    emit, places = lowering.builder.emit, np.flatnonzero(mask)
    end = emit("Reshape", lowering.shape([size]), lowering.builder.int64([]))
    starts = emit("Range", np.int64(0), end, np.int64(mask.size))
    moved = emit("Add", emit("Unsqueeze", starts, lowering.builder.int64([1])), places[None])
    rows = tuple(total // mask.size * places.size for total in size)
    return [lowering.tensor(emit("Reshape", moved, lowering.builder.int64([-1, 1])), np.int64, [rows, 1], Layout.PLAIN)]


def _elementwise(operation: Operation, inputs: Sequence[Tensor]) -> npt.NDArray[Any] | None:
    rounds = [tensor.constant if tensor.repeated is None else tensor.repeated for tensor in inputs]
    arrays = [tf.constant(array) for array in rounds if array is not None]
    if len(arrays) < len(inputs) or all(tensor.repeated is None for tensor in inputs):
        return None
    found: npt.NDArray[Any] = execute_operation(operation, arrays)[0].numpy()
    return found


def _with_a_last_axis(operation: Operation, inputs: Sequence[Tensor]) -> npt.NDArray[Any] | None:
    found, axis = inputs[0].repeated, inputs[1].constant
    is_last = axis is not None and int(axis.item()) in (-1, inputs[0].rank)
    return found[..., None] if found is not None and is_last else None


_ROUNDS: dict[str, Callable[[Operation, Sequence[Tensor]], npt.NDArray[Any] | None]] = {
    "BroadcastTo": lambda operation, inputs: inputs[0].constant,
    "Cast": _elementwise,
    "ExpandDims": _with_a_last_axis,
    "Less": _elementwise,
    "Reshape": lambda operation, inputs: inputs[0].repeated,
}
"""What the output of an operation repeats, if all of its last axes are as long as that has them."""
