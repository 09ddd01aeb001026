"""Models with a training step of their own: frozen elements of weights, storage and slots stay, all others train."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.passes.freeze_reads import RewrittenModel, freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form, FreezePlan

from .harness import frozen
from .training_models import OPTIMIZERS, RAW, VARIABLES, Trained, X, save, steps

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
    return {model.variables_by_node[node].name: capture for node, capture in named if node in model.variables_by_node}


def read(model: SavedModel, taken: dict[str, Any]) -> dict[str, Array]:
    """What is stored."""
    dtypes = {variable.name: variable.dtype for variable in model.variables}
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
        assert slots or name == "gradient descent"
        assert slots == {u.name for u in rewritten.updates if u.of == entry.variable.object_path} - {weight}
        for key in [weight, *sorted(slots)]:
            held = ~entry.full_mask
            assert before[key][held].tobytes() == after[key][held].tobytes(), key
            assert (before[key] != plainly[key])[held].any(), f"{key} does not move in the original"
            assert (before[key] != after[key])[~held].any(), key


@pytest.mark.parametrize("name", ["keras momentum", "adam", "tf_keras Adam", "legacy Adam", "Keras 3 AdamW"])
def test_trainable_elements_train_as_in_a_step_that_puts_frozen_ones_back(tmp_path: Path, name: str) -> None:
    model, plan, rewritten = rewrite((RAW | OPTIMIZERS)[name](), tmp_path, "blend")
    original, masked = (tf.saved_model.load(str(tmp_path / part)) for part in ("in", "out"))
    taken = handles(original, model)
    initial = read(model, taken)
    masks = {u.name: plan.find(u.of) for u in rewritten.updates}
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


# -- each operation that writes, on its own


def _scatter(operation: Callable[..., Any], key: str = "resource") -> Callable[[Any, Any], None]:
    def write_rows(v: Any, x: Any) -> None:
        indices = tf.constant([2, 0, 2]) if key == "resource" else tf.constant([[2, 0], [0, 1], [2, 0]])
        operation(**{key: v.handle}, indices=indices, updates=x if key == "resource" else x[:, 0])

    return write_rows


WRITES: dict[str, Callable[[Any, Any], None]] = {
    "AssignVariableOp": lambda v, x: v.assign(x * 3.0),
    "AssignAddVariableOp": lambda v, x: v.assign_add(x),
    "AssignSubVariableOp": lambda v, x: v.assign_sub(x),
    **{
        f"ResourceScatter{end}": _scatter(getattr(tf.raw_ops, f"ResourceScatter{end}"))
        for end in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Update")
    },
    **{
        f"ResourceScatterNd{end}": _scatter(getattr(tf.raw_ops, f"ResourceScatterNd{end}"), "ref")
        for end in ("Add", "Sub", "Min", "Max", "Update")
    },
}


class Written(tf.Module):
    """A variable that a function writes in one way, twice in a row, and in a loop."""

    def __init__(self, write_it: Callable[[Any, Any], None], initial: Array) -> None:
        super().__init__()
        self.v = tf.Variable(initial, name="v")
        self._write = write_it

    @tf.function(input_signature=[tf.TensorSpec([3, 2])])
    def change(self, x: Any) -> Any:
        self._write(self.v, x)
        for _ in tf.range(2):
            self._write(self.v, tf.cast(x * 2.0, self.v.dtype))
        return tf.reduce_sum(x)


MASKS = {
    "elements": np.array([[True, False], [False, True], [False, False]]),
    "rows": np.array([[False], [True], [True]]),
    "columns": np.array([[True, False]]),
    "whole": np.array([[False]]),
}


# A mask that is the same for all rows, or for all elements, takes another way where rows and elements are written.
@pytest.mark.parametrize(
    ("operation", "mask"),
    [(operation, mask) for operation in WRITES for mask in (MASKS if "Update" in operation else ["elements"])],
)
def test_each_way_to_write(tmp_path: Path, operation: str, mask: str) -> None:
    initial = np.array([[-0.0, 2.0], [np.inf, -4.0], [0.5, -0.0]], np.float32)
    tf.saved_model.save(Written(WRITES[operation], initial), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    entry = frozen(model, "v", MASKS[mask], initial, "select")
    rewritten = freeze_reads(model, FreezePlan((entry,)))
    assert {update.operation for update in rewritten.updates} == {operation}
    write(rewritten, tmp_path / "out")
    original, masked = tf.saved_model.load(str(tmp_path / "in")), tf.saved_model.load(str(tmp_path / "out"))
    x = tf.constant([[1.0, -2.5], [3.0, 4.0], [-7.0, 0.25]])
    for loaded in (original, masked):
        loaded.change(x)
        loaded.change(x)
    expected = np.where(entry.full_mask, original.v.numpy(), initial)
    assert masked.v.numpy().tobytes() == expected.tobytes()
    if mask == "whole" and operation != "ResourceScatterMax":
        assert original.v.numpy().tobytes() != initial.tobytes()


def test_what_is_written_may_depend_on_what_is_read(tmp_path: Path) -> None:
    """Another value is frozen than what is stored: reads yield it, and storage keeps what it held."""

    class Decaying(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = tf.Variable([1.0, 2.0, 3.0], name="v")

        @tf.function(input_signature=[])
        def decay(self) -> Any:
            self.v.assign(self.v * 0.5)
            self.v.assign(self.v + 1.0)
            return self.v.read_value()

    tf.saved_model.save(Decaying(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = FreezePlan((frozen(model, "v", np.array([True, False, True]), np.full(3, 8.0, np.float32), "blend"),))
    write(freeze_reads(model, plan), tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert loaded.decay().numpy().tolist() == [1.5, 8.0, 2.5]
    assert loaded.v.numpy().tolist() == [1.5, 2.0, 2.5]


def test_integers_are_written(tmp_path: Path) -> None:
    class Counting(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = tf.Variable([1, 2, 3], name="v")

        @tf.function(input_signature=[])
        def count(self) -> Any:
            self.v.assign_add([1, 1, 1])
            self.v.scatter_nd_sub([[0], [1]], [5, 5])
            return self.v.read_value()

    tf.saved_model.save(Counting(), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = FreezePlan((frozen(model, "v", np.array([True, False, True]), np.array([0, 2, 0], np.int32), "select"),))
    write(freeze_reads(model, plan), tmp_path / "out")
    assert tf.saved_model.load(str(tmp_path / "out")).count().numpy().tolist() == [-3, 2, 4]


# -- what is no slot


class Neighbours(tf.Module):
    """Variables of one shape: one that trains, and others that its update reads."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable([1.0, 2.0, 3.0], name="v")
        names = ("slot", "shown", "mixed", "weight", "apart")
        self.others = [tf.Variable([0.5, 0.5, 0.5], name=name) for name in names]

    @tf.function(input_signature=[tf.TensorSpec([3])])
    def train(self, x: Any) -> Any:
        slot, shown, mixed, weight, apart = self.others
        slot.assign(slot * 0.9 + x)
        shown.assign(shown * 0.9 + x)
        mixed.assign(mixed * 0.9 + x)
        apart.assign(apart * 0.9 + x)
        weight.assign_sub(x)
        self.v.assign_sub(slot + shown + tf.reverse(mixed, [0]) + weight)
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
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    loaded.train([1.0, 1.0, 1.0])
    assert loaded.v.numpy()[1] == 2.0
    held = [other.numpy()[1] == 0.5 for other in loaded.others]
    assert held == [True, False, False, False, False]


# -- clipping by the norm of all gradients


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


def test_frozen_elements_have_no_part_in_clipping(tmp_path: Path) -> None:
    """What trains moves as in a step that is computed anew from the rewritten model."""
    tf.saved_model.save(Clipped(tf_keras.optimizers.SGD(0.5, global_clipnorm=0.25)), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    mask = np.array([[True, False], [False, True], [False, False]])
    value = model.read(next(v for v in model.variables if v.name == "w"))
    plan = FreezePlan((frozen(model, "w", mask, value, "blend"),))
    rewritten = freeze_reads(model, plan)
    norms = {u.operation for u in rewritten.updates} & {"L2Loss", "Square"}
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
    (norm,) = (n for n in nodes.values() if n.op == "L2Loss" and f"{n.name}/graphfreeze/keep" in nodes)
    norm.input[0] = nodes[f"{norm.name}/graphfreeze/keep"].input[1]
    (tmp_path / "out" / "saved_model.pb").write_bytes(proto.SerializeToString(deterministic=True))
    with pytest.raises(VerificationError, match="expected the value that is written to be masked"):
        prove(tmp_path / "in", tmp_path / "out", plan)
