"""Models of which whole rows, columns and filters are frozen: gradient and state are those of the others alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.artifact import read_artifact
from graphfreeze.artifact.layout import to_stored
from graphfreeze.errors import ArtifactReadError
from graphfreeze.training.optimizers import ELEMENTWISE, OPTIMIZERS
from tests.checks.slice_models import LOSS, NETS, Array, batches, layers


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a net -> its SavedModel."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            net = NETS[name]
            keras.utils.set_random_seed(0)
            x = keras.Input(net.x, dtype="int32" if net.words else "float32", name="x")
            model = keras.Sequential([x, *net.build(), layers.Dense(3, name="scores")], name="net")
            made[name] = tmp_path_factory.mktemp("net") / "model"
            model.export(made[name], verbose=False)
        return made[name]

    return get


def train_in_tensorflow(rewritten: Path, optimizer: Any, frozen: dict[str, Array], data: list[Any]) -> dict[str, Array]:
    """The values after training with the whole variables, frozen elements put back after each step."""
    loaded = tf.saved_model.load(str(rewritten))
    variables = {v.name.removesuffix(":0"): v for v in loaded.variables if v.trainable}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    initial = {name: v.numpy() for name, v in variables.items()}
    for batch in data:
        with tf.GradientTape() as tape:
            value = loss(batch["y"], loaded.serve(batch["x"]))
        gradients = tape.gradient(value, list(variables.values()))
        optimizer.apply(gradients, list(variables.values()))
        for name, mask in frozen.items():
            variables[name].assign(np.where(mask, initial[name], variables[name].numpy()))
    return {name: v.numpy() for name, v in variables.items()}


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "blend") for name in NETS), ("rows and columns", "select"), ("filters", "select")]
)
def test_every_check_passes(name: str, form: Any, exported: Callable[[str], Path], tmp_path: Path) -> None:
    net = NETS[name]
    selections = [Selection("freeze", text) for text in net.freeze]
    report = graphfreeze.rewrite(
        exported(name), tmp_path / "out", selections, loss=LOSS, optimizer="adam", form=form, endpoint="serve"
    )
    assert all(check["passed"] for check in report["checks"])
    described = {record["name"]: record for record in report["training"]["frozen_slices"]}
    assert {n: (r["axis"], r["trained_slices"]) for n, r in described.items()} == net.slices
    assert {record["state"] for record in described.values()} == {"trained slices"}
    artifact = read_artifact(tmp_path / "out")
    for parameter, (axis, count) in net.slices.items():
        entries = [e for e in artifact.manifest.state if parameter in (e.name, e.parameter)]
        stored = artifact.state[parameter].size
        flat = [part.elements for e in artifact.manifest.state for part in e.parts or () if part.parameter == parameter]
        assert (len(entries), flat) in [(3, []), (1, [stored, stored])]
        for entry in entries:
            order = entry.permutation or range(len(entry.shape))
            assert entry.trained_slices is not None
            assert entry.shape[axis] == described[parameter]["slices"]
            assert artifact.state[entry.name].shape == entry.stored_shape
            assert entry.stored_shape[list(order).index(axis)] == count
    assert all(
        (e.trained_slices is not None) == ((e.parameter or e.name) in net.slices) for e in artifact.manifest.state
    )


OPTIMIZER_CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "sgd": ("sgd:learning_rate=0.05,momentum=0.9,nesterov=true", lambda: keras.optimizers.SGD(0.05, 0.9, True)),
    "adam": ("adam:learning_rate=0.01,amsgrad=true", lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    "adamw": ("adamw:learning_rate=0.01,weight_decay=0.1", lambda: keras.optimizers.AdamW(0.01, 0.1)),
    "nadam": ("nadam:learning_rate=0.01", lambda: keras.optimizers.Nadam(0.01)),
    "rmsprop": (
        "rmsprop:learning_rate=0.01,momentum=0.5,centered=true",
        lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    ),
    "adagrad": ("adagrad:learning_rate=0.1", lambda: keras.optimizers.Adagrad(0.1)),
    "adadelta": ("adadelta:learning_rate=1.0", lambda: keras.optimizers.Adadelta(1.0)),
    "adamax": ("adamax:learning_rate=0.01", lambda: keras.optimizers.Adamax(0.01)),
    "ftrl": ("ftrl:learning_rate=0.1", lambda: keras.optimizers.Ftrl(0.1)),
    "lion": ("lion:learning_rate=0.001", lambda: keras.optimizers.Lion(0.001)),
    "schedule_free_adamw": (
        "schedule_free_adamw:learning_rate=0.01",
        lambda: keras.optimizers.ScheduleFreeAdamW(0.01),
    ),
    "lamb": ("lamb:learning_rate=0.01", lambda: keras.optimizers.Lamb(0.01)),
    "norm of a gradient": ("adam:learning_rate=0.01,clipnorm=0.01", lambda: keras.optimizers.Adam(0.01, clipnorm=0.01)),
    "norm of all gradients": (
        "sgd:learning_rate=0.1,global_clipnorm=0.1",
        lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    ),
    "averages and accumulation": (
        "adam:learning_rate=0.01,use_ema=true,ema_overwrite_frequency=2,gradient_accumulation_steps=2",
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2, gradient_accumulation_steps=2),
    ),
}


def test_all_optimizers_are_here() -> None:
    assert {text.partition(":")[0] for text, _ in OPTIMIZER_CASES.values()} == ELEMENTWISE | {"lamb"}
    assert set(OPTIMIZERS) - ELEMENTWISE == {"adafactor", "lamb", "muon"}


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_the_report_says_whose_state_is_whole(name: str, exported: Callable[[str], Path], tmp_path: Path) -> None:
    selections = [Selection("freeze", selector) for selector in NETS["rows and columns"].freeze]
    out = tmp_path / "out"
    report = graphfreeze.rewrite(
        exported("rows and columns"), out, selections, loss=LOSS, optimizer=name, checks="none"
    )
    records = report["training"]["frozen_slices"]
    assert {record["name"] for record in records} == set(NETS["rows and columns"].slices)
    assert {record["state"] for record in records} == {"whole"}
    assert all(record["reason"].startswith(f"what {name} does to an element depends on others") for record in records)
    assert not any(entry.trained_slices for entry in read_artifact(out).manifest.state)


@pytest.mark.parametrize("case", OPTIMIZER_CASES)
def test_training_is_that_of_the_whole_variables(case: str, exported: Callable[[str], Path], tmp_path: Path) -> None:
    name = "rows and columns"
    net, (text, optimizer) = NETS[name], OPTIMIZER_CASES[case]
    selections = [Selection("freeze", selector) for selector in net.freeze]
    report = graphfreeze.rewrite(
        exported(name), tmp_path / "out", selections, loss=LOSS, optimizer=text, endpoint="serve", checks="none"
    )
    elementwise = text.partition(":")[0] in ELEMENTWISE
    for record in report["training"]["frozen_slices"]:
        assert record["state"] == ("trained slices" if elementwise else "whole")
        assert (record["reason"] is None) == elementwise
    trainer = Trainer(tmp_path / "out", device="cpu")
    data = batches(net)
    for batch in data:
        trainer.step(batch)
    plan = graphfreeze.selection.load_plan(tmp_path / "out" / "plan")
    frozen = {v.variable.name: ~v.full_mask for v in plan.variables}
    expected = train_in_tensorflow(tmp_path / "out" / "saved_model", optimizer(), frozen, data)
    initial = Trainer(tmp_path / "out", device="cpu").weights()
    found = trainer.weights()
    assert set(found) >= set(expected)
    for variable, value in expected.items():
        assert found[variable].shape == value.shape
        moved = np.abs(value - initial[variable]).max()
        # Where a gradient is rounding alone, Adam and its kin make steps of any size of it.
        np.testing.assert_allclose(found[variable], value, rtol=1e-5, atol=1e-3 * moved, err_msg=variable)
    for variable, mask in frozen.items():
        assert found[variable][mask].tobytes() == initial[variable][mask].tobytes()


def test_a_state_is_saved_folded_and_continued(exported: Callable[[str], Path], tmp_path: Path) -> None:
    """Files hold the slices, `weights` and folded models the whole variables."""
    net = NETS["filters"]
    out = tmp_path / "out"
    selections = [Selection("freeze", selector) for selector in net.freeze]
    graphfreeze.rewrite(exported("filters"), out, selections, loss=LOSS, optimizer="adam", checks="static")
    trainer = Trainer(out, device="cpu")
    data = batches(net)
    for batch in data:
        trainer.step(batch)
    trainer.save(tmp_path / "state.safetensors")
    again = Trainer(out, device="cpu", state=tmp_path / "state.safetensors")
    weights = trainer.weights()
    assert {n: w.tobytes() for n, w in again.weights().items()} == {n: w.tobytes() for n, w in weights.items()}
    for entry in trainer.artifact.manifest.parameters:
        assert trainer.frozen is not None
        stored = trainer.frozen.to_stored(weights[entry.name], entry)
        np.testing.assert_array_equal(stored, trainer.state_dict()[entry.name])
        assert to_stored(weights[entry.name], entry).shape == entry.whole_stored_shape

    graphfreeze.fold(out, tmp_path / "deploy", state=tmp_path / "state.safetensors")
    deployed = tf.saved_model.load(str(tmp_path / "deploy"))
    for variable in deployed.variables:
        np.testing.assert_array_equal(variable.numpy(), weights[variable.name.removesuffix(":0")])
    x = data[0]["x"]
    (predicted,) = trainer.predict({"x": x}).values()
    np.testing.assert_allclose(predicted, deployed.serve(x).numpy(), rtol=1e-4, atol=1e-6)
    onnx_model = onnx.load(tmp_path / "deploy" / "model.onnx")
    assert [value.name for value in onnx_model.graph.input] == ["x"]


def test_without_the_plan_there_is_no_whole_variable(exported: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    selections = [Selection("freeze", selector) for selector in NETS["rows"].freeze]
    graphfreeze.rewrite(exported("rows"), out, selections, loss=LOSS, optimizer="adam", checks="none")
    (out / "plan").rename(tmp_path / "plan")
    trainer = Trainer(out, device="cpu")
    trainer.step(batches(NETS["rows"])[0])
    assert trainer.state_dict()["net/table/embeddings"].shape == (5, 4)
    with pytest.raises(ArtifactReadError, match="has the frozen slices of net/table/embeddings"):
        trainer.weights()


def test_a_large_table_costs_what_its_trained_rows_cost(tmp_path: Path) -> None:
    """100,000 rows of which 100 train: only lookups in constants see the others."""
    size, width = 100_000, 8
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), dtype="int32", name="x")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(size, width, name="table")(x))
    model = keras.Model(x, layers.Dense(3, name="scores")(h), name="net")
    model.export(tmp_path / "model", verbose=False)
    rows = np.random.default_rng(1).choice(size, 100, replace=False)
    mask = np.ones((size, width), np.bool_)
    mask[rows] = False
    np.save(tmp_path / "mask.npy", mask)
    # Rows of both kinds, some of them twice.
    words = np.concatenate([rows[:20], rows[:8], np.arange(20)]).reshape(8, 6).astype(np.int32)
    np.savez(tmp_path / "data.npz", x=words, y=np.arange(8) % 3)
    report = graphfreeze.rewrite(
        tmp_path / "model",
        tmp_path / "out",
        [Selection("freeze", f"table/embeddings @ {tmp_path / 'mask.npy'}")],
        loss=LOSS,
        optimizer="adam",
        data=tmp_path / "data.npz",
    )
    assert all(check["passed"] for check in report["checks"])
    moved = {p["name"]: p["moved"] for p in report["checks"][-1]["evidence"]["parameters"]}
    assert moved["table/embeddings"] == 20 * width
    trainer = Trainer(tmp_path / "out", device="cpu")
    state = trainer.state_dict()
    assert state["table/embeddings"].shape == (100, width)
    assert state["adam/table/embeddings/momentum"].shape == (100, width)
    assert state["adam/table/embeddings/velocity"].shape == (100, width)

    step = onnx.load(tmp_path / "out" / "training" / "train_step.onnx")
    inferred = onnx.shape_inference.infer_shapes(step, strict_mode=True, data_prop=True).graph
    constants = {tensor.name for tensor in step.graph.initializer}
    shapes = [v for v in (*inferred.value_info, *inferred.input, *inferred.output) if v.name not in constants]
    assert all(dim.dim_value < size for value in shapes for dim in value.type.tensor_type.shape.dim)
    large = {tensor.name for tensor in step.graph.initializer if size in tensor.dims}
    readers = [node.op_type for node in step.graph.node if large & set(node.input)]
    assert len(large) == 2 and set(readers) == {"Gather"}
