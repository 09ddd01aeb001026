"""Noise that TensorFlow draws without a seed: by a seed of the artifact's own, and so distributed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.artifact import read_artifact
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.lowering.model import Lowerer
from graphfreeze.runtime.device import choose_device
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.noise import NOISE_SEED, draws_without_seed, seed_noise
from graphfreeze.validation.native_noise import NativeNoise, check_distribution, find_native_noise
from tests.lowering.conversion import session

COUNT = 4000
HALF = 4  # the index of what is drawn in float16


def traced(function: Callable[..., Any]) -> NamedGraph:
    concrete = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec((None, 4), tf.float32))
    return functionalise(concrete, ["x"], [f"result_{n}" for n in range(len(concrete.outputs))], {})


def everything(x: Any) -> list[Any]:
    shape = [tf.shape(x)[0], 4]
    return [
        tf.random.uniform(shape, 2.0, 5.0),
        tf.random.normal(shape, 1.0, 2.0),
        tf.random.truncated_normal(shape),
        tf.cast(tf.random.uniform(shape, 3, 9, tf.int32), tf.float32),
        tf.cast(tf.random.normal(shape, dtype=tf.float16), tf.float32),
        tf.random.uniform(shape, 2.0, 5.0),
    ]


def normal_below(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def test_the_numbers_have_the_distribution_and_are_tensorflows_for_the_seed() -> None:
    named = traced(everything)
    assert len(draws_without_seed(named)) == 6
    seed_noise(named, tf.Variable([7, 0], dtype=tf.int64))
    run = session(ir.to_proto(Lowerer().lower(named, "test")))
    x = np.zeros((COUNT // 4, 4), np.float32)

    def draw(step: int) -> list[npt.NDArray[Any]]:
        seed = np.array([7, step], np.int64)
        feeds = {"x": x, NOISE_SEED: seed}
        ours = run.run(None, {i.name: feeds[i.name] for i in run.get_inputs()})
        values = [tf.constant({"x": x, NOISE_SEED: seed}[name]) for name in named.inputs]
        for index, (mine, theirs) in enumerate(zip(ours, Interpreter(named.graph)(values), strict=True)):
            rounding = 1e-3 if index == HALF else 1e-6
            assert np.abs(mine - theirs.numpy()).max() <= rounding * np.abs(theirs.numpy()).max()
        assert ours[-1].tolist() == [7, step + 1]
        return [array.ravel() for array in ours[:-1]]

    uniform, normal, truncated, integers, half, second = draw(0)
    below: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "uniform": (np.sort(uniform), lambda v: (v - 2) / 3),
        "normal": (np.sort(normal), lambda v: normal_below((v - 1) / 2)),
        "half": (np.sort(half), normal_below),
        "truncated": (np.sort(truncated), lambda v: (normal_below(v) - 0.02275) / 0.9545),
    }
    for name, (values, distribution) in below.items():
        # After Kolmogorov and Smirnov: larger once in a thousand draws.
        assert np.abs(distribution(values) - (np.arange(COUNT) + 0.5) / COUNT).max() < 1.95 / COUNT**0.5, name
    assert np.abs(np.bincount(integers.astype(int), minlength=9)[3:] - COUNT / 6).max() < 4 * (COUNT / 6) ** 0.5
    assert abs(np.corrcoef(uniform, second)[0, 1]) < 4 / COUNT**0.5
    assert not np.array_equal(uniform, draw(1)[0])


def test_classes_are_drawn_by_their_logits() -> None:
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.3, 1e-30, 1e-30]], np.float32)) + 5

    def draw(x: Any) -> list[Any]:
        half = tf.random.categorical(tf.cast(x, tf.float16), 3, tf.int32)
        return [tf.random.categorical(x, COUNT), half]

    named = traced(draw)
    assert len(draws_without_seed(named)) == 2
    seed_noise(named, tf.Variable([7, 0], dtype=tf.int64))
    feeds = {"x": logits, NOISE_SEED: np.array([7, 5], np.int64)}
    run = session(ir.to_proto(Lowerer().lower(named, "test")))
    ours = run.run(None, {i.name: feeds[i.name] for i in run.get_inputs()})
    theirs = Interpreter(named.graph)([tf.constant(feeds[name]) for name in named.inputs])
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, expected.numpy())
    assert [drawn.dtype for drawn in ours] == [np.int64, np.int32, np.int64]
    for row, chances in zip(ours[0], np.exp(logits - 5), strict=True):
        counts = np.bincount(row, minlength=4)
        assert np.abs(counts - COUNT * chances).max() < 4 * (COUNT / 4) ** 0.5


def test_noise_in_loops_and_branches_is_another_in_each_iteration() -> None:
    def loop(x: Any) -> list[Any]:
        def body(i: Any, rows: Any, total: Any) -> Any:
            drawn = tf.random.normal([4])
            more = tf.cond(tf.reduce_sum(total) > 1e9, lambda: drawn, lambda: tf.random.uniform([4]))
            return i + 1, rows.write(i, tf.concat([drawn, more], 0)), total + drawn

        _, rows, total = tf.while_loop(lambda i, *_: i < 3, body, (0, tf.TensorArray(tf.float32, 3), x[0]))
        return [rows.stack(), total, tf.random.normal([4])]

    named = traced(loop)
    assert len(draws_without_seed(named)) == 3
    seed_noise(named, tf.Variable([7, 0], dtype=tf.int64))
    feeds = {"x": np.zeros((2, 4), np.float32), NOISE_SEED: np.array([7, 5], np.int64)}
    run = session(ir.to_proto(Lowerer().lower(named, "test")))
    ours = run.run(None, {i.name: feeds[i.name] for i in run.get_inputs()})
    theirs = Interpreter(named.graph)([tf.constant(feeds[name]) for name in named.inputs])
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected.numpy(), rtol=1e-5, atol=1e-5)
    drawn = np.concatenate([ours[0].ravel(), ours[2]])
    assert len(np.unique(drawn)) == drawn.size


class Noisy(tf.Module):
    """Dropout as Keras 2 has it, before and behind a product."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Any = tf.Variable(np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4), name="kernel")
        self.head = tf.Variable(np.linspace(1, -1, 8, dtype=np.float32).reshape(4, 2), name="head")

    @tf.function(input_signature=[tf.TensorSpec((None, 5), tf.float32, name="x")])
    def train(self, x: Any) -> Any:
        h = tf.nn.dropout(x, 0.4) @ self.kernel
        return tf.nn.dropout(tf.tanh(h), 0.3) @ self.head + 0.0 * tf.random.normal([1])


def test_a_model_with_noise_trains_and_every_check_passes(tmp_path: Path) -> None:
    tf.saved_model.save(Noisy(), str(tmp_path / "model"))
    report = graphfreeze.rewrite(
        tmp_path / "model",
        tmp_path / "out",
        [Selection("freeze", "head[0]")],
        loss="mse",
        endpoint="train",
        optimizer="sgd:learning_rate=0.0",
        seed=3,
    )
    assert len(report["training"]["drawn_without_seed"]) == 3
    trainer = Trainer(tmp_path / "out", device="cpu")
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(8, 5)).astype(np.float32), "y": rng.normal(size=(8, 2)).astype(np.float32)}
    losses = [trainer.step(batch) for _ in range(3)]
    assert len(set(losses)) == 3
    assert trainer.state_dict()[NOISE_SEED].tolist() == [3, 3]
    again = Trainer(tmp_path / "out", device="cpu")
    assert [again.step(batch) for _ in range(3)] == losses


class Drawing(tf.Module):
    """Noise by a seed of the model's own, of every distribution, without which nothing changes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Any = tf.Variable(np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4), name="kernel")
        self.seed = tf.Variable([1, 2], dtype=tf.int32, trainable=False, name="seed")

    @tf.function(input_signature=[tf.TensorSpec((None, 5), tf.float32, name="x")])
    def train(self, x: Any) -> Any:
        seed = self.seed.read_value()
        self.seed.assign_add([0, 1])
        kept = tf.random.stateless_uniform(tf.shape(x), seed) >= 0.3
        h = tf.where(kept, x / 0.7, 0.0) @ self.kernel
        h += 0.1 * tf.random.stateless_normal(tf.shape(h), seed + 1)
        return h * (1.0 + 0.1 * tf.random.stateless_truncated_normal([4], seed + 2))


def test_noise_of_the_device_is_checked_by_distribution_and_at_given_noise(tmp_path: Path) -> None:
    tf.saved_model.save(Drawing(), str(tmp_path / "model"))
    selections = [Selection("freeze", "kernel[0]")]
    arguments: dict[str, Any] = {"loss": "mse", "endpoint": "train", "noise": "native"}
    report = graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", selections, **arguments)
    assert report["training"]["noise"] == "native"
    validation = next(check for check in report["checks"] if check["name"] == "validation")["evidence"]
    messages = {check["name"]: check["message"] for check in validation["checks"]}
    found = messages["noise of the device has TensorFlow's distribution"]
    assert found.startswith("3 draws: ") and all(kind in found for kind in ("1 uniform", "1 normal", "1 truncated"))
    assert "train_step equals gradients and apply_gradients" in messages
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(8, 5)).astype(np.float32), "y": rng.normal(size=(8, 4)).astype(np.float32)}
    trainer = Trainer(tmp_path / "out", device="cpu")
    assert len({trainer.step(batch) for _ in range(3)}) == 3


def test_wrong_noise_is_found(tmp_path: Path) -> None:
    tf.saved_model.save(Drawing(), str(tmp_path / "model"))
    selections = [Selection("freeze", "kernel[0]")]
    graphfreeze.rewrite(
        tmp_path / "model", tmp_path / "out", selections, loss="mse", endpoint="train", noise="native", checks="none"
    )
    artifact = read_artifact(tmp_path / "out")
    device = choose_device("cpu")
    noise = find_native_noise(artifact, device)
    assert noise is not None
    values = {**artifact.state, "x": np.zeros((500, 5), np.float32), "y": np.zeros((500, 4), np.float32)}
    assert check_distribution(noise, values).passed
    other = {"uniform": "normal", "normal": "uniform", "truncated normal": "truncated normal"}
    wrong = NativeNoise(artifact, device, {name: other[kind] for name, kind in noise.kinds.items()})
    message = check_distribution(wrong, values).message
    assert "is not normal" in message and "is not uniform" in message
