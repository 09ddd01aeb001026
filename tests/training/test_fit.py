"""The training step of an exported model does what Keras' own fit does, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import graphfreeze
from graphfreeze import Selection, Trainer
from tests.training.models import EXAMPLES, data_for, everything, masked_sequence, two_outputs

BATCH_SIZE = 5  # the last of five batches has two examples
EPOCHS = 2
SGD = "sgd:learning_rate=0.05,momentum=0.9"

Arrays = Mapping[str, npt.NDArray[Any]]


def trainer_for(model: Any, directory: Path, losses: str | Sequence[str], optimizer: str, **options: Any) -> Trainer:
    """Export the model and rewrite its training endpoint; nothing that matters is frozen."""
    graphfreeze.export(model, directory / "model")
    selections = [Selection("freeze", f"{model.trainable_variables[0].path}[0, 0] := 0.25")]
    arguments: dict[str, Any] = {"loss": losses, "optimizer": optimizer, "endpoint": "train", "checks": "none"}
    graphfreeze.rewrite(directory / "model", directory / "out", selections, **arguments, **options)
    return Trainer(directory / "out", device="cpu")


class FreezeOneElement(keras.constraints.Constraint):
    """What the selection above does, in Keras."""

    def __call__(self, w: Any) -> Any:
        mask = np.zeros(w.shape, bool)
        mask[0, 0] = True
        return keras.ops.where(mask, np.float32(0.25), w)


def fit(model: Any, data: Arrays, targets: Any, weights: Any = None) -> tuple[list[float], list[list[Any]]]:
    """Keras' own fit over the batches in order: the loss of every batch, and the weights after it."""
    losses, states = [], []
    inputs = next(iter(data.values()))
    slices = [slice(start, start + BATCH_SIZE) for start in range(0, EXAMPLES, BATCH_SIZE)] * EPOCHS
    for part in slices:
        history = model.fit(
            inputs[part],
            keras.tree.map_structure(lambda target, part=part: target[part], targets),
            sample_weight=None if weights is None else weights[part],
            batch_size=BATCH_SIZE,
            shuffle=False,
            verbose=0,
        )
        losses.append(history.history["loss"][0])
        states.append([np.asarray(variable) for variable in model.variables if "metric" not in variable.path])
    return losses, states


def steps(trainer: Trainer, data: Arrays) -> tuple[list[float], list[dict[str, Any]]]:
    losses, states = [], []
    for _ in range(EPOCHS):
        for start in range(0, EXAMPLES, BATCH_SIZE):
            losses.append(trainer.step({name: array[start : start + BATCH_SIZE] for name, array in data.items()}))
            states.append(trainer.weights())
    return losses, states


def assert_equal(model: Any, trainer: Trainer, found: Any, expected: Any) -> None:
    """Equal up to rounding in float32, which a momentum and a few steps do not amplify; integers exactly."""
    np.testing.assert_allclose(found[0], expected[0], rtol=5e-6)
    entries = {entry.object_path: entry.name for entry in trainer.artifact.manifest.state if entry.object_path}
    variables = [variable for variable in model.variables if "metric" not in variable.path]
    names = [entries.get(f"variables/{index}") for index in range(len(variables))]
    assert set(names) >= set(entries.values())
    for ours, theirs in zip(found[1], expected[1], strict=True):
        for name, variable, value in zip(names, variables, theirs, strict=True):
            if name is None:
                continue  # what no step reads: an output without a loss
            if value.dtype.kind == "f":
                np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-6, err_msg=variable.path)
            else:
                np.testing.assert_array_equal(ours[name], value, err_msg=variable.path)


def constrained(model: Any) -> Any:
    first = model.trainable_variables[0]
    first.assign(FreezeOneElement()(first))
    first.constraint = FreezeOneElement()
    return model


def test_every_term_of_the_loss_and_every_random_mask(tmp_path: Path) -> None:
    """Regularisers, add_loss, dropout and noise bit for bit, batch statistics, a frozen element."""
    keras.utils.set_random_seed(1)
    model = everything()
    data = data_for(model)
    trainer = trainer_for(model, tmp_path, "mse", SGD)
    constrained(model).compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=False)
    prediction = model.predict(data["x"][:BATCH_SIZE], verbose=0)
    plain = float(np.mean((prediction - data["y"][:BATCH_SIZE]) ** 2))
    expected = fit(model, data, data["y"])
    assert_equal(model, trainer, steps(trainer, data), expected)
    # The mode and the terms matter: without them the loss would be another.
    assert abs(expected[0][0] - plain) > 0.1


def test_an_adaptive_optimizer(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    model = everything()
    data = data_for(model)
    trainer = trainer_for(model, tmp_path, "huber:delta=0.5", "adamw:learning_rate=0.01,weight_decay=0.1")
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    constrained(model).compile(optimizer, keras.losses.Huber(delta=0.5), jit_compile=False)
    losses, _ = fit(model, data, data["y"])
    np.testing.assert_allclose(steps(trainer, data)[0], losses, rtol=2e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the output without a loss
def test_several_outputs_with_weights_and_weighted_examples(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model = two_outputs()
    data = {**data_for(model), "sample_weight": np.random.default_rng(5).uniform(0, 3, EXAMPLES).astype(np.float32)}
    losses = ["value=mse:weight=0.3", "label=sparse_categorical_crossentropy:from_logits=true"]
    trainer = trainer_for(model, tmp_path, losses, SGD, sample_weight=True)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    constrained(model).compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        loss=["mse", crossentropy, None],
        loss_weights=[0.3, 1.0, None],
        jit_compile=False,
    )
    targets = [data["y.value"], data["y.label"]]
    before = trainer.gradients({name: array[:BATCH_SIZE] for name, array in data.items()})
    by_hand = np.mean((model(data["x"][:BATCH_SIZE])[0] - targets[0][:BATCH_SIZE]) ** 2, axis=-1)
    assert before.output_losses["value"] == pytest.approx(np.mean(by_hand * data["sample_weight"][:BATCH_SIZE]), 1e-5)
    found = steps(trainer, data)
    assert before.loss == pytest.approx(found[0][0], 1e-6)
    assert trainer.output_losses.keys() == before.output_losses.keys() == {"label", "value"}
    assert_equal(model, trainer, found, fit(model, data, targets, data["sample_weight"]))


def test_masks_reach_the_loss(tmp_path: Path) -> None:
    keras.utils.set_random_seed(4)
    model = masked_sequence()
    data = data_for(model)
    trainer = trainer_for(model, tmp_path, "mse", SGD)
    constrained(model).compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=False)
    losses, states = fit(model, data, data["y"])
    assert_equal(model, trainer, steps(trainer, data), (losses, states))


def test_frozen_layers_of_keras_stay_frozen(tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)
    model = everything()
    model.get_layer("norm").trainable = False
    model.get_layer("second").trainable = False
    data = data_for(model)
    trainer = trainer_for(model, tmp_path, "mse", SGD)
    assert [entry.name for entry in trainer.artifact.manifest.trainable_parameters] == [
        "first/bias",
        "first/kernel",
        "last/bias",
        "last/kernel",
    ]
    constrained(model).compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=False)
    assert_equal(model, trainer, steps(trainer, data), fit(model, data, data["y"]))
