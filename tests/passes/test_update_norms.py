"""Optimizers that take norms of what they update a weight with: frozen elements have no part in these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.checks.graph_optimizer import optimizer_option
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import frozen
from .test_updates import handles, read, rewrite
from .training_models import BATCH, OPTIMIZERS, VARIABLES, steps


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("Keras 3 Lamb", {"w": 1, "b": 1, "e": 1}),
        # Of matrices also the means of squares that the factored slots take, one for rows and one for columns.
        ("Keras 3 Adafactor", {"w": 3, "b": 1, "e": 3}),
        ("Keras 3 Adafactor, dense", {"w": 3, "b": 1, "e": 3}),
        ("clipping by the global norm", {"w": 1, "b": 1, "e": 1}),
        ("clipping of each", {"w": 1, "b": 1, "e": 1}),
        ("tf_keras clipping", {"w": 1, "b": 1, "e": 1}),
        ("Keras 3 accumulation with clipping", {"w": 1, "b": 1, "e": 1}),
        ("Keras 3 clipping of each", {"w": 1, "b": 1, "e": 1}),
        ("trust ratio", {"w": 1, "b": 1, "e": 1}),
        ("Keras 3 loss scale", {"w": 1, "b": 1, "e": 1}),
        ("Keras 3 loss scale with Adam", {"w": 1, "b": 1, "e": 1}),
        ("clipping in a function", {"w": 2, "b": 2, "e": 2}),
        # Muon takes matrices alone, and the norm of a matrix that it transposes after the mask.
        ("Keras 3 Muon", {"w": 0, "b": 0, "e": 0}),
        ("Keras 3 Muon, plain", {"w": 1, "b": 1, "e": 1}),
    ],
)
def test_frozen_elements_have_no_part_in_norms(tmp_path: Path, name: str, norms: dict[str, int]) -> None:
    """What trains moves as in a step without gradients and slots of frozen elements, though theirs are not zero."""
    module = OPTIMIZERS[name]()
    model, plan, rewritten = rewrite(module, tmp_path, "blend")
    sums = [u.name for u in rewritten.updates if u.operation in ("Sum", "Mean", "L2Loss")]
    assert {key: sums.count(key) for key in VARIABLES} == norms
    prove(tmp_path / "in", tmp_path / "out", plan)
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    masks = {u.name: plan.find(u.of) for u in rewritten.updates}
    held = {key: entry.full_mask for key, entry in masks.items() if entry is not None}
    variables = {key: variable for key, variable in _variables(module).items() if key in held}
    assert variables.keys() == held.keys()
    values = {key: variables[key].numpy() for key in VARIABLES}
    for key in held.keys() - set(VARIABLES):
        assert (variables[key].numpy()[~held[key]] != 0).any(), key
        variables[key].assign(np.where(held[key], variables[key].numpy(), 0))
    # Neither has the weight decay of frozen elements.
    module.decays = [0.01 * held[key] for key in VARIABLES]
    with optimizer_option("disable_meta_optimizer", True):
        for _ in range(4):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((loaded.predict(BATCH["x"], BATCH["i"])["output"] - BATCH["y"]) ** 2)
            gradients = tape.gradient(loss, [getattr(loaded, key) for key in VARIABLES])
            for key, gradient in zip(VARIABLES, gradients, strict=True):
                assert (tf.convert_to_tensor(gradient).numpy()[~held[key]] == 0).all()
            module._minimise(gradients, module.weights)
            for key, value in values.items():
                variables[key].assign(np.where(held[key], variables[key].numpy(), value))
            steps(loaded, 1)
            found = read(model, handles(loaded, model))
            for key, mask in held.items():
                expected = variables[key].numpy()
                np.testing.assert_allclose(found[key][mask], expected[mask], rtol=1e-5, atol=1e-7, err_msg=key)


class Calibration(tf.Module):
    """Weights that are applied element by element, and rows that are moved towards data; losses decide about steps."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = tf.Variable([0.5, 1.0, 1.5], name="gain")
        self.offset = tf.Variable([0.0, 0.0, 0.0], name="offset")
        self.code = tf.Variable(tf.reshape(tf.range(12.0), [4, 3]), name="code")

    @tf.function(input_signature=[tf.TensorSpec([3]), tf.TensorSpec([None], tf.int32)])
    def train(self, x: Any, i: Any) -> Any:
        residual = self.gain * x + self.offset - 2.0
        distance = tf.gather(tf.convert_to_tensor(self.code), i) - x
        losses = tf.reduce_sum(residual**2), tf.reduce_sum(tf.reduce_sum(tf.square(distance), 1))
        self.gain.assign_sub(tf.where(losses[0] < 4.0, 0.1, 0.2) * residual * x)
        self.offset.assign_sub(tf.where(losses[0] < 4.0, 0.1, 0.2) * residual)
        self.code.scatter_sub(tf.IndexedSlices(tf.where(losses[1] < 90.0, 0.1, 0.2) * distance, i))
        return losses


def test_losses_and_weights_of_their_own_stay_as_they_are(tmp_path: Path) -> None:
    tf.saved_model.save(Calibration(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    masks = {"offset": np.array([False, True, True]), "code": np.arange(12).reshape(4, 3) > 5}
    values = {name: model.read(next(v for v in model.variables if v.name == name)) for name in masks}
    plan = FreezePlan(tuple(frozen(model, name, mask, values[name], "blend") for name, mask in masks.items()))
    rewritten = freeze_reads(model, plan)
    assert [update.operation for update in rewritten.updates] == ["AssignSubVariableOp", "ResourceScatterSub"]
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    original, loaded = (tf.saved_model.load(str(tmp_path / part)) for part in ("in", "out"))
    for _ in range(3):
        batch = tf.constant([0.5, 1.0, -2.0]), tf.constant([0, 1, 3])
        np.testing.assert_allclose(original.train(*batch), loaded.train(*batch), rtol=1e-6)
        for name, mask in masks.items():
            variable = getattr(original, name)
            variable.assign(np.where(mask, variable.numpy(), values[name]))
        for name in ("gain", "offset", "code"):
            np.testing.assert_allclose(getattr(loaded, name), getattr(original, name), rtol=1e-6, err_msg=name)


def _variables(module: Any) -> dict[str, Any]:
    """All variables of a module by the names that they have in its SavedModel."""
    slots = module.optimizer.variables if hasattr(module, "optimizer") else [*module.m, *getattr(module, "v", ())]
    named = [(getattr(v, "path", None) or v.name.removesuffix(":0"), v) for v in slots]
    return {key: v for key, v in named if v.dtype != "int32"} | {key: getattr(module, key) for key in VARIABLES}
