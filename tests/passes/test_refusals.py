"""What the freeze pass refuses, by name, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedError, UnsupportedVariableUseError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel

from .harness import call_all, make_plan, merge
from .models import MODELS, Sample

Saved = Callable[[str], Path]
SPEC = tf.TensorSpec([None, 2], tf.float32)


class Uses(tf.Module):
    """Uses of a variable that cannot be frozen, next to one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.free = tf.Variable(tf.ones([2, 2]), name="free")
        self.mapped = tf.Variable(tf.ones([2, 2]), name="mapped")
        self.written = tf.Variable(tf.ones([2, 2]), name="written")
        self.scattered = tf.Variable(tf.ones([2, 2]), name="scattered")

    @tf.function(input_signature=[SPEC])
    def plain(self, x: Any) -> Any:
        return tf.matmul(x, self.free)

    @tf.function(input_signature=[SPEC])
    def dataset(self, x: Any) -> Any:
        rows = tf.data.Dataset.from_tensor_slices(x).map(lambda row: tf.linalg.matvec(self.mapped, row))
        return rows.reduce(tf.zeros([2]), lambda total, row: total + row)

    @tf.function(input_signature=[SPEC])
    def train(self, x: Any) -> Any:
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=self.written.handle, begin=[0], end=[1], strides=[1], value=tf.matmul(x, x, transpose_a=True)[:1]
        )
        return tf.matmul(x, self.written)

    @tf.function(input_signature=[SPEC])
    def scatter(self, x: Any) -> Any:
        tf.raw_ops.ResourceScatterNdUpdate(
            ref=self.scattered.handle, indices=[[0]], updates=x[:1], bad_indices_policy="IGNORE"
        )
        return x


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    path = tmp_path_factory.mktemp("uses") / "model"
    tf.saved_model.save(Uses(), str(path))
    return SavedModel.load(path)


@pytest.mark.parametrize(("shape", "text"), [([None, 2], r"\[None, 2\]"), (None, "unknown")])
def test_variables_of_no_fixed_shape_are_refused(tmp_path: Path, shape: Any, text: str) -> None:
    module = tf.Module()
    module.rows = tf.Variable(tf.ones([3, 2]), shape=tf.TensorShape(shape), name="rows")
    module.serve = tf.function(lambda x: x * tf.reduce_sum(module.rows), input_signature=[SPEC])
    tf.saved_model.save(module, str(tmp_path / "model"))
    model = SavedModel.load(tmp_path / "model")
    with pytest.raises(UnsupportedError, match=rf"rows \(rows\) has the shape \[3, 2\] now, .* is {text}"):
        freeze_reads(model, make_plan(model, ("rows",), "blend"))


@pytest.mark.parametrize(
    ("name", "operation", "function"),
    [
        ("mapped", "MapDataset", "dataset"),
        ("written", "ResourceStridedSliceAssign", "train"),
        ("scattered", "ResourceScatterNdUpdate", "scatter"),
    ],
)
def test_unsafe_uses_are_refused(uses: SavedModel, name: str, operation: str, function: str) -> None:
    with pytest.raises(UnsupportedVariableUseError) as caught:
        freeze_reads(uses, make_plan(uses, (name,), "blend"))
    message = str(caught.value)
    assert f"{name} ({name}) is taken by {operation}" in message
    assert f"__inference_{function}_" in message
    assert "Leave the variable out of the selection" in message
    assert caught.value.details["uses"][0]["operation"] == operation


def test_other_variables_of_that_model_can_be_frozen(uses: SavedModel, tmp_path: Path) -> None:
    plan = make_plan(uses, ("free",), "blend")
    write(freeze_reads(uses, plan), tmp_path / "out")
    x = np.ones((1, 2), np.float32)
    sample = Sample(lambda path: None, {"plain": lambda m: m.plain(x), "dataset": lambda m: m.dataset(x)}, (), {})
    original = tf.saved_model.load(str(uses.directory))
    merge(original, plan)
    expected, found = call_all(original, sample), call_all(tf.saved_model.load(str(tmp_path / "out")), sample)
    assert {k: v.tobytes() for k, v in expected.items()} == {k: v.tobytes() for k, v in found.items()}


class Tables(tf.Module):
    """Tables with functions of their own, which initialise and save them."""

    def __init__(self) -> None:
        super().__init__()
        initial = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2]), tf.constant([10.0, 20.0]))
        self.fixed = tf.lookup.StaticHashTable(initial, 0.0)
        self.mutable = tf.lookup.experimental.MutableHashTable(tf.int32, tf.float32, 0.0)
        self.mutable.insert([1], [100.0])
        self.w = tf.Variable([1.0, 2.0], name="w")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def look_up(self, x: Any) -> Any:
        return (self.fixed.lookup(x) + self.mutable.lookup(x)) * self.w


def test_tables_keep_their_functions(tmp_path: Path) -> None:
    module = Tables()
    tf.saved_model.save(module, str(tmp_path / "in"), signatures={"look_up": module.look_up})
    model = SavedModel.load(tmp_path / "in")
    plan = make_plan(model, ("w",), "select")
    rewritten = freeze_reads(model, plan)
    assert {read.operation for read in rewritten.reads} == {"ReadVariableOp"}
    write(rewritten, tmp_path / "out")
    x = np.array([1, 2], np.int32)
    sample = Sample(lambda path: None, {"look_up": lambda m: m.look_up(x)}, ("w",), {"look_up": {"x": x}})
    original = tf.saved_model.load(str(tmp_path / "in"))
    merge(original, plan)
    expected, found = call_all(original, sample), call_all(tf.saved_model.load(str(tmp_path / "out")), sample)
    assert {k: v.tobytes() for k, v in expected.items()} == {k: v.tobytes() for k, v in found.items()}


class CapturedTwice(tf.Module):
    """A function with a captured tensor of a custom gradient inside, which would have to be cloned."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = tf.Variable([[1.0]], name="a"), tf.Variable([[2.0]], name="b")

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32)])
    def both(self, x: Any) -> Any:
        return _square_product(x, self.a) + _square_product(x, self.b)


@tf.function
def _square_product(x: Any, v: Any) -> Any:
    @tf.custom_gradient
    def product(x: Any, w: Any) -> Any:
        return tf.matmul(x, w), lambda dy: (tf.matmul(dy, w), tf.matmul(x, dy, True))

    return product(x, v.read_value())


def test_custom_gradients_in_shared_functions(tmp_path: Path) -> None:
    tf.saved_model.save(CapturedTwice(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = make_plan(model, ("a",), "blend")
    with pytest.raises(UnsupportedVariableUseError, match="custom gradient captures tensors from inside it"):
        freeze_reads(model, plan)


def test_variables_behind_no_object_are_refused(saved: Saved) -> None:
    model = SavedModel.load(saved("dense"))
    graph = model.meta_graph.graph_def
    call = next(node for node in graph.node if node.name == model_call(model))
    extra = graph.node.add(name="stray", op="VarHandleOp")
    call.input.append(extra.name)
    with pytest.raises(UnsupportedError, match="variable handle 'stray'"):
        freeze_reads(model, make_plan(model, MODELS["dense"].targets, "blend"))


def model_call(model: SavedModel) -> str:
    """The main-graph node that computes a signature."""
    (output,) = model.meta_graph.signature_def["serving_default"].outputs.values()
    return str(output.name).split(":", 1)[0]
