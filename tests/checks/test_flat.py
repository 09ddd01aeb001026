"""Small parameters are updated as one flat tensor: the numbers are those of the updates one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.artifact import read_artifact
from graphfreeze.training import flat
from tests.checks.slice_models import LOSS, Array

layers = keras.layers

FREEZE = ("net/hidden/kernel[0, 1:4]", "net/norm/gamma[2]")


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filter, which is kept in another layout, and small vectors and matrices of which a few elements are frozen."""
    path = tmp_path_factory.mktemp("flat") / "model"
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 5, 2), name="x")
    build = [
        layers.Conv2D(4, 3, activation="tanh", name="conv"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(6, "tanh", name="hidden"),
        layers.LayerNormalization(name="norm"),
        layers.Dense(3, name="scores"),
    ]
    keras.Sequential([x, *build], name="net").export(path, verbose=False)
    return path


@pytest.fixture
def rewrite(saved_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Optimizer -> the OUT of a rewrite."""

    def make(optimizer: str, name: str = "out", checks: Any = "none") -> Path:
        selections = [Selection("freeze", text) for text in FREEZE]
        graphfreeze.rewrite(saved_model, tmp_path / name, selections, loss=LOSS, optimizer=optimizer, checks=checks)
        return tmp_path / name

    return make


def batches(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(size=(4, 5, 5, 2)).astype(np.float32), "y": rng.integers(0, 3, 4)} for _ in range(count)]


def train(out: Path, steps: int = 5) -> Trainer:
    trainer = Trainer(out, device="cpu")
    for batch in batches(steps):
        trainer.step(batch)
    return trainer


def unflattened(trainer: Trainer) -> dict[str, Array]:
    """The state with what belongs to each parameter by itself."""
    found = {}
    for entry in trainer.artifact.manifest.state:
        value = trainer.state_dict()[entry.name]
        if entry.parts is None:
            found[entry.name] = value
            continue
        optimizer, _, slot = entry.name.split("/")
        end = 0
        for part in entry.parts:
            start, end = end, end + part.elements
            shape = trainer.state_dict()[part.parameter].shape
            found[f"{optimizer}/{part.parameter}/{slot}"] = value[start:end].reshape(shape)
        assert end == value.size
    return found


def test_the_manifest_says_what_the_parts_are(rewrite: Callable[..., Path]) -> None:
    out = rewrite("adam", checks="full")
    artifact = read_artifact(out)
    by_name = {entry.name: entry for entry in artifact.manifest.state}
    assert {name for name in by_name if name.startswith("adam/")} == {
        "adam/iteration",
        "adam/flat/momentum",
        "adam/flat/velocity",
        "adam/net/conv/kernel/momentum",
        "adam/net/conv/kernel/velocity",
    }
    for slot in ("momentum", "velocity"):
        entry = by_name[f"adam/flat/{slot}"]
        assert entry.parameter is None
        assert entry.parts is not None
        trained = {e.name: artifact.state[e.name].size for e in artifact.manifest.trainable_parameters}
        del trained["net/conv/kernel"]
        assert {part.parameter: part.elements for part in entry.parts} == trained
        assert artifact.state[entry.name].shape == entry.shape == (sum(part.elements for part in entry.parts),)
    step = onnx.load(out / "training" / "train_step.onnx", load_external_data=False)
    assert not {"flat", "new/flat"} & {value.name for value in (*step.graph.input, *step.graph.output)}


OPTIMIZERS = (
    "adam:learning_rate=0.01",
    "adamw:learning_rate=0.01,weight_decay=0.1",
    "sgd:learning_rate=0.1,momentum=0.9,clipvalue=0.01",
    "nadam:learning_rate=0.01,use_ema=true,ema_overwrite_frequency=2",
    "schedule_free_adamw:learning_rate=0.01",
    "adam:learning_rate=0.01,loss_scale=dynamic,loss_scale.dynamic_growth_steps=2",
    "rmsprop:learning_rate=0.01,gradient_accumulation_steps=2",
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_numbers_are_those_of_separate_updates(
    optimizer: str, rewrite: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = rewrite(optimizer, "together")
    assert any(entry.parts for entry in read_artifact(together).manifest.state if "flat" in entry.name.split("/"))
    monkeypatch.setattr(flat, "_MOST_ELEMENTS", 0)
    one_by_one = rewrite(optimizer, "one by one")
    assert not any(entry.parts for entry in read_artifact(one_by_one).manifest.state)
    found, expected = unflattened(train(together)), train(one_by_one).state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def test_frozen_elements_keep_their_bits(rewrite: Callable[..., Path]) -> None:
    trainer = train(rewrite("adamw:learning_rate=0.1,weight_decay=0.5"))
    initial, weights = Trainer(trainer.artifact, device="cpu").weights(), trainer.weights()
    for name, frozen in (("net/hidden/kernel", np.s_[0, 1:4]), ("net/norm/gamma", np.s_[2])):
        assert weights[name][frozen].tobytes() == initial[name][frozen].tobytes()
        changed = weights[name] != initial[name]
        assert np.count_nonzero(~changed) == np.size(initial[name][frozen])


def test_norms_of_single_gradients_are_those_of_single_parameters(rewrite: Callable[..., Path]) -> None:
    manifest = read_artifact(rewrite("adam:clipnorm=0.1")).manifest
    assert not any(entry.parts for entry in manifest.state)
    assert manifest.find_state("adam/net/hidden/bias/momentum") is not None


def test_the_norm_of_all_gradients_is_taken_of_all(rewrite: Callable[..., Path]) -> None:
    out = rewrite("sgd:learning_rate=0.1,momentum=0.9,global_clipnorm=0.1", checks="full")
    assert any(entry.parts for entry in read_artifact(out).manifest.state)


def test_optimizers_that_look_at_whole_parameters_see_them_one_by_one(rewrite: Callable[..., Path]) -> None:
    assert not any(entry.parts for entry in read_artifact(rewrite("lamb")).manifest.state)


def test_a_state_is_saved_and_continued(rewrite: Callable[..., Path], tmp_path: Path) -> None:
    out = rewrite("adam:learning_rate=0.01")
    whole = train(out, 5)
    first = train(out, 3)
    first.save(tmp_path / "state.safetensors")
    again = Trainer(out, device="cpu", state=tmp_path / "state.safetensors")
    other = Trainer(out, device="cpu")
    other.load(tmp_path / "state.safetensors")
    for trainer in (again, other):
        for batch in batches(5)[3:]:
            trainer.step(batch)
        for name, value in whole.state_dict().items():
            assert trainer.state_dict()[name].tobytes() == value.tobytes(), name
