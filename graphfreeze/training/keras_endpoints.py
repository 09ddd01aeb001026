"""Writes a Keras model as a SavedModel with two endpoints: `serve`, as in `predict`, and `train`, as in `fit`.

`keras.export.ExportArchive` would write the same functions. It lists every variable twice, in an order that changes
from run to run, and takes the variables of layers with `trainable = False` for trainable ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.util import nest

from graphfreeze.errors import UnsupportedError
from graphfreeze.training.constraints import CONSTRAINTS
from graphfreeze.training.endpoint import (
    ADDED_LOSSES,
    LOGITS_PREFIX,
    MASK_PREFIX,
    OPERATION_PREFIXES,
    TRAINING_ENDPOINT,
)

__all__ = ["SERVING_ENDPOINT", "write_endpoints"]

SERVING_ENDPOINT = "serve"


def write_endpoints(model: Any, directory: Path) -> dict[str, Any]:
    """Write the SavedModel of a Keras model. The model is not changed.

    The outputs have the names of `compile(loss={...})` where there are several, and `output_0` where there is one.
    Beside them, `train` returns what `fit` adds to the loss (`graphfreeze_losses`), where the model adds anything, the
    masks of its outputs (`graphfreeze_mask.OUTPUT`), where they have one, and what they are the softmax or sigmoid of
    (`graphfreeze_logits.OUTPUT`). What constraints make of variables is a
    function of its own.

    Args:
        model: A built `keras.Model`.
        directory: Where to; it exists and is empty.

    Returns:
        What was written: the endpoints, the counts of variables, and the variables that have constraints.

    Raises:
        UnsupportedError: The inputs are not known, TensorFlow cannot trace the model, or would trace another one than
            `fit` runs.
    """
    _check_time_distributed(model)
    signature = _input_signature(model)
    metrics = {id(v) for v in model.metrics_variables}
    variables = [v for v in model.variables if id(v) not in metrics]
    trainable = {id(v) for v in model.trainable_variables}
    root = tf.__internal__.tracking.AutoTrackable()
    root.variables = [v.value for v in variables]
    root.trainable_variables = [v.value for v in variables if id(v) in trainable]
    root.non_trainable_variables = [v.value for v in variables if id(v) not in trainable]
    root.tables = _tables(model)

    def serve(*inputs: Any) -> Any:
        outputs = _call(model, inputs, training=False)
        return outputs if tf.is_tensor(outputs) else _named(model, outputs)

    def train(*inputs: Any) -> dict[str, Any]:
        outputs = _named(model, _call(model, inputs, training=True))
        masks = {MASK_PREFIX + n: m for n, t in outputs.items() if (m := getattr(t, "_keras_mask", None)) is not None}
        return {**outputs, **masks, **_logits(outputs), **_added_losses(model)}

    constrained = {index: v for index, v in enumerate(variables) if id(v) in trainable and v.constraint is not None}

    def constraints() -> dict[str, Any]:
        return {f"variables/{index}": tf.convert_to_tensor(v.constraint(v)) for index, v in constrained.items()}

    if constrained:
        setattr(root, CONSTRAINTS, tf.function(constraints, input_signature=[], autograph=False))
    root.serve = tf.function(serve, input_signature=signature, autograph=False)
    root.train = tf.function(train, input_signature=signature, autograph=False)
    endpoints = {SERVING_ENDPOINT: root.serve, TRAINING_ENDPOINT: root.train}
    try:
        concrete = {name: function.get_concrete_function() for name, function in endpoints.items()}
        if constrained:
            getattr(root, CONSTRAINTS).get_concrete_function()
    except Exception as error:  # layers raise what they like
        raise UnsupportedError(f"TensorFlow cannot trace the model {model.name!r}: {error}") from error
    # The states of stateful layers are no variables of the model to Keras.
    known = {id(v.value) for v in variables}
    root.states = list({id(v): v for f in concrete.values() for v in f.variables if id(v) not in known}.values())
    with _trainable_as_in_keras(variables, trainable):
        tf.saved_model.save(root, str(directory), signatures={"serving_default": root.serve, **endpoints})
    _write_deterministically(directory / "saved_model.pb")
    results = {name: sorted(_named(model, function.structured_outputs)) for name, function in concrete.items()}
    return {
        "endpoints": [
            {"name": name, "inputs": [_describe(spec) for spec in tf.nest.flatten(signature)], "outputs": results[name]}
            for name in endpoints
        ],
        "variables": len(variables),
        "trainable_variables": sum(1 for v in variables if id(v) in trainable),
        "adds_losses": ADDED_LOSSES in results[TRAINING_ENDPOINT],
        "constraints": [v.path for v in constrained.values()],
    }


def _check_time_distributed(model: Any) -> None:
    """Refuse a layer for each time step where their number is open: Keras makes as many as the batch has examples.

    In `fit` the number is that of the data, and the layer is right.
    """
    # A nested model's layers are no direct ones.
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.TimeDistributed):
            shape = (layer.get_build_config() or {}).get("input_shape")
            if shape is not None and shape[1] is None:
                raise UnsupportedError(
                    f"TimeDistributed {layer.path!r} takes sequences of open length, for which Keras traces as many "
                    "time steps as the batch has examples. Fix the length in keras.Input, or apply the layer itself to "
                    "the whole sequence, where it works on the last axis (Dense)"
                )


def _call(model: Any, inputs: tuple[Any, ...], *, training: bool) -> Any:
    # As `fit` and `predict` do: a model of one's own may know no modes.
    return model(*inputs, training=training) if model._call_has_training_arg else model(*inputs)


def _named(model: Any, outputs: Any) -> dict[str, Any]:
    """The outputs by name, those in a dictionary by key; what is in it by its path."""
    if isinstance(outputs, Mapping):
        return dict(nest.flatten_with_joined_string_paths(outputs))
    flat = tf.nest.flatten(outputs)
    names = list(getattr(model, "output_names", None) or ())
    if len(flat) == 1 or len(set(names)) != len(flat):
        names = [f"output_{index}" for index in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def _logits(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What outputs are the softmax or sigmoid of, where Keras' losses would find it."""
    found = {}
    for name, tensor in outputs.items():
        if (logits := getattr(tensor, "_keras_logits", None)) is not None:
            found[LOGITS_PREFIX + name] = logits
        elif (prefix := OPERATION_PREFIXES.get(tensor.op.type)) is not None:
            found[prefix + name] = tensor.op.inputs[0]
    return found


def _added_losses(model: Any) -> dict[str, Any]:
    """The sum of what `fit` adds to the loss: regularisers, activity regularisers, `add_loss`."""
    terms = [
        keras.ops.sum(loss if keras.backend.is_float_dtype(loss.dtype) else keras.ops.cast(loss, keras.config.floatx()))
        for loss in model.losses
    ]
    return {ADDED_LOSSES: keras.ops.sum(terms)} if terms else {}


def _input_signature(model: Any) -> list[Any]:
    """The specifications of the arguments of `model(...)`."""
    if not model.built:
        raise UnsupportedError(f"the model {model.name!r} is not built: call it on data once, then export it")
    structure = getattr(model, "_inputs_struct", None)
    if structure is None and getattr(model, "inputs", None):
        structure = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    if structure is not None:
        stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
        return [
            tf.nest.map_structure(lambda tensor: _spec(tensor.shape, tensor.dtype, tensor.name, stateful), structure)
        ]
    shapes = dict(getattr(model, "_build_shapes_dict", None) or {})
    if not shapes:
        raise UnsupportedError(
            f"the inputs of the model {model.name!r} are not known: call it on data once, or build it with keras.Input"
        )
    # What a model of one's own was built with: shapes, in whatever structure it takes its inputs.
    return [_spec_like(shape, name.removesuffix("_shape"), model.input_dtype) for name, shape in shapes.items()]


def _spec_like(shape: Any, name: str, dtype: str) -> Any:
    """The specifications of tensors in the structure of their shapes; those in a dictionary are named by its keys."""
    if isinstance(shape, Mapping):
        return {key: _spec_like(one, str(key), dtype) for key, one in shape.items()}
    if all(isinstance(size, int | None) for size in shape):
        return _spec(shape, dtype, name, False)
    return [_spec_like(one, f"{name}_{index}", dtype) for index, one in enumerate(shape)]


def _spec(shape: Any, dtype: Any, name: str, keep_batch: bool) -> Any:
    """A tensor with a batch of any size; only what carries state from batch to batch needs the size it was made for."""
    sizes = tuple(shape)
    return tf.TensorSpec(sizes if keep_batch else (None, *sizes[1:]), dtype, name=name)


def _describe(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "shape": spec.shape.as_list(), "dtype": spec.dtype.name}


def _tables(model: Any) -> list[Any]:
    """The lookup tables of preprocessing layers, which functions use without saying so."""
    kind = tf.saved_model.experimental.TrackableResource
    return [item for item in tf.train.TrackableView(model).descendants() if isinstance(item, kind)]


@contextmanager
def _trainable_as_in_keras(variables: list[Any], trainable: set[int]) -> Iterator[None]:
    """Let TensorFlow's variables say what Keras says: `layer.trainable = False` reaches Keras' variables alone."""
    before = [v.value._trainable for v in variables]
    for v in variables:
        v.value._trainable = id(v) in trainable
    try:
        yield
    finally:
        for v, flag in zip(variables, before, strict=True):
            v.value._trainable = flag


def _write_deterministically(path: Path) -> None:
    """Write a `saved_model.pb` again with its maps in order."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString(path.read_bytes())
    path.write_bytes(proto.SerializeToString(deterministic=True))
