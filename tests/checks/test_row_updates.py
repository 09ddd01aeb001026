"""Large tables are updated from the rows of their gradients: the numbers are those of the whole gradients."""

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
from graphfreeze.training import row_updates
from tests.checks.slice_models import LOSS, Array

layers = keras.layers

WORDS, WIDTH, LENGTH = 64, 5, 6
TABLE = "net/table/embeddings"


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "model"
    keras.utils.set_random_seed(0)
    x = keras.Input((LENGTH,), dtype="int32", name="x")
    build = [layers.Embedding(WORDS, WIDTH, name="table"), layers.GlobalAveragePooling1D(), layers.Dense(3, name="out")]
    keras.Sequential([x, *build], name="net").export(path, verbose=False)
    return path


@pytest.fixture
def rewrite(saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Optimizer, and the fewest elements of a table that is updated from rows -> the OUT of a rewrite."""
    # Rows are taken of tables that are too large for the flat state.
    monkeypatch.setattr("graphfreeze.training.flat._MOST_ELEMENTS", 20)

    def make(optimizer: str, fewest: int, checks: Any = "none", freeze: str = "net/out/bias[0]") -> Path:
        monkeypatch.setattr(row_updates, "_FEWEST_ELEMENTS", fewest)
        out = tmp_path / f"from {fewest}"
        selections = [Selection("freeze", freeze)]
        graphfreeze.rewrite(saved_model, out, selections, loss=LOSS, optimizer=optimizer, checks=checks)
        return out

    return make


def batches(count: int) -> list[dict[str, Array]]:
    """Batches in which some words are there several times, and most are not."""
    rng = np.random.default_rng(4)
    return [
        {"x": rng.integers(0, 9 * (i + 1), (4, LENGTH)).astype(np.int32), "y": rng.integers(0, 3, 4)}
        for i in range(count)
    ]


def sums_of_all_rows(out: Path) -> list[str]:
    """Nodes of the step that make a gradient as large as the table."""
    model = onnx.load(out / "training" / "train_step.onnx")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    made = {node.output[0]: node for node in graph.node}
    shapes = {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in graph.value_info}
    return [
        node.name
        for node in graph.node
        if node.op_type == "ScatterND"
        and shapes.get(node.output[0]) == [WORDS, WIDTH]
        and (node.input[0] not in made or made[node.input[0]].op_type == "Expand")
    ]


OPTIMIZERS = (
    "sgd:learning_rate=0.1",
    "sgd:learning_rate=0.1,momentum=0.9,nesterov=true",
    "adam:learning_rate=0.01",
    "adam:learning_rate=0.01,amsgrad=true,use_ema=true",
    "adam:learning_rate=0.01,global_clipnorm=0.01",
    "adamw:learning_rate=0.01,weight_decay=0.1",
    "nadam:learning_rate=0.01",
    "rmsprop:learning_rate=0.01,momentum=0.5,centered=true",
    "adagrad:learning_rate=0.1",
    "lion:learning_rate=0.01",
    "lamb:learning_rate=0.01",
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_numbers_are_those_of_the_whole_gradient(optimizer: str, rewrite: Callable[..., Path]) -> None:
    whole, rows = rewrite(optimizer, 10**9), rewrite(optimizer, 1)
    expected, found = Trainer(whole, device="cpu"), Trainer(rows, device="cpu")
    for batch in batches(4):
        # From the same state: Adam divides what is rounding alone by its own size.
        state = expected.state_dict()
        found = Trainer(rows, device="cpu", state=state)
        expected.step(batch)
        found.step(batch)
        for name, value in expected.state_dict().items():
            change = float(np.max(np.abs(value - state[name]), initial=0.0))
            size = float(np.max(np.abs(value), initial=0.0))
            error = float(np.max(np.abs(found.state_dict()[name] - value), initial=0.0))
            assert error <= 1e-5 * change + 4 * 2.0**-24 * size, name
            assert change > 0 or name == "learning_rate", name


@pytest.mark.parametrize(
    ("optimizer", "made"),
    [
        ("sgd:learning_rate=0.1,momentum=0.9", 1),
        ("adam", 2),
        ("adamw", 2),
        ("adam:clipvalue=0.01", 2),
        ("adam:global_clipnorm=0.1", 2),
        ("rmsprop", 1),
    ],
)
def test_no_gradient_is_made_as_large_as_the_table(optimizer: str, made: int, rewrite: Callable[..., Path]) -> None:
    """Of the rows, or of their squares."""
    assert len(sums_of_all_rows(rewrite(optimizer, 10**9))) == made
    assert sums_of_all_rows(rewrite(optimizer, 1)) == []


@pytest.mark.parametrize("optimizer", ["adam:gradient_accumulation_steps=2", "adam:loss_scale=dynamic"])
def test_where_it_is_needed_the_gradient_is_made(optimizer: str, rewrite: Callable[..., Path]) -> None:
    assert len(sums_of_all_rows(rewrite(optimizer, 1))) == 1


@pytest.mark.parametrize("freeze", [f"{TABLE}[3, 1]", f"{TABLE}[10:40]", "net/out/bias[0]"])
def test_every_check_passes(freeze: str, rewrite: Callable[..., Path]) -> None:
    rewrite("adam", 1, checks="full", freeze=freeze)
