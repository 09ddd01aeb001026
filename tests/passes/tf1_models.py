"""SavedModels as TensorFlow 1 writes them: a graph that a session runs, its variables nodes of it, and no objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

v1 = tf.compat.v1
Array = npt.NDArray[Any]

BATCH: dict[str, Array] = {
    "x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4),
    "i": np.array([0, 1, 2, 2, 4, 1]),
}

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: v1.train.GradientDescentOptimizer(0.1),
    "momentum": lambda: v1.train.MomentumOptimizer(0.1, 0.9),
    "adam": lambda: v1.train.AdamOptimizer(0.05),
    "adagrad": lambda: v1.train.AdagradOptimizer(0.1),
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.05, momentum=0.5, centered=True),
    "ftrl": lambda: v1.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
    "adadelta": lambda: v1.train.AdadeltaOptimizer(1.0),
}


def save_graph(path: Path, build: Callable[[], tuple[dict[str, Any], dict[str, Any]]], *, warm: int = 0) -> Path:
    """Build a graph, initialise it, maybe run its operation `train`, and save it."""
    with v1.Graph().as_default(), v1.Session() as session:
        v1.set_random_seed(1)
        inputs, outputs = build()
        session.run(v1.global_variables_initializer())
        for _ in range(warm):
            session.run("train", {f"{name}:0": BATCH[name] for name in inputs})
        v1.saved_model.simple_save(session, str(path), inputs, outputs)
    return path


def save_model(path: Path, *, resource: bool, optimizer: str = "momentum", warm: int = 0) -> Path:
    """A model of an embedding, a matrix and a bias, with `train`, an operation that makes one step."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x, i = v1.placeholder(tf.float32, [None, 4], "x"), v1.placeholder(tf.int64, [None], "i")
        with v1.variable_scope("m", use_resource=resource):
            w = v1.get_variable("w", [4, 3])
            e = v1.get_variable("e", [5, 3])
            b = v1.get_variable("b", [3], initializer=v1.zeros_initializer())
        y = tf.identity(x @ w + tf.nn.embedding_lookup(e, i) + b, name="y")
        step = OPTIMIZERS[optimizer]().minimize(v1.reduce_sum(v1.square(y - 1.0)), v1.train.get_or_create_global_step())
        tf.group(step, name="train")
        return {"x": x, "i": i}, {"y": y}

    return save_graph(path, build, warm=warm)


class Session:
    """A model that the loader of TensorFlow 1 loaded, with its variables."""

    def __init__(self, path: Path, tags: tuple[str, ...] = ("serve",)) -> None:
        self._graph = v1.Graph()
        self._session = v1.Session(graph=self._graph)
        with self._graph.as_default():
            self._meta_graph = v1.saved_model.loader.load(self._session, list(tags), str(path))
            self._variables = {variable.op.name: variable for variable in v1.global_variables()}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def run(self, fetch: Any, batch: dict[str, Array] | None = None) -> Any:
        """Run a tensor or an operation by name."""
        feed = {f"{name}:0": value for name, value in (BATCH if batch is None else batch).items()}
        found = self._session.run(fetch, feed)
        return None if found is None else np.array(found)

    def stored(self) -> dict[str, Array]:
        """All variables by name, as they are stored."""
        with self._graph.as_default():
            # Copies: what is fetched of a reference is its memory.
            return {name: np.array(self._session.run(variable)) for name, variable in self._variables.items()}

    def save(self, prefix: Path) -> str:
        """Save with a saver of its own."""
        with self._graph.as_default():
            return str(v1.train.Saver().save(self._session, str(prefix)))

    def run_saver(self, prefix: Path) -> str:
        """Save with the model's own saver."""
        saver = self._meta_graph.saver_def
        self._session.run(saver.save_tensor_name, {saver.filename_tensor_name: str(prefix)})
        return str(prefix)

    def outputs(self, signature: str = "serving_default") -> dict[str, str]:
        """The tensors that a signature gives out, by name."""
        return {name: info.name for name, info in self._meta_graph.signature_def[signature].outputs.items()}

    def assigner(self, names: Sequence[str]) -> Callable[[str, Array], None]:
        """What overwrites variables."""
        with self._graph.as_default():
            values = {name: v1.placeholder(tf.float32, self._variables[name].shape) for name in names}
            assigns = {name: v1.assign(self._variables[name], value) for name, value in values.items()}
        return lambda name, value: self._session.run(assigns[name].op, {values[name]: value})
