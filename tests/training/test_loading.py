"""What is loaded for tracing: two endpoints, and no values until something runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from graphfreeze.artifact import write_artifact
from graphfreeze.assembly import assemble
from graphfreeze.checks.reference import compute_reference
from graphfreeze.pipeline.training import stored_reference
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import Selection, resolve_plan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.loading import LoadedModel, load_model
from graphfreeze.training.losses import parse_losses
from graphfreeze.training.trace import trace_step
from graphfreeze.training.traced_step import TracedStep

X = tf.TensorSpec((None, 4), tf.float32, name="x")


class Module(tf.Module):
    """Two endpoints on one kernel; the second looks something up in a table."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.normal(size=(4, 3)).astype(np.float32), name="kernel")
        self.bias = tf.Variable([1.0, 2.0, 3.0], name="bias")
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)
        self.table.insert([1, 2], [10.0, 20.0])

    @tf.function(input_signature=[X])
    def serve(self, x: Any) -> Any:
        """Without the table."""
        return x @ self.kernel + self.bias

    @tf.function(input_signature=[X])
    def other(self, x: Any) -> Any:
        """With it."""
        return x @ self.kernel + tf.ensure_shape(self.table.lookup(tf.constant([2], tf.int64)), [1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    path = tmp_path_factory.mktemp("loading") / "model"
    tf.saved_model.save(Module(), str(path))
    return SavedModel.load(path)


def load(model: SavedModel, endpoint: str, read: Any) -> LoadedModel:
    plan = resolve_plan([Selection("freeze", "kernel[0] := 7")], model, form="auto", only_in=())
    return load_model(model.directory, model.variables, plan, endpoint=endpoint, forward_endpoint=None, read=read)


def test_the_variables_hold_nothing_until_they_are_read(model: SavedModel) -> None:
    reads = []

    def read(variable: Variable) -> npt.NDArray[Any]:
        reads.append(variable.name)
        return model.read(variable)

    loaded = load(model, "serve", read)
    assert loaded.stored.are_missing
    assert not any(bool(parameter.resource.is_initialized()) for parameter in loaded.parameters)
    assert not reads
    loaded.stored.restore(loaded.parameters)
    loaded.stored.restore(loaded.parameters)
    assert sorted(reads) == ["bias", "kernel"]
    with_values = load(model, "serve", None)
    assert not with_values.stored.are_missing
    for parameter, expected in zip(loaded.parameters, with_values.parameters, strict=True):
        np.testing.assert_array_equal(parameter.resource.numpy(), expected.resource.numpy())
    kernel = next(p.resource for p in loaded.parameters if p.name == "kernel")
    np.testing.assert_array_equal(kernel.numpy()[0], np.full(3, 7, np.float32))


def test_functions_that_are_not_used_are_let_go_of(model: SavedModel) -> None:
    loaded = load(model, "serve", model.read)
    assert loaded.root is None
    function = loaded.endpoint.function
    assert list(function.graph.outer_graph._functions) == [tf.compat.as_str(function.name)]
    loaded.stored.restore(loaded.parameters)
    (found,) = loaded.endpoint({"x": tf.ones((2, 4))})
    assert found.shape == (2, 3)


def test_a_table_keeps_what_the_checkpoint_has_for_it(model: SavedModel) -> None:
    loaded = load(model, "other", model.read)
    assert loaded.root is not None
    assert not loaded.stored.are_missing
    kernel = next(p.resource for p in loaded.parameters if p.name == "kernel")
    (found,) = loaded.endpoint({"x": tf.zeros((2, 4))})
    np.testing.assert_array_equal(found, np.full((2, 3), 20, np.float32))
    np.testing.assert_array_equal(kernel.numpy()[0], np.full(3, 7, np.float32))


@pytest.mark.parametrize(
    ("optimizer", "selector"),
    [
        ("adam", "kernel[0]"),
        ("muon", "kernel[0]"),
        ("schedule_free_adamw", "kernel[0]"),
        ("sgd:momentum=0.9", "bias"),
        ("adam", "kernel[0, 1]"),
    ],
)
def test_an_artifact_does_not_depend_on_it(model: SavedModel, optimizer: str, selector: str, tmp_path: Path) -> None:
    plan = resolve_plan([Selection("freeze", selector)], model, form="auto", only_in=())
    batch = {"x": np.ones((2, 4), np.float32), "y": np.zeros((2, 3), np.float32)}

    def write(read: Any) -> TracedStep:
        step = trace_step(
            model.directory,
            model.variables,
            plan,
            losses=parse_losses("mse"),
            optimizers=parse_optimizers(optimizer),
            endpoint="serve",
            read=read,
        )
        assembly = assemble(step, opset=18, seed=0)
        reference = stored_reference(assembly, compute_reference(step, batch, 0), batch)
        out = tmp_path / ("kept" if read is None else "read")
        write_artifact(out, assembly.manifest, assembly.graphs, assembly.state, reference)
        return step

    write(None)
    write(model.read)
    files = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "read").iterdir())
    for name in files:
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "read" / name).read_bytes(), name
