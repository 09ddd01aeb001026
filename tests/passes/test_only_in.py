"""Freezing in some endpoints only: the others compute, train and look as before, in both loaders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.passes.fold import fold
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import call_all, frozen, make_plan, merge, run_session
from .models import Sample

Saved = Callable[[str], Path]
Array = npt.NDArray[Any]
SPEC = tf.TensorSpec([None, 2], tf.float32, name="x")
X = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)


@tf.function
def _product(x: Any, w: Any) -> Any:
    return tf.matmul(x, w)


class Shared(tf.Module):
    """A container that two models share: each trains it in a step of its own, through shared functions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="a")
        self.b = tf.Variable([[5.0, 6.0], [7.0, 8.0]], name="b")
        self.m = tf.Variable([[0.5, 0.5], [0.5, 0.5]], trainable=False, name="m")

    @tf.function(input_signature=[SPEC])
    def inner(self, x: Any) -> Any:
        return _product(x, self.a)

    @tf.function(input_signature=[SPEC])
    def outer(self, x: Any) -> Any:
        return _product(self.inner(x), self.b)

    def _step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.outer(x) ** 2)
        self.m.assign(self.m * 0.9 + tape.gradient(loss, self.a))
        self.a.assign_sub(0.001 * self.m)
        return loss

    @tf.function(input_signature=[SPEC])
    def first(self, x: Any) -> Any:
        return self._step(x)

    @tf.function(input_signature=[SPEC])
    def second(self, x: Any) -> Any:
        return self._step(x)


ENDPOINTS = ("inner", "outer", "first", "second")
CALLS = {"inner": lambda m: m.inner(X), "outer": lambda m: m.outer(X)}
SAMPLE = Sample(lambda path: None, CALLS, ("a",), {name: {"x": X} for name in ("inner", "outer")})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "model"
    module = Shared()
    tf.saved_model.save(module, str(path), signatures={name: getattr(module, name) for name in ENDPOINTS})
    return path


def scoped(path: Path, out: Path, only_in: tuple[str, ...], names: tuple[str, ...] = ("a",)) -> FreezePlan:
    model = SavedModel.load(path)
    plan = FreezePlan(make_plan(model, names, "blend", seed=3).variables, only_in)
    write(freeze_reads(model, plan), out)
    return plan


def functions(path: Path) -> dict[str, bytes]:
    proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    library = proto.meta_graphs[0].graph_def.library.function
    return {f.signature.name: f.SerializeToString(deterministic=True) for f in library}


@pytest.mark.parametrize("only_in", [("inner",), ("outer",), ("inner", "outer"), ("first",)])
def test_the_other_endpoints_compute_as_before(shared: Path, tmp_path: Path, only_in: tuple[str, ...]) -> None:
    plan = scoped(shared, tmp_path / "out", only_in)
    evidence = prove(shared, tmp_path / "out", plan)
    assert evidence["only_in"] == list(only_in)
    plain, merged = tf.saved_model.load(str(shared)), tf.saved_model.load(str(shared))
    merge(merged, plan)
    raw, held = call_all(plain, SAMPLE), call_all(merged, SAMPLE)
    sessions = run_session(shared, SAMPLE)
    found = call_all(tf.saved_model.load(str(tmp_path / "out")), SAMPLE)
    in_session = run_session(tmp_path / "out", SAMPLE)
    for key, value in found.items():
        inside = key.removeprefix("signature ").split()[0] in only_in
        assert value.tobytes() == (held if inside else raw)[key].tobytes(), key
        assert raw[key].tobytes() != held[key].tobytes()
    for key, value in in_session.items():
        inside = key.split()[1] in only_in
        assert value.tobytes() == (held if inside else sessions)[key].tobytes(), key


@pytest.mark.parametrize("only_in", ENDPOINTS)
def test_the_other_endpoints_are_byte_for_byte_as_before(shared: Path, tmp_path: Path, only_in: str) -> None:
    scoped(shared, tmp_path / "out", (only_in,))
    model = SavedModel.load(shared)
    reached: set[str] = set()
    pending = [f for e in model.endpoints if e.name != only_in for f in e.functions]
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            calls = [node.attr["f"].func.name for node in model.functions[name].node_def if "f" in node.attr]
            pending += [call for call in calls if call in model.functions]
    before, after = functions(shared), functions(tmp_path / "out")
    assert len(reached) >= 6
    assert {name: after[name] for name in reached} == {name: before[name] for name in reached}
    rewritten = SavedModel.load(tmp_path / "out")
    kept = [e for e in model.endpoints if e.name != only_in]
    assert kept == [e for e in rewritten.endpoints if e.name != only_in]


def test_one_model_trains_a_container_and_another_does_not(shared: Path, tmp_path: Path) -> None:
    model = SavedModel.load(shared)
    current = model.read(next(v for v in model.variables if v.name == "a"))
    mask = np.array([[True, False], [False, True]])
    plan = FreezePlan((frozen(model, "a", mask, current, "blend"),), ("first",))
    rewritten = freeze_reads(model, plan)
    assert {(u.name, u.endpoints) for u in rewritten.updates} == {
        (name, ("function first", "signature first")) for name in ("a", "m")
    }
    write(rewritten, tmp_path / "out")
    prove(shared, tmp_path / "out", plan)
    loaded, plain = tf.saved_model.load(str(tmp_path / "out")), tf.saved_model.load(str(shared))
    for _ in range(3):
        loaded.first(X)
    assert loaded.a.numpy()[~mask].tobytes() == current[~mask].tobytes()
    assert (loaded.m.numpy()[~mask] == 0.5).all()
    assert (loaded.a.numpy() != current)[mask].all()
    # The other step trains all of it, and what it wrote stays there in the first one.
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    for side in (loaded, plain):
        side.second(X)
    assert loaded.a.numpy().tobytes() == plain.a.numpy().tobytes() != current.tobytes()
    loaded.first(X)
    assert loaded.a.numpy()[~mask].tobytes() == plain.a.numpy()[~mask].tobytes()


def test_keras_exports_by_signature(saved: Saved, tmp_path: Path) -> None:
    """The endpoint `serve` and the signature of that name are chosen; `serving_default` calls the same functions."""
    plan = scoped(saved("dense"), tmp_path / "out", ("serve",), ("net/hidden/kernel",))
    prove(saved("dense"), tmp_path / "out", plan)
    x = np.ones((2, 4), np.float32)
    sample = Sample(
        lambda path: None, {"serve": lambda m: m.serve(x)}, (), {"serve": {"x": x}, "serving_default": {"x": x}}
    )
    original = call_all(tf.saved_model.load(str(saved("dense"))), sample)
    for found in (call_all(tf.saved_model.load(str(tmp_path / "out")), sample), run_session(tmp_path / "out", sample)):
        for key, value in found.items():
            assert (value.tobytes() == original[key].tobytes()) == ("serving_default" in key), key


def test_names_that_are_no_endpoints_are_refused(saved: Saved) -> None:
    model = SavedModel.load(saved("dense"))
    with pytest.raises(UsageError, match=r"no endpoint 'server' .*It has: serve, serving_default"):
        freeze_reads(model, FreezePlan((), ("serve", "server")))


def test_one_function_with_two_names_is_refused(tmp_path: Path) -> None:
    module = Shared()
    module.alias = module.inner
    tf.saved_model.save(module, str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    plan = make_plan(model, ("a",), "blend")
    with pytest.raises(UnsupportedError, match="function alias is the same function as one of inner"):
        freeze_reads(model, FreezePlan(plan.variables, ("inner",)))
    assert freeze_reads(model, FreezePlan(plan.variables, ("inner", "alias"))).reads


def test_custom_gradients(saved: Saved, tmp_path: Path) -> None:
    """A gradient of its own belongs to the endpoints that use it; one that several use cannot be frozen for one."""
    model = SavedModel.load(saved("custom_gradients"))
    plan = make_plan(model, ("a", "b"), "blend")
    for name in ("captured", "closed_over", "recomputed"):
        limited = FreezePlan(plan.variables, (name,))
        try:
            rewritten = freeze_reads(model, limited)
        except UnsupportedError as error:
            assert "custom gradient" in str(error) or "gradient function" in str(error) or "stands for it" in str(error)
            continue
        write(rewritten, tmp_path / name)
        prove(saved("custom_gradients"), tmp_path / name, limited)


def test_folding_needs_one_value_for_all(shared: Path, tmp_path: Path) -> None:
    content = shared / "saved_model.pb"
    plan = scoped(shared, tmp_path / "out", ("first",))
    with pytest.raises(UsageError, match=r"limited to first, and a .* holds other values"):
        fold(content, tmp_path / "out", plan, {}, tmp_path / "folded")
    model = SavedModel.load(shared)
    current = model.read(next(v for v in model.variables if v.name == "a"))
    plan = FreezePlan((frozen(model, "a", np.array([[True, False]]), current, "blend"),), ("first",))
    fold(content, tmp_path / "out", plan, {}, tmp_path / "folded")


def test_saving_twice_gives_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        scoped(shared, tmp_path / name, ("first",))
    shutil.rmtree(tmp_path / "one" / "variables")
    assert functions(tmp_path / "one") == functions(tmp_path / "two")
