"""Losses as they are written, and which output each one is for."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

import graphfreeze
from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.training.arguments import Configured
from graphfreeze.training.endpoint import Endpoint, TensorEntry
from graphfreeze.training.losses import OutputLoss, make_loss, parse_loss, parse_losses
from graphfreeze.training.targets import make_objective

X = TensorEntry("x", (None, 5), "float32")
VALUE = TensorEntry("value", (None, 3), "float32")
LABEL = TensorEntry("label", (None, 4), "float32")


def endpoint(*outputs: TensorEntry, inputs: tuple[TensorEntry, ...] = (X,)) -> Endpoint:
    return Endpoint("serve", None, inputs, outputs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mse", OutputLoss(None, Configured("mean_squared_error"))),
        ("huber:delta=0.5", OutputLoss(None, Configured("huber", {"delta": 0.5}))),
        ("value=mse", OutputLoss("value", Configured("mean_squared_error"))),
        ("a=huber:delta=2:weight=0.5", OutputLoss("a", Configured("huber", {"delta": 2}), 0.5)),
        ("mse:weight=3", OutputLoss(None, Configured("mean_squared_error"), 3.0)),
        ("out/0=mse::weight=3", OutputLoss("out/0", Configured("mean_squared_error"), 3.0)),
    ],
)
def test_a_loss_names_its_output_arguments_and_weight(text: str, expected: OutputLoss) -> None:
    assert parse_loss(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("value=mean_square", "nearest: mean_squared_error"),
        ("=mse", "name of an output"),
        ("mse:weight=much", "the weight is 'much'"),
        ("mse:weight=nan", "the weight is nan"),
        ("mse:weight=true", "the weight is True"),
        ("value=huber:delta", "expected key=value"),
    ],
)
def test_what_is_wrong_with_a_loss(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_loss(text)


def test_the_only_output_needs_no_name_and_its_targets_are_y() -> None:
    for text in ("mse", "value=mse"):
        objective = make_objective(endpoint(VALUE), [parse_loss(text)], sample_weight=False)
        assert [entry.name for entry in objective.batch] == ["y"]
        assert objective.named == []


def test_several_outputs_have_targets_of_their_own() -> None:
    losses = parse_losses(["label=sparse_categorical_crossentropy", "value=mse"])
    objective = make_objective(endpoint(VALUE, LABEL), losses, sample_weight=True)
    assert objective.batch == (
        TensorEntry("y.value", (None, 3), "float32"),
        TensorEntry("y.label", (None,), "int64"),
        TensorEntry("sample_weight", (None,), "float32"),
    )
    assert objective.named == ["loss/value", "loss/label"]
    assert objective.without_loss == ()
    alone = make_objective(endpoint(VALUE, LABEL), losses[:1], sample_weight=False)
    assert [entry.name for entry in alone.batch] == ["y.label"]
    assert alone.without_loss == ("value",)


def test_what_an_endpoint_says_beside_its_outputs_is_no_output() -> None:
    added = TensorEntry("graphfreeze_losses", (), "float32")
    mask = TensorEntry("graphfreeze_mask.value", (None,), "bool")
    objective = make_objective(endpoint(added, mask, VALUE), [parse_loss("mse")], sample_weight=False)
    assert [entry.name for entry in objective.batch] == ["y"]


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["mse"], "has 2 outputs: say which one .* value, label"),
        (["valve=mse"], "no output 'valve' .* nearest: value.* The outputs are value, label"),
        (["value=mse", "value=huber"], "two losses for the output 'value': mean_squared_error and huber"),
    ],
)
def test_which_output_must_be_said_and_be_right(losses: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_objective(endpoint(VALUE, LABEL), parse_losses(losses), sample_weight=False)


@pytest.mark.parametrize(("name", "weighted"), [("y", False), ("sample_weight", True)])
def test_an_input_may_not_be_named_like_targets_or_weights(name: str, weighted: bool) -> None:
    inputs = (TensorEntry(name, (None, 5), "float32"),)
    with pytest.raises(UnsupportedError, match=f"named '{name}'"):
        make_objective(endpoint(VALUE, inputs=inputs), parse_losses("mse"), sample_weight=weighted)
    other = "sample_weight" if name == "y" else "y.value"
    renamed = endpoint(VALUE, inputs=(TensorEntry(other, (None, 5), "float32"),))
    make_objective(renamed, parse_losses("mse"), sample_weight=False)


@pytest.mark.parametrize("reduction", ["none", None])
def test_a_loss_that_is_no_single_number_is_refused(reduction: str | None) -> None:
    with pytest.raises(UsageError, match="reduction=none gives a number for each example"):
        make_loss(Configured("huber", {"reduction": reduction}))


def test_an_argument_that_the_loss_cannot_compute_with_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    graphfreeze.export(model, tmp_path / "model")
    selections = [graphfreeze.Selection("freeze", "**/kernel[0]")]
    with pytest.raises(UsageError, match=r"the loss huber does not fit .* or its arguments {'delta': 'abc'} are wrong"):
        graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", selections, loss="huber:delta=abc")
    assert not (tmp_path / "out").exists()
