"""Clipping by the norm of all gradients: frozen elements have no part in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import frozen
from .training_models import BATCH, OPTIMIZERS, X, save, steps


class Clipped(tf.Module):
    """A step that clips by the global norm; it also gives out the norms of a weight and of its gradient."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        self.w = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], name="w")
        self.b = tf.Variable([0.5, -0.5], name="b")
        self.optimizer = optimizer
        optimizer.build([self.w, self.b])

    @tf.function(input_signature=[X])
    def predict(self, x: Any) -> Any:
        return tf.tanh(tf.matmul(x, self.w) * 0.1 + self.b)

    @tf.function(input_signature=[X])
    def train(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.predict(x) ** 2)
        gradients = tape.gradient(loss, [self.w, self.b])
        self.optimizer.apply_gradients(zip(gradients, [self.w, self.b], strict=True))
        return {"decay": tf.nn.l2_loss(self.w), "norm": tf.nn.l2_loss(gradients[0])}


@pytest.mark.parametrize("sgd", [tf_keras.optimizers.SGD, keras.optimizers.SGD], ids=["tf_keras", "Keras 3"])
def test_frozen_elements_have_no_part_in_clipping(tmp_path: Path, sgd: Any) -> None:
    """What trains moves as in a step that is computed anew from the rewritten model."""
    tf.saved_model.save(Clipped(sgd(0.5, global_clipnorm=0.25)), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    mask = np.array([[True, False], [False, True], [False, False]])
    value = model.read(next(v for v in model.variables if v.name == "w"))
    plan = FreezePlan((frozen(model, "w", mask, value, "blend"),))
    rewritten = freeze_reads(model, plan)
    norms = {u.operation for u in rewritten.updates} & {"L2Loss", "Sum"}
    assert len(norms) == 1
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    loaded, original = (tf.saved_model.load(str(tmp_path / part)) for part in ("out", "in"))
    x = tf.constant([[1.0, -1.0, 0.5], [0.25, 2.0, -1.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.predict(x) ** 2)
    gradients = [g.numpy() for g in tape.gradient(loss, [loaded.w, loaded.b])]
    assert (gradients[0][~mask] == 0).all()
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    assert norm > 0.25
    expected = [v.numpy() - 0.5 * g * 0.25 / norm for v, g in zip((loaded.w, loaded.b), gradients, strict=True)]
    shown, before = loaded.train(x), original.train(x)
    np.testing.assert_allclose(loaded.w.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(loaded.b.numpy(), expected[1], rtol=1e-6)
    assert (np.abs(original.b.numpy() - loaded.b.numpy()) > 1e-4).all()
    # What is no norm to clip by stays as it is.
    assert shown["norm"] == before["norm"]
    # The prover finds a norm that is left unmasked.
    proto = saved_model_pb2.SavedModel.FromString((tmp_path / "out" / "saved_model.pb").read_bytes())
    library = proto.meta_graphs[0].graph_def.library.function
    (function,) = (f for f in library if f.signature.name in {u.function for u in rewritten.updates})
    nodes = {node.name: node for node in function.node_def}
    (norm,) = (n for n in nodes.values() if n.op in norms and f"{n.name}/graphfreeze/keep" in nodes)
    norm.input[0] = nodes[f"{norm.name}/graphfreeze/keep"].input[1]
    (tmp_path / "out" / "saved_model.pb").write_bytes(proto.SerializeToString(deterministic=True))
    with pytest.raises(VerificationError, match="expected the value that is written to be masked"):
        prove(tmp_path / "in", tmp_path / "out", plan)


def test_frozen_elements_of_a_sparse_gradient_have_no_part_in_clipping(tmp_path: Path) -> None:
    """Keras 3 sums up the squares of a sparse gradient's rows as they are, also where an index is there twice."""
    save(OPTIMIZERS["Keras 3 clipping"](), tmp_path / "in", trained=0)
    model = SavedModel.load(tmp_path / "in")
    mask = np.random.default_rng(2).random((5, 3)) > 0.5
    value = model.read(next(v for v in model.variables if v.name == "e"))
    plan = FreezePlan((frozen(model, "e", mask, value, "select"),))
    rewritten = freeze_reads(model, plan)
    assert [u.name for u in rewritten.updates if u.operation == "Sum"] == ["e"]
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    loaded, original = (tf.saved_model.load(str(tmp_path / part)) for part in ("out", "in"))
    weights = [loaded.w, loaded.b, loaded.e]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((loaded.predict(BATCH["x"], BATCH["i"])["output"] - BATCH["y"]) ** 2)
    gradients = tape.gradient(loss, weights)
    parts = [getattr(g, "values", g).numpy().astype(np.float64) for g in gradients]
    dense = [tf.convert_to_tensor(g).numpy() for g in gradients]
    assert (dense[2][~mask] == 0).all()
    norm = np.sqrt(sum((part**2).sum() for part in parts))
    assert norm > 0.01
    expected = [v.numpy() - 0.5 * g * 0.01 / norm for v, g in zip(weights, dense, strict=True)]
    steps(loaded, 1)
    steps(original, 1)
    for variable, numbers in zip(weights, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), numbers, rtol=1e-6)
    assert (loaded.e.numpy()[~mask] == value[~mask]).all()
    assert (np.abs(original.w.numpy() - loaded.w.numpy()) > 1e-5).any()
    # The prover finds a norm that is left unmasked.
    proto = saved_model_pb2.SavedModel.FromString((tmp_path / "out" / "saved_model.pb").read_bytes())
    (node,) = (
        node
        for function in proto.meta_graphs[0].graph_def.library.function
        for node in function.node_def
        if node.op == "Sum" and node.input[0] == f"{node.name}/graphfreeze/keep:output:0"
    )
    node.input[0] = f"{node.name}/input:output:0"
    (tmp_path / "out" / "saved_model.pb").write_bytes(proto.SerializeToString(deterministic=True))
    with pytest.raises(VerificationError, match="expected the value that is written to be masked"):
        prove(tmp_path / "in", tmp_path / "out", plan)


class Regularised(Clipped):
    """The same with a regulariser of the weight; the loss is given out."""

    def __init__(self, optimizer: Any, regulariser: Any) -> None:
        super().__init__(optimizer)
        self._regulariser = regulariser

    @tf.function(input_signature=[X])
    def train(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self.predict(x) ** 2) + self._regulariser(self.w)
        gradients = tape.gradient(loss, [self.w, self.b])
        self.optimizer.apply_gradients(zip(gradients, [self.w, self.b], strict=True))
        return {"loss": loss, "norm": tf.linalg.global_norm(gradients)}


@pytest.mark.parametrize("sgd", [tf_keras.optimizers.SGD, keras.optimizers.SGD], ids=["tf_keras", "Keras 3"])
@pytest.mark.parametrize(
    "regulariser", [keras.regularizers.L1(0.03), keras.regularizers.L2(0.1), keras.regularizers.L1L2(0.1, 0.2)]
)
def test_frozen_elements_of_a_regularised_weight_have_no_part_in_clipping(
    tmp_path: Path, sgd: Any, regulariser: Any
) -> None:
    tf.saved_model.save(Regularised(sgd(0.5, momentum=0.9, global_clipnorm=0.25), regulariser), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    mask = np.array([[True, False], [False, True], [False, False]])
    value = model.read(next(v for v in model.variables if v.name == "w"))
    plan = FreezePlan((frozen(model, "w", mask, value, "blend"),))
    rewritten = freeze_reads(model, plan)
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    x = tf.constant([[1.0, -1.0, 0.5], [0.25, 2.0, -1.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.predict(x) ** 2)
        loss += regulariser(loaded.w)
    gradients = [g.numpy() for g in tape.gradient(loss, [loaded.w, loaded.b])]
    gradients[0] *= mask
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    assert norm > 0.25
    expected = [v.numpy() - 0.5 * g * 0.25 / norm for v, g in zip((loaded.w, loaded.b), gradients, strict=True)]
    loaded.train(x)
    np.testing.assert_allclose(loaded.w.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(loaded.b.numpy(), expected[1], rtol=1e-6)
