"""Models with a training step of their own: frozen elements of weights, storage and slots stay, all others train."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.framework import function_pb2

from graphfreeze.checks.graph_optimizer import optimizer_option
from graphfreeze.passes.freeze_reads import RewrittenModel, freeze_reads
from graphfreeze.passes.freeze_updates import wait_for
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form, FreezePlan

from .harness import frozen
from .training_models import OPTIMIZERS, RAW, VARIABLES, Trained, save, steps

STEPS = 4
Array = npt.NDArray[Any]


def current_plan(model: SavedModel, form: Form = "blend") -> FreezePlan:
    """A plan that freezes half of the elements of each weight where they are."""
    make = np.random.default_rng(1)
    entries = []
    for name in VARIABLES:
        value = model.read(next(v for v in model.variables if v.name == name))
        mask = make.random(value.shape) > 0.5
        mask.reshape(-1)[:2] = [False, True]
        entries.append(frozen(model, name, mask, value, form))
    return FreezePlan(tuple(entries))


def handles(loaded: Any, model: SavedModel) -> dict[str, Any]:
    """The handles of all variables that the training step takes, slots too, by name: in the order of its captures."""
    (endpoint,) = (e for e in model.endpoints if e.label == "signature train")
    nodes = model.object_graph.concrete_functions[endpoint.functions[0]].bound_inputs
    captures = loaded.signatures["train"].captured_inputs
    assert len(nodes) == len(captures)
    named = zip(nodes, captures, strict=True)
    found = [(model.variables_by_node[node], capture) for node, capture in named if node in model.variables_by_node]
    # Adafactor keeps integers that have a weight's name.
    return {variable.name: capture for variable, capture in found if variable.dtype != "int32"}


def read(model: SavedModel, taken: dict[str, Any]) -> dict[str, Array]:
    """What is stored."""
    dtypes = {variable.name: variable.dtype for variable in model.variables if variable.dtype != "int32"}
    return {n: tf.raw_ops.ReadVariableOp(resource=h, dtype=dtypes[n]).numpy() for n, h in taken.items()}


def values(loaded: Any, model: SavedModel, count: int) -> dict[str, Array]:
    """What is stored after some steps."""
    steps(loaded, count)
    return read(model, handles(loaded, model))


def slots_by_hand(model: SavedModel, name: str) -> set[str]:
    """The slots of a weight: what has its shape, and is called after it."""
    shape = next(v.shape for v in model.variables if v.name == name)
    named = re.compile(rf"(^|/){name}(_0)?(/|_|$)")
    return {v.name for v in model.variables if v.name != name and v.shape == shape and named.search(v.name)}


def rewrite(module: Trained, path: Path, form: Form) -> tuple[SavedModel, FreezePlan, RewrittenModel]:
    model = SavedModel.load(save(module, path / "in"))
    plan = current_plan(model, form)
    rewritten = freeze_reads(model, plan)
    write(rewritten, path / "out")
    return model, plan, rewritten


@pytest.mark.parametrize("name", [*RAW, *OPTIMIZERS])
def test_frozen_elements_stay_in_storage_and_slots(tmp_path: Path, name: str) -> None:
    module = (RAW | OPTIMIZERS)[name]()
    model, plan, rewritten = rewrite(module, tmp_path, "select" if name in RAW else "blend")
    original, masked = (tf.saved_model.load(str(tmp_path / part)) for part in ("in", "out"))
    before, after = values(masked, model, 0), values(masked, model, STEPS)
    plainly = values(original, model, STEPS)
    for entry in plan.variables:
        weight = entry.variable.name
        slots = slots_by_hand(model, weight)
        assert slots or name in ("gradient descent", "Keras 3 clipping")
        assert slots == {u.name for u in rewritten.updates if u.of == entry.variable.object_path} - {weight}
        for key in [weight, *sorted(slots)]:
            held = ~entry.full_mask
            assert before[key][held].tobytes() == after[key][held].tobytes(), key
            assert (before[key] != plainly[key])[held].any(), f"{key} does not move in the original"
            assert (before[key] != after[key])[~held].any(), key


@pytest.mark.parametrize(
    "name",
    [
        *("keras momentum", "adam", "tf_keras Adam", "legacy Adam", "Keras 3 AdamW", "tf_keras RMSprop"),
        *("tf_keras Adagrad", "tf_keras Adamax", "Keras 3 RMSprop", "Keras 3 RMSprop with momentum", "Keras 3 Adagrad"),
        *("Keras 3 Adadelta", "Keras 3 accumulation", "Keras 3 accumulation with Adam"),
    ],
)
def test_trainable_elements_train_as_in_a_step_that_puts_frozen_ones_back(tmp_path: Path, name: str) -> None:
    model, plan, rewritten = rewrite((RAW | OPTIMIZERS)[name](), tmp_path, "blend")
    original, masked = (tf.saved_model.load(str(tmp_path / part)) for part in ("in", "out"))
    taken = handles(original, model)
    initial = read(model, taken)
    masks = {u.name: plan.find(u.of) for u in rewritten.updates}
    # TensorFlow's graph optimizer may fuse the two graphs differently, which makes other bits.
    with optimizer_option("disable_meta_optimizer", True):
        for _ in range(STEPS):
            steps(original, 1)
            steps(masked, 1)
            for key, value in read(model, taken).items():
                if key in masks and (entry := masks[key]) is not None:
                    kept = np.where(entry.full_mask, value, initial[key])
                    tf.raw_ops.AssignVariableOp(resource=taken[key], value=kept)
    expected, found = read(model, taken), read(model, handles(masked, model))
    assert expected.keys() == found.keys() >= masks.keys()
    for key, value in expected.items():
        assert value.tobytes() == found[key].tobytes(), key


def test_sessions_train_frozen(tmp_path: Path) -> None:
    _, plan, _ = rewrite(RAW["keras momentum"](), tmp_path, "blend")
    batch = {"x": np.ones((2, 3), np.float32), "i": [1, 3], "y": np.ones((2, 2), np.float32)}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "out"))
        handles = {n.attr["shared_name"].s.decode(): n.name for n in graph.as_graph_def().node if n.op == "VarHandleOp"}
        signature = meta_graph.signature_def["train"]

        def stored(name: str) -> Array:
            handle = graph.get_tensor_by_name(f"{handles[name]}:0")
            value: Array = session.run(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32))
            return value

        names = [name for name in handles if name.split("/")[0] in VARIABLES]
        before = {name: stored(name) for name in names}
        for _ in range(STEPS):
            feeds = {signature.inputs[key].name: value for key, value in batch.items()}
            session.run(signature.outputs["loss"].name, feeds)
        assert len(names) == 6
        for name in names:
            entry = next(v for v in plan.variables if v.variable.name == name.split("/")[0])
            after = stored(name)
            assert before[name][~entry.full_mask].tobytes() == after[~entry.full_mask].tobytes(), name
            assert (before[name] != after).any(), name


def test_every_control_output_waits_for_what_is_put_back() -> None:
    """Setting entries of a map that is being iterated over skipped some, in most functions with ten of them."""
    for attempt in range(50):
        names = [f"step/update_{attempt}_{k}" for k in range(10)]
        function = function_pb2.FunctionDef(control_ret={name: name for name in names})
        wait_for(function, {name: f"{name}/done" for name in names}, ())
        assert dict(function.control_ret) == {name: f"{name}/done" for name in names}


# -- what is no slot


class Neighbours(tf.Module):
    """Variables of one shape: one that trains, and others that its update reads."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable([1.0, 2.0, 3.0], name="v")
        names = ("slot", "shown", "mixed", "weight", "apart", "trained")
        self.others = [tf.Variable([0.5, 0.5, 0.5], trainable=name == "trained", name=name) for name in names]
        self.count = tf.Variable([0, 0, 0], trainable=False, name="count")

    @tf.function(input_signature=[tf.TensorSpec([3])])
    def train(self, x: Any) -> Any:
        slot, shown, mixed, weight, apart, trained = self.others
        slot.assign(slot * 0.9 + x)
        shown.assign(shown * 0.9 + x)
        mixed.assign(mixed * 0.9 + x)
        apart.assign(apart * 0.9 + x)
        trained.assign(trained * 0.9 + x)
        weight.assign_sub(x)
        self.count.assign_add([1, 1, 1])
        self.v.assign_sub(slot + shown + tf.reverse(mixed, [0]) + weight + trained + tf.cast(self.count, tf.float32))
        return tf.reduce_sum(x)

    @tf.function(input_signature=[tf.TensorSpec([3])])
    def show(self, x: Any) -> Any:
        return x * self.others[1] * self.others[3]


def test_only_slots_are_held(tmp_path: Path) -> None:
    tf.saved_model.save(Neighbours(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = FreezePlan((frozen(model, "v", np.array([True, False, True]), np.full(3, 2.0, np.float32), "blend"),))
    rewritten = freeze_reads(model, plan)
    assert {update.name for update in rewritten.updates} == {"v", "slot"}
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    loaded.train([1.0, 1.0, 1.0])
    assert loaded.v.numpy()[1] == 2.0
    held = [other.numpy()[1] == 0.5 for other in loaded.others]
    assert held == [True, False, False, False, False, False]
    assert loaded.count.numpy()[1] == 1
