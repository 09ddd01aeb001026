"""Optimizers as they are written, and that a step is the one of Keras' own fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.errors import UsageError
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.keras_optimizer import Updated, build_optimizer
from graphfreeze.training.optimizers import OPTIMIZERS, STARTS_APART

STEPS = 4


def build(text: str, variables: Sequence[tuple[str, Any]]) -> Any:
    """The Keras optimizer that updates these variables, and its own ones."""
    optimizers = parse_optimizers(text).scaled()
    updated = [Updated(name, variable) for name, variable in variables]
    return build_optimizer([(optimizers.given[0], updated)], optimizers.loss_scale)


def model() -> Any:
    x = keras.Input((5,), name="x")
    h = keras.layers.Dense(6, name="fixed", trainable=False)(x)
    h = keras.layers.Dense(4, activation="tanh", name="hidden")(h)
    return keras.Model(x, keras.layers.Dense(3, name="last")(h), name="model")


def test_steps_that_overflow_are_left_out_as_in_fit(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    x = keras.Input((5,), name="x")
    h = keras.layers.Dense(6, activation="tanh", dtype="mixed_float16", name="half")(x)
    trained = keras.Model(x, keras.layers.Dense(3, dtype="float32", name="last")(h), name="model")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(8, 5)).astype(np.float32)
    targets = [rng.normal(size=(8, 3)).astype(np.float32), np.full((8, 3), 1e38, np.float32)]
    graphfreeze.export(trained, tmp_path / "model")
    text = "sgd:learning_rate=0.1,loss_scale=dynamic,loss_scale.initial_scale=128,loss_scale.dynamic_growth_steps=3"
    arguments: dict[str, Any] = {"loss": "mse", "optimizer": text, "endpoint": "train", "checks": "none"}
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [Selection("freeze", "half/bias")], **arguments)
    trained.get_layer("half").bias.trainable = False
    inner = keras.optimizers.SGD(0.1)
    scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=128.0, dynamic_growth_steps=3)
    trained.compile(scaled, "mse", jit_compile=False)
    trainer = Trainer(tmp_path / "out", device="cpu")
    scales = []
    for step in range(10):
        y = targets[step in (1, 2, 7)]
        expected = float(trained.train_on_batch(inputs, y))
        loss = trainer.step({"x": inputs, "y": y})
        assert loss == (expected if np.isinf(expected) else pytest.approx(expected, rel=2e-3))
        scales.append(float(scaled.dynamic_scale.numpy()))
        assert trainer.state_dict()["loss_scale/dynamic_scale"] == scales[-1]
    assert scales == [128, 64, 32, 32, 32, 64, 64, 32, 32, 32]
    for variable in trained.trainable_variables:
        np.testing.assert_allclose(trainer.weights()[variable.path], variable, rtol=2e-3, atol=2e-3)


def _without_decay(name: str = "AdamW") -> Any:
    made = getattr(keras.optimizers, name)(0.05, weight_decay=0.4)
    made.exclude_from_weight_decay(var_names=["bias", "gamma"])
    return made


@pytest.mark.parametrize(
    ("text", "optimizer"),
    [
        ("adafactor:learning_rate=0.05", lambda: keras.optimizers.Adafactor(0.05)),
        ("muon:learning_rate=0.02,exclude_layers=last", lambda: keras.optimizers.Muon(0.02, exclude_layers=["last"])),
        (
            "sgd:learning_rate=piecewise_constant_decay,learning_rate.boundaries=0/2,learning_rate.values=0.2/0.1/0.01",
            lambda: keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([0, 2], [0.2, 0.1, 0.01])),
        ),
        (
            "sgd:learning_rate=piecewise_constant_decay,learning_rate.boundaries=2,learning_rate.values=0.2/0.01",
            lambda: keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.2, 0.01])),
        ),
        (
            "adam:learning_rate=0.05,gradient_accumulation_steps=2,use_ema=true,ema_overwrite_frequency=3",
            lambda: keras.optimizers.Adam(0.05, gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=3),
        ),
        (
            "adam:learning_rate=0.05,loss_scale=dynamic,loss_scale.dynamic_growth_steps=2",
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05), dynamic_growth_steps=2),
        ),
        ("sgd:learning_rate=0.1,loss_scale_factor=64", lambda: keras.optimizers.SGD(0.1, loss_scale_factor=64.0)),
        ("sgd:learning_rate=1,momentum=0.5", lambda: keras.optimizers.SGD(1.0, momentum=0.5)),
        ("adamw:learning_rate=0.05,weight_decay=0.4,exclude_from_weight_decay=bias|gamma", _without_decay),
        ("lamb:learning_rate=0.05,weight_decay=0.4,exclude_from_weight_decay=bias", lambda: _without_decay("Lamb")),
    ],
    ids=[
        *(
            "adafactor",
            "muon",
            "schedule",
            "one boundary",
            "accumulation and averages",
            "dynamic scale",
            "fixed scale",
            "a whole rate",
        ),
        *("without decay", "without decay, one by one"),
    ],
)
def test_a_step_is_that_of_fit(text: str, optimizer: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    trained = model()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
    graphfreeze.export(trained, tmp_path / "model")
    arguments: dict[str, Any] = {"loss": "mse", "optimizer": text, "endpoint": "train", "checks": "none"}
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [Selection("freeze", "fixed/kernel")], **arguments)
    trainer = Trainer(tmp_path / "out", device="cpu")
    trained.compile(optimizer(), "mse", jit_compile=False)
    for _ in range(STEPS):
        expected = trained.train_on_batch(x, y)
        assert trainer.step({"x": x, "y": y}) == pytest.approx(float(expected), rel=5e-6)
    weights = trainer.weights()
    for variable in trained.trainable_variables:
        np.testing.assert_allclose(weights[variable.path], variable, rtol=2e-5, atol=2e-6, err_msg=variable.path)


def test_every_slot_says_whose_and_what_it_is() -> None:
    variables = [("layer/kernel", keras.Variable(np.ones((3, 2), np.float32)).value)]
    variables += [("layer/bias", keras.Variable(np.ones(2, np.float32)).value)]
    _, made = build("adafactor", variables)
    made = [v for v in made if v.variable.shape.rank or v.parameter != "layer/bias"]  # Keras' placeholders
    assert {(v.name, v.parameter) for v in made} == {
        ("adafactor/iteration", None),
        ("learning_rate", None),
        ("adafactor/layer/kernel/r", "layer/kernel"),
        ("adafactor/layer/kernel/c", "layer/kernel"),
        ("adafactor/layer/kernel/velocity", "layer/kernel"),
        ("adafactor/layer/bias/velocity", "layer/bias"),
    }


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_states_have_names_of_their_own(name: str, count: int) -> None:
    variables = [(f"layer/{n}", keras.Variable(np.ones((3, 2), np.float32)).value) for n in range(count)]
    optimizer, made = build(name, variables)
    names = [v.name for v in made]
    assert len(set(names)) == len(names)
    assert [v.name for v in made if v.parameter is None][:2] == [f"{name}/iteration", "learning_rate"]
    # Nodes of the step are named by it: it must not depend on what else the process made.
    assert optimizer.name == name


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_where_no_state_starts_at_the_values(name: str) -> None:
    states = []
    for value in (1.0, 2.0):
        variables = [("layer/kernel", keras.Variable(np.full((3, 2), value, np.float32)).value)]
        _, made = build(f"{name}:use_ema=true", variables)
        states.append([v.variable.numpy().tolist() for v in made])
    assert states[0] == states[1] or name not in STARTS_APART


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adam:learning_rate=cosine", "neither a number nor a schedule; nearest: cosine_decay"),
        ("adam:learning_rate=cosine_decay", "the learning rate schedule 'cosine_decay' does not take {}"),
        ("adam:learning_rate=0.1,learning_rate.decay_steps=3", "is an argument of a schedule: say which one"),
        ("adam:rate.decay_steps=3", "no argument 'rate.decay_steps'"),
        ("adam:loss_scale=always", "expected loss_scale=dynamic"),
        ("adam:loss_scale=dynamic,loss_scale_factor=8.0", "expected loss_scale=dynamic"),
        ("adam:loss_scale.initial_scale=8.0", "expected loss_scale=dynamic"),
        ("adam:loss_scale=dynamic,loss_scale.steps=8", "does not take"),
        ("adam:loss_scale_factor=-1", "expected a number > 0"),
    ],
)
def test_what_is_wrong_with_an_optimizer(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(text, [])


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    graphfreeze.export(model(), tmp_path / "model")
    arguments: dict[str, Any] = {"loss": "mse", "endpoint": "train", "checks": "none"}
    arguments["optimizer"] = "adamw:exclude_from_weight_decay=(bias"
    with pytest.raises(UsageError, match=r"exclude_from_weight_decay=\(bias is no regular expression"):
        graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [Selection("freeze", "fixed/kernel")], **arguments)


def test_a_pattern_is_not_searched_for_in_the_name_of_a_flat_state(tmp_path: Path) -> None:
    graphfreeze.export(model(), tmp_path / "model")
    arguments: dict[str, Any] = {"loss": "mse", "endpoint": "train", "checks": "none"}
    states = []
    for pattern in ("flat", "nowhere"):
        arguments["optimizer"] = f"adamw:weight_decay=0.5,exclude_from_weight_decay={pattern}"
        out = tmp_path / pattern
        graphfreeze.rewrite(tmp_path / "model", out, [Selection("freeze", "fixed/kernel")], **arguments)
        trainer = Trainer(out, device="cpu")
        trainer.step({"x": np.ones((2, 5), np.float32), "y": np.ones((2, 3), np.float32)})
        states.append({name: value.tobytes() for name, value in trainer.state_dict().items()})
    assert states[0] == states[1]
