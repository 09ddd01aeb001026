"""Variables, values and endpoints of SavedModels as TensorFlow itself sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.savedmodel.endpoints import TensorSpec
from graphfreeze.savedmodel.inspect import inspect
from graphfreeze.savedmodel.model import SavedModel


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A Keras 3 export with the Keras model that it is of."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    values = keras.Input((2,), name="values")
    x = keras.layers.LSTM(2, name="lstm")(keras.layers.Embedding(7, 3, name="embedding")(tokens))
    x = keras.layers.Concatenate()([x, keras.layers.BatchNormalization(name="bn")(values)])
    outputs = {"score": keras.layers.Dense(1, name="score")(x), "class": keras.layers.Dense(3, name="class")(x)}
    model = keras.Model({"tokens": tokens, "values": values}, outputs)
    path = tmp_path_factory.mktemp("exported") / "model"
    model.export(path, verbose=False)
    return path, model


def test_each_variable_is_listed_once(exported: tuple[Path, Any]) -> None:
    path, keras_model = exported
    model = SavedModel.load(path)
    expected = {v.path: v for v in keras_model.variables}
    found = {v.name: v for v in model.variables}
    assert len(found) == len(model.variables)
    assert found.keys() == expected.keys() | {name for name in found if name.startswith("seed_generator")}
    for name, variable in expected.items():
        assert found[name].shape == tuple(variable.shape)
        assert found[name].dtype == variable.dtype
        assert found[name].trainable == variable.trainable
        assert model.read(found[name]).tobytes() == variable.numpy().tobytes()
    assert [(v.name, v.object_path) for v in model.variables] == sorted(
        (v.name, v.object_path) for v in model.variables
    )


def test_the_listed_object_is_the_one_that_functions_capture(exported: tuple[Path, Any]) -> None:
    model = SavedModel.load(exported[0])
    loaded = tf.saved_model.load(str(exported[0]))
    for variable in model.variables:
        folder, index = variable.object_path.split("/")
        before = loaded.serve({"tokens": tf.ones([1, 4], tf.int32), "values": tf.ones([1, 2])})
        target = getattr(loaded, folder)[int(index)]
        if not variable.trainable:
            continue
        value = target.numpy()
        target.assign(value + 1)
        after = loaded.serve({"tokens": tf.ones([1, 4], tf.int32), "values": tf.ones([1, 2])})
        target.assign(value)
        assert any(not np.array_equal(before[key], after[key]) for key in before), variable.name


def test_endpoints(exported: tuple[Path, Any]) -> None:
    model = SavedModel.load(exported[0])
    assert [endpoint.label for endpoint in model.endpoints] == [
        "function serve",
        "signature serve",
        "signature serving_default",
    ]
    for endpoint in model.endpoints:
        assert endpoint.inputs == (
            TensorSpec("tokens", (None, 4), "int32"),
            TensorSpec("values", (None, 2), "float32"),
        )
        assert endpoint.outputs == ("class", "score")
        assert len(endpoint.functions) == 1


class Module(tf.Module):
    """Variables with awkward names, shapes, owners and uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = tf.Variable([1.0, 2.0], name="same")
        self.second = tf.Variable([3.0, 4.0], name="same")
        self.growing = tf.Variable(np.ones((3, 2), np.float32), shape=[None, 2], name="growing")
        self.never_read = tf.Variable(7, name="never/read", trainable=False)
        self.words = tf.Variable(["a\0", "b"], name="words", trainable=False)
        self.parts = {"x": [tf.Variable(np.float64(1.5), name="part")]}

    @tf.function
    def __call__(self, x: Any, flag: bool = False) -> Any:
        return x * self.first if flag else x * self.second

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "rows")])
    def update(self, rows: Any) -> Any:
        self.first.assign_add(tf.reduce_sum(rows, 0))
        return rows, {"first": self.first.value(), "growing": tf.gather(self.growing, [0])}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    path = tmp_path_factory.mktemp("module") / "model"
    instance = Module()
    instance(tf.ones([2]))
    instance(tf.ones([2]), flag=True)
    tf.saved_model.save(instance, str(path))
    return SavedModel.load(path)


def test_variables_of_a_module(module: SavedModel) -> None:
    found = [(v.name, v.object_path, v.shape, v.dtype, v.trainable) for v in module.variables]
    assert found == [
        ("growing", "growing", (3, 2), "float32", True),
        ("never/read", "never_read", (), "int32", False),
        ("part", "parts/x/0", (), "float64", True),
        ("same", "first", (2,), "float32", True),
        ("same", "second", (2,), "float32", True),
        ("words", "words", (2,), "string", False),
    ]
    values = {v.object_path: module.read(v) for v in module.variables}
    assert values["second"].tolist() == [3, 4]
    assert values["words"].tolist() == [b"a\0", b"b"]
    assert values["parts/x/0"].dtype == np.float64 and values["parts/x/0"] == 1.5


def test_a_function_has_one_concrete_function_per_trace(module: SavedModel) -> None:
    functions = {endpoint.name: endpoint for endpoint in module.endpoints if endpoint.kind == "function"}
    assert len(functions["__call__"].functions) == 2
    assert functions["__call__"].inputs == (TensorSpec("x", (2,), "float32"),)
    assert functions["update"].inputs == (TensorSpec("rows", (None, 2), "float32"),)


def test_inspect_tells_reads_and_writes(module: SavedModel) -> None:
    table = inspect(module)
    assert json.loads(json.dumps(table)) == table
    assert table["schema_version"] == 1
    assert table["totals"]["variables"] == 6
    assert table["totals"]["elements"] == 6 + 1 + 1 + 2 + 2 + 2
    by_path = {variable["object_path"]: variable for variable in table["variables"]}
    assert by_path["never_read"]["reads"] == by_path["never_read"]["written_by"] == []
    (gather,) = by_path["growing"]["reads"]
    assert (gather["operation"], gather["endpoints"], gather["count"]) == ("ResourceGather", ["function update"], 1)
    reads = {(r["operation"], *r["endpoints"]) for r in by_path["first"]["reads"]}
    assert reads == {("ReadVariableOp", "function __call__"), ("ReadVariableOp", "function update")}
    (write,) = by_path["first"]["written_by"]
    assert (write["operation"], write["endpoints"]) == ("AssignAddVariableOp", ["function update"])


def test_inspect_counts_reads_within_loops(exported: tuple[Path, Any]) -> None:
    table = inspect(SavedModel.load(exported[0]))
    by_name = {variable["name"]: variable for variable in table["variables"]}
    reads = by_name["lstm/lstm_cell/recurrent_kernel"]["reads"]
    (read,) = (read for read in reads if "while_body" in read["function"])
    assert read["endpoints"] == ["function serve", "signature serve", "signature serving_default"]
    assert [e["name"] for e in table["signatures"]] == ["serve", "serving_default"]
