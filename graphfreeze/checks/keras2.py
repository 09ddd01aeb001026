"""Tries what `--keras2 keep` promises: what `tf_keras.models.load_model` gives computes, trains and stays frozen.

Layers that Keras brings back with their saved functions lose what only their Python code could do: a layer that makes
or passes masks on no longer does. Nothing in the files says so. So the model is loaded and compared.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.graph_optimizer import optimizer_option
from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.batch import index_limits, random_inputs
from graphfreeze.training.endpoint import Endpoint, choose_endpoint, endpoint_names
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.parameters import resolve
from graphfreeze.training.training_call import traces
from graphfreeze.training.variable_uses import VariableSlot

__all__ = ["check_kept", "require_tf_keras"]

_BATCH_SIZE = 4

Array = npt.NDArray[Any]
Report = dict[str, Any]


def require_tf_keras() -> None:
    """Check that tf_keras is there.

    Raises:
        UsageError: It is not.
    """
    if importlib.util.find_spec("tf_keras") is None:
        raise UsageError(
            "--keras2 keep tries the result in tf_keras, which is not installed. "
            "Install it: pip install 'graphfreeze[keras2]'"
        )


def check_kept(
    original: Path, rewritten: Path, variables: Sequence[Variable], plan: FreezePlan, *, seed: int = 0
) -> Report:
    """Load both models in tf_keras, and the rewritten one in TensorFlow too, and compare them bit for bit.

    The original gets the plan's frozen values first. Compared are outputs, their Keras masks and the model's own
    losses, on random inputs, on zeros, and on inputs that end in zeros, which Keras' masking layers look for. Then the
    model is compiled and trained for a step with weight decay: the effective values of frozen elements must stay.

    Args:
        original: The original SavedModel.
        rewritten: The one rewritten with `keep`.
        variables: The model's variables.
        plan: What is frozen.
        seed: Where random inputs come from.

    Returns:
        A check for the report.

    Raises:
        UnsupportedError: tf_keras cannot load the model, or what it loads differs; the message says in what.
        UsageError: tf_keras is not installed.
    """
    require_tf_keras()
    # Functions run as they are written: the optimizer fuses operations in one model and not in another.
    with optimizer_option("disable_meta_optimizer", True):
        loaded = tf.saved_model.load(str(rewritten))
        before = _load_model(original, "the original")
        after = _load_model(rewritten, "the rewritten model")
        known = _variables(loaded, variables)
        _assign(_targets(before, loaded, known, plan), keep_trainable=True)
        targets = _targets(after, loaded, known, plan)
        batches = _batches(loaded, known, seed)
        for batch in batches:
            _compare(batch, loaded, before, after)
        _check_frozen(batches, after, targets)
        _check_fit(batches, after, targets)
    return {
        "name": "load_model of tf_keras keeps the freeze",
        "passed": True,
        "message": f"outputs, masks and losses of {len(batches)} batches equal; a step of fit moved no frozen element",
        "evidence": {"layers": len(after.layers), "variables": len(targets)},
    }


def _load_model(directory: Path, what: str) -> Any:
    import tf_keras

    with _explained(f"tf_keras cannot load {what}"):
        model = tf_keras.models.load_model(str(directory), compile=False)
        if not isinstance(model, tf_keras.Model):
            _refuse(f"tf_keras loads {what} as {type(model).__name__}, which is no model")
        return model


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Turn whatever Keras raises into one line that says what cannot be kept."""
    try:
        yield
    except UnsupportedError:
        raise
    except Exception as error:
        # Keras raises errors of every type; their first paragraphs name the layer and the reason.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        _refuse(f"{problem}: {type(error).__name__}: {' '.join(lines[:2])}")


def _refuse(problem: str) -> NoReturn:
    raise UnsupportedError(
        f"--keras2 keep cannot keep this freeze: {problem}. Leave the layers concerned out of the selection, or use "
        "--keras2 refuse and load the result with tf.saved_model.load."
    )


Target = tuple[Any, Array, Array]
"""A variable of a Keras model, its mask and its frozen values."""


def _variables(loaded: Any, variables: Sequence[Variable]) -> list[Any]:
    """The variables of the loaded model, in the order of Keras where the save tells it."""
    listed = list(getattr(loaded, "variables", ()))
    return listed or [v for known in variables if hasattr(v := resolve(loaded, known.object_path), "handle")]


def _targets(model: Any, loaded: Any, known: Sequence[Any], plan: FreezePlan) -> list[Target]:
    """The plan's variables in a Keras model: those of the same name, in the same order."""
    here, there = _by_name(model.variables), _by_name(known)
    targets = []
    for frozen in plan.variables:
        resource = resolve(loaded, frozen.variable.object_path)
        same, counterparts = there[_name(resource)], here[_name(resource)]
        position = next((i for i, v in enumerate(same) if v is resource), None)
        if position is None or len(same) != len(counterparts):
            _refuse(f"{frozen.variable.name} ({frozen.variable.object_path}) is not a weight of the loaded model")
        targets.append((counterparts[position], frozen.full_mask, frozen.value))
    return targets


def _by_name(variables: Sequence[Any]) -> defaultdict[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for variable in variables:
        if not any(v is variable for v in found[_name(variable)]):
            found[_name(variable)].append(variable)
    return found


def _name(variable: Any) -> str:
    return str(variable.name).partition(":")[0]


def _assign(targets: Sequence[Target], *, keep_trainable: bool) -> None:
    """Give frozen elements their frozen values, or any other ones."""
    for variable, mask, value in targets:
        now = variable.numpy()
        frozen = value if keep_trainable else (~now if now.dtype == np.bool_ else now + np.ones((), now.dtype))
        variable.assign(np.where(mask, now, frozen))


# -- inputs


Batch = tuple[Any, ...]
"""The positional arguments of a call of the model."""


def _batches(loaded: Any, known: Sequence[Any], seed: int) -> list[Batch]:
    """Random inputs, zeros, and random inputs of which the second half is zeros."""
    if "__call__" not in endpoint_names(loaded):
        _refuse("the model cannot be called as a whole, so that it cannot be tried")
    endpoint = choose_endpoint(loaded, "__call__")
    odd = [e.name for e in endpoint.inputs if e.dtype in ("string", "variant", "resource")]
    arguments, keywords = endpoint.function.structured_input_signature
    if odd or any(isinstance(item, tf.TypeSpec) for item in tf.nest.flatten(keywords)):
        _refuse(f"there are no random values for the inputs of the model {odd or keywords}, with which to try it")
    random = random_inputs(endpoint.inputs, _index_limits(known, endpoint), np.random.default_rng(seed), _BATCH_SIZE)
    with_tensors = [any(isinstance(i, tf.TypeSpec) for i in tf.nest.flatten(a)) for a in arguments]
    taken = arguments[: max((i + 1 for i, found in enumerate(with_tensors) if found), default=0)]
    makers: list[Callable[[Array], Array]] = [lambda x: x, np.zeros_like, _ending_in_zeros]
    return [
        tf.nest.pack_sequence_as(
            taken,
            [tf.constant(make(random[i.name])) if isinstance(i, tf.TypeSpec) else i for i in tf.nest.flatten(taken)],
        )
        for make in makers
    ]


def _index_limits(known: Sequence[Any], endpoint: Endpoint) -> dict[str, int]:
    names = [entry.name for entry in endpoint.inputs]
    slots = {id(v.handle): VariableSlot(str(i), v.dtype, tuple(v.shape)) for i, v in enumerate(known)}
    specs = [tf.TensorSpec(entry.shape, entry.dtype, name=entry.name) for entry in endpoint.inputs]

    def call(*flat: Any) -> list[Any]:
        return endpoint(dict(zip(names, flat, strict=True)))

    traced = tf.function(call, autograph=False).get_concrete_function(*specs)
    try:
        return index_limits(functionalise(traced, names, [str(i) for i in range(len(traced.outputs))], slots))
    except UnsupportedError:
        return {}  # a table, say: integers stay small


def _ending_in_zeros(array: Array) -> Array:
    if array.ndim < 2:
        return array
    changed = array.copy()
    changed[:, array.shape[1] // 2 :] = 0
    return changed


# -- comparisons


def _compare(batch: Batch, loaded: Any, before: Any, after: Any) -> None:
    with _explained("the revived model cannot be called"):
        found = after(*batch, training=False) if after._expects_training_arg else after(*batch)
    expected = before(*batch, training=False) if before._expects_training_arg else before(*batch)
    plain = loaded(*batch, training=False) if traces(loaded, training=False) else loaded(*batch)
    _same("outputs", expected, found, "those of the original")
    _same("outputs", plain, found, "those of the rewritten model in tf.saved_model.load")
    masks = [[getattr(t, "_keras_mask", None) for t in tf.nest.flatten(side)] for side in (expected, found)]
    if [m is None for m in masks[0]] != [m is None for m in masks[1]]:
        _refuse("the outputs lose the mask that Keras' losses take into account")
    _same("masks", [m for m in masks[0] if m is not None], [m for m in masks[1] if m is not None], "the original's")
    _same("losses", sorted(map(float, before.losses)), sorted(map(float, after.losses)), "those of the original")


def _same(what: str, expected: Any, found: Any, whose: str) -> None:
    ours, theirs = tf.nest.flatten(found), tf.nest.flatten(expected)
    equal = len(ours) == len(theirs) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(ours, theirs, strict=True)
    )
    if not equal:
        _refuse(f"the {what} of the revived model differ from {whose}")


def _check_frozen(batches: Sequence[Batch], model: Any, targets: Sequence[Target]) -> None:
    """What lies in the storage of frozen elements must not matter."""
    stored = [variable.numpy() for variable, _, _ in targets]
    expected = [(model(*batch), list(map(float, model.losses))) for batch in batches]
    _assign(targets, keep_trainable=False)
    found = [(model(*batch), list(map(float, model.losses))) for batch in batches]
    for (variable, _, _), value in zip(targets, stored, strict=True):
        variable.assign(value)
    _same("outputs with other values stored in frozen elements", expected, found, "those before")


def _check_fit(batches: Sequence[Batch], model: Any, targets: Sequence[Target]) -> None:
    """Compile and train for a step with weight decay; the effective values of frozen elements must stay."""
    import tf_keras

    outputs = model(*batches[0])
    if len(batches[0]) != 1 or not all(o.dtype.is_floating for o in tf.nest.flatten(outputs)):
        return
    with _explained("the revived model cannot be compiled and trained"):
        model.compile(tf_keras.optimizers.AdamW(learning_rate=0.1, weight_decay=0.1), "mean_squared_error")
        model.train_on_batch(batches[0][0], tf.nest.map_structure(tf.zeros_like, outputs))
    expected = model(*batches[0])
    _assign(targets, keep_trainable=True)
    _same("outputs with the frozen values put back after training", expected, model(*batches[0]), "those before")
