"""Runs the original and the rewritten model of TensorFlow 1 side by side, each in a session: outputs and gradients.

`tf.saved_model.load` hides most variables of such a model, and cannot load signatures that give out references. A
session has everything.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from graphfreeze.checks.behaviour import compare_gradients, compare_outputs, conclude
from graphfreeze.checks.updates import STEPS, conclude_updates, held_record
from graphfreeze.errors import CheckFailedError
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.batch import random_inputs
from graphfreeze.training.endpoint import TensorEntry

__all__ = ["check_sessions"]

_BATCH_SIZE = 8
_NO_GRADIENTS = (LookupError, ValueError, TypeError, tf.errors.OpError)

Array = npt.NDArray[Any]
Report = dict[str, Any]

v1 = tf.compat.v1


def check_sessions(
    source: SavedModel,
    rewritten: Path,
    plan: FreezePlan,
    updated: Mapping[str, Mapping[str, str]],
    *,
    seed: int = 0,
) -> list[Report]:
    """Compare every signature that can be called with random dense tensors.

    The original gets the plan's frozen values first. Its outputs must then be the rewritten model's, bit for bit, and
    so must the gradients of the sum of squared outputs at trainable elements; at frozen ones they must be zero.
    Signatures that update what is frozen are run in the rewritten model alone: there it must stay as it is stored.

    Args:
        source: The original.
        rewritten: The rewritten SavedModel.
        plan: What is frozen.
        updated: By signature, the object paths of the variables and slots that it updates, each with the object path of
            the targeted variable whose mask holds.
        seed: Where random inputs come from.

    Returns:
        Checks for the report: outputs, gradients, and updates where there are any.

    Raises:
        CheckFailedError: Something differs; `details` holds what and by how much.
    """
    batches: dict[str, dict[str, Array]] = {}
    skipped: list[Report] = []
    for key in sorted(endpoint.name for endpoint in source.endpoints):
        batch = _batch(source.meta_graph.signature_def[key], seed)
        if isinstance(batch, str):
            skipped.append({"endpoint": key, "reason": batch})
        else:
            batches[key] = batch
    # One after the other: the functions that gradients of loops add have the same names in both.
    compared = [key for key in batches if key not in updated]
    twice = _observe(source, source.directory, compared, batches, plan, runs=2)
    once = _observe(source, rewritten, compared, batches, None, runs=1)
    names = {variable.object_path: variable.name for variable in source.variables}
    outputs: list[Report] = []
    gradients: list[Report] = []
    undifferentiated: list[Report] = []
    for key in compared:
        before, after = twice[key], once[key]
        if isinstance(before.outputs, str):
            skipped.append({"endpoint": key, "reason": f"it fails on random inputs: {before.outputs}"})
            continue
        if isinstance(after.outputs, str):
            raise CheckFailedError(
                f"the signature {key!r} runs in the original, and not in the rewritten model: {after.outputs}. "
                "Nothing was written. This is an error in graphfreeze: please report it with the model"
            )
        outputs += compare_outputs(key, before.outputs, after.outputs[0])
        if isinstance(before.gradients, str) or isinstance(after.gradients, str):
            reason = next(found for found in (before.gradients, after.gradients) if isinstance(found, str))
            undifferentiated.append({"endpoint": key, "reason": f"it has no gradients: {reason}"})
        else:
            gradients += compare_gradients(key, names, plan, before.gradients, after.gradients[0])
    checks = conclude(outputs, gradients, skipped, undifferentiated)
    stepped = sorted(set(batches) & set(updated))
    if not stepped:
        return checks
    moved: list[Report] = []
    unrun: list[Report] = []
    with _Session(source, rewritten, ()) as session:
        for key in stepped:
            try:
                moved += session.run_steps(key, batches[key], updated[key], plan)
            except tf.errors.OpError as error:
                unrun.append({"endpoint": key, "reason": f"it cannot be run: {_first_line(error)}"})
    return [*checks, conclude_updates(moved, names, unrun)]


@dataclass(frozen=True)
class _Observed:
    """What a signature gave, run by run; or why it did not."""

    outputs: list[dict[str, Array]] | str
    gradients: list[dict[str, Array]] | str


def _observe(
    source: SavedModel,
    directory: Path,
    keys: Sequence[str],
    batches: Mapping[str, Mapping[str, Array]],
    plan: FreezePlan | None,
    *,
    runs: int,
) -> dict[str, _Observed]:
    """Run signatures of one model, with a plan's frozen values if there is one."""
    found: dict[str, _Observed] = {}
    with _Session(source, directory, keys) as session:
        for key in keys:
            outputs: list[dict[str, Array]] | str
            gradients: list[dict[str, Array]] | str = ""
            try:
                outputs = [session.run(key, batches[key], plan) for _ in range(runs)]
            except tf.errors.OpError as error:
                outputs = _first_line(error)
            try:
                gradients = [session.gradients(key, batches[key], plan) for _ in range(runs)]
            except _NO_GRADIENTS as error:
                gradients = _first_line(error)
            found[key] = _Observed(outputs, gradients)
    gc.collect()
    return found


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", None) or error).strip().split("\n", 1)[0]


class _Session:
    """One of the two models, in a session.

    Args:
        source: The original, which both have the variables and signatures of.
        directory: The model.
        differentiated: The signatures whose gradients are wanted.
    """

    def __init__(self, source: SavedModel, directory: Path, differentiated: Sequence[str]) -> None:
        self._source = source
        self._graph = v1.Graph()
        # As elsewhere: TensorFlow must not reorder sums.
        config = v1.ConfigProto()
        config.graph_options.rewrite_options.arithmetic_optimization = 2
        self._session = v1.Session(graph=self._graph, config=config)
        tags = list(source.meta_graph.meta_info_def.tags)
        loader = SavedModelLoader(str(directory))
        self._signatures = loader.get_meta_graph_def_from_tags(tags).signature_def
        with self._graph.as_default():
            saver, _ = loader.load_graph(self._graph, tags)
            # All nodes come before the first run: gradients of branches and loops change their nodes.
            self._values = {variable.object_path: self._value(variable) for variable in source.variables}
            self._assigns = {v.object_path: self._assign(v) for v in source.variables}
            self._gradients = {key: self._differentiate(key) for key in differentiated}
        with self._session.as_default():
            loader.restore_variables(self._session, saver)
            loader.run_init_ops(self._session, tags)
        self._restore = (source.meta_graph.saver_def, str(directory / "variables" / "variables"))

    def __enter__(self) -> _Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def run(self, key: str, batch: Mapping[str, Array], plan: FreezePlan | None = None) -> dict[str, Array]:
        """The outputs of a signature, with the variables as they were saved, or with a plan's frozen values."""
        self._reset(plan)
        signature = self._signatures[key]
        fetches = {name: info.name for name, info in signature.outputs.items() if _is_dense(info)}
        found: dict[str, Any] = self._session.run(fetches, self._feed(key, batch))
        # A copy, because the value of a reference is its memory.
        return {name: np.array(value) for name, value in found.items()}

    def gradients(self, key: str, batch: Mapping[str, Array], plan: FreezePlan | None = None) -> dict[str, Array]:
        """The gradient of the sum of squared outputs for each trainable variable that has one."""
        gradients = self._gradients[key]
        if isinstance(gradients, Exception):
            raise gradients
        self._reset(plan)
        found: dict[str, Any] = self._session.run(gradients, self._feed(key, batch))
        return {path: np.asarray(value) for path, value in found.items()}

    def run_steps(
        self, key: str, batch: Mapping[str, Array], held: Mapping[str, str], plan: FreezePlan
    ) -> list[Report]:
        """Run a signature that updates, and say how many frozen elements moved in storage."""
        self._reset(None)
        values = {path: self._values[path] for path in sorted(held)}
        before = self._session.run(values)
        for _ in range(STEPS):
            self._session.run([info.name for info in self._signatures[key].outputs.values()], self._feed(key, batch))
        now = self._session.run(values)
        return [held_record(key, path, np.asarray(before[path]), np.asarray(now[path]), plan, held) for path in values]

    def _feed(self, key: str, batch: Mapping[str, Array]) -> dict[str, Array]:
        return {self._signatures[key].inputs[name].name: value for name, value in batch.items()}

    def _reset(self, plan: FreezePlan | None) -> None:
        """Restore everything; then give the variables a plan's frozen values."""
        saver, prefix = self._restore
        if saver.restore_op_name:
            self._session.run(saver.restore_op_name, {saver.filename_tensor_name: prefix})
        for frozen in () if plan is None else plan.variables:
            value, assign = self._assigns[frozen.variable.object_path]
            stored = self._session.run(self._values[frozen.variable.object_path])
            self._session.run(assign, {value: np.where(frozen.full_mask, stored, frozen.value)})

    def _node(self, variable: Variable) -> Any:
        """The tensor that is the variable's handle or reference."""
        return self._graph.get_tensor_by_name(f"{variable.name}:0")

    def _value(self, variable: Variable) -> Any:
        """What is stored."""
        node = self._node(variable)
        if node.dtype == tf.resource:
            return tf.raw_ops.ReadVariableOp(resource=node, dtype=variable.dtype)
        # What is fetched of a reference itself is its memory, which later updates change.
        return tf.raw_ops.DeepCopy(x=node)

    def _assign(self, variable: Variable) -> tuple[Any, Any]:
        """What to feed in order to overwrite a variable, and what to run."""
        node, value = self._node(variable), v1.placeholder(variable.dtype, variable.shape)
        if node.dtype == tf.resource:
            return value, tf.raw_ops.AssignVariableOp(resource=node, value=value)
        return value, tf.raw_ops.Assign(ref=node, value=value)

    def _differentiate(self, key: str) -> dict[str, Any] | Exception:
        """What to run for the gradients of a signature; or why it has none."""
        named = [info.name for info in self._signatures[key].outputs.values() if _is_dense(info)]
        tensors = [self._graph.get_tensor_by_name(name) for name in named]
        floats = [tf.cast(tensor, tf.float32) for tensor in tensors if tensor.dtype.base_dtype.is_floating]
        watched = {v.object_path: self._node(v) for v in self._source.variables if v.trainable and "float" in v.dtype}
        if not floats or not watched:
            return {}
        total = tf.add_n([tf.reduce_sum(tf.square(tensor)) for tensor in floats])
        try:
            found = v1.gradients(total, list(watched.values()))
        except _NO_GRADIENTS as error:
            return error
        return {
            path: tf.convert_to_tensor(gradient)
            for path, gradient in zip(watched, found, strict=True)
            if gradient is not None
        }


def _is_dense(info: Any) -> bool:
    """Whether an output is a dense tensor; it may also be an operation."""
    return bool(info.WhichOneof("encoding") == "name" and ":" in info.name)


def _batch(signature: Any, seed: int) -> dict[str, Array] | str:
    """Random inputs of a signature; or why there are none."""
    entries = []
    for name, info in sorted(signature.inputs.items()):
        dtype = tf.as_dtype(info.dtype)
        if info.WhichOneof("encoding") != "name":
            return f"its input {name} is made of several tensors"
        if dtype in (tf.string, tf.variant, tf.resource):
            return f"no random values for its input {name}, of dtype {dtype.name}"
        if info.tensor_shape.unknown_rank:
            return f"its input {name} has no known rank"
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
        entries.append(TensorEntry(name, shape, dtype.name))
    return random_inputs(entries, {}, np.random.default_rng(seed), _BATCH_SIZE)
