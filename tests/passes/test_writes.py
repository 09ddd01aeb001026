"""Every operation that writes a variable, on its own: frozen elements of storage stay, all others are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import frozen

Array = npt.NDArray[Any]


def _scatter(operation: Callable[..., Any], key: str = "resource") -> Callable[[Any, Any], None]:
    def write_rows(v: Any, x: Any) -> None:
        indices = tf.constant([2, 0, 2]) if key == "resource" else tf.constant([[2, 0], [0, 1], [2, 0]])
        operation(**{key: v.handle}, indices=indices, updates=x if key == "resource" else x[:, 0])

    return write_rows


WRITES: dict[str, Callable[[Any, Any], None]] = {
    "AssignVariableOp": lambda v, x: v.assign(x * 3.0),
    "AssignAddVariableOp": lambda v, x: v.assign_add(x),
    "AssignSubVariableOp": lambda v, x: v.assign_sub(x),
    **{
        f"ResourceScatter{end}": _scatter(getattr(tf.raw_ops, f"ResourceScatter{end}"))
        for end in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Update")
    },
    **{
        f"ResourceScatterNd{end}": _scatter(getattr(tf.raw_ops, f"ResourceScatterNd{end}"), "ref")
        for end in ("Add", "Sub", "Min", "Max", "Update")
    },
}


class Written(tf.Module):
    """A variable that a function writes in one way, twice in a row, and in a loop."""

    def __init__(self, write_it: Callable[[Any, Any], None], initial: Array) -> None:
        super().__init__()
        self.v = tf.Variable(initial, name="v")
        self._write = write_it

    @tf.function(input_signature=[tf.TensorSpec([3, 2])])
    def change(self, x: Any) -> Any:
        self._write(self.v, x)
        for _ in tf.range(2):
            self._write(self.v, tf.cast(x * 2.0, self.v.dtype))
        return tf.reduce_sum(x)


MASKS = {
    "elements": np.array([[True, False], [False, True], [False, False]]),
    "rows": np.array([[False], [True], [True]]),
    "columns": np.array([[True, False]]),
    "whole": np.array([[False]]),
}


# A mask that is the same for all rows, or for all elements, takes another way where rows and elements are written.
@pytest.mark.parametrize(
    ("operation", "mask"),
    [(operation, mask) for operation in WRITES for mask in (MASKS if "Update" in operation else ["elements"])],
)
def test_each_way_to_write(tmp_path: Path, operation: str, mask: str) -> None:
    initial = np.array([[-0.0, 2.0], [np.inf, -4.0], [0.5, -0.0]], np.float32)
    tf.saved_model.save(Written(WRITES[operation], initial), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    entry = frozen(model, "v", MASKS[mask], initial, "select")
    rewritten = freeze_reads(model, FreezePlan((entry,)))
    assert {update.operation for update in rewritten.updates} == {operation}
    write(rewritten, tmp_path / "out")
    original, masked = tf.saved_model.load(str(tmp_path / "in")), tf.saved_model.load(str(tmp_path / "out"))
    x = tf.constant([[1.0, -2.5], [3.0, 4.0], [-7.0, 0.25]])
    for loaded in (original, masked):
        loaded.change(x)
        loaded.change(x)
    expected = np.where(entry.full_mask, original.v.numpy(), initial)
    assert masked.v.numpy().tobytes() == expected.tobytes()
    if mask == "whole" and operation != "ResourceScatterMax":
        assert original.v.numpy().tobytes() != initial.tobytes()


def test_what_is_written_may_depend_on_what_is_read(tmp_path: Path) -> None:
    """Another value is frozen than what is stored: reads yield it, and storage keeps what it held."""

    class Decaying(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = tf.Variable([1.0, 2.0, 3.0], name="v")

        @tf.function(input_signature=[])
        def decay(self) -> Any:
            self.v.assign(self.v * 0.5)
            self.v.assign(self.v + 1.0)
            return self.v.read_value()

    tf.saved_model.save(Decaying(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = FreezePlan((frozen(model, "v", np.array([True, False, True]), np.full(3, 8.0, np.float32), "blend"),))
    write(freeze_reads(model, plan), tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert loaded.decay().numpy().tolist() == [1.5, 8.0, 2.5]
    assert loaded.v.numpy().tolist() == [1.5, 2.0, 2.5]


def test_integers_are_written(tmp_path: Path) -> None:
    class Counting(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = tf.Variable([1, 2, 3], name="v")

        @tf.function(input_signature=[])
        def count(self) -> Any:
            self.v.assign_add([1, 1, 1])
            self.v.scatter_nd_sub([[0], [1]], [5, 5])
            return self.v.read_value()

    tf.saved_model.save(Counting(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = FreezePlan((frozen(model, "v", np.array([True, False, True]), np.array([0, 2, 0], np.int32), "select"),))
    write(freeze_reads(model, plan), tmp_path / "out")
    assert tf.saved_model.load(str(tmp_path / "out")).count().numpy().tolist() == [-3, 2, 4]
