"""An endpoint of a loaded SavedModel as a function of flat tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.util import nest

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.training.training_call import traces, training_call

__all__ = [
    "ADDED_LOSSES",
    "LOGITS_PREFIX",
    "MASK_PREFIX",
    "OPERATION_PREFIXES",
    "TRAINING_ENDPOINT",
    "Endpoint",
    "TensorEntry",
    "choose_endpoint",
    "choose_forward_endpoint",
    "endpoint_names",
]

TRAINING_ENDPOINT = "train"
"""The endpoint that computes in training mode: of `graphfreeze export`, or `__call__(training=True)` of the model."""

ADDED_LOSSES = "graphfreeze_losses"
"""The output of an endpoint that is added to the loss: regularisers, activity regularisers, `add_loss`."""

MASK_PREFIX = "graphfreeze_mask."
"""Before an output's name: the output that says where it counts, as Keras' layers do by their masks."""

LOGITS_PREFIX = "graphfreeze_logits."
"""Before an output's name: the output that it is the softmax or sigmoid of, as Keras notes it at its activations. Its
losses of probabilities take these numbers, with which nothing is too close to 0 or 1."""

OPERATION_PREFIXES = {"Softmax": "graphfreeze_logits_of_softmax.", "Sigmoid": "graphfreeze_logits_of_sigmoid."}
"""The same where the output is made by that operation of TensorFlow, and no activation of Keras."""

_BESIDE = (MASK_PREFIX, LOGITS_PREFIX, *OPERATION_PREFIXES.values())


@dataclass(frozen=True)
class TensorEntry:
    """A named tensor of an endpoint.

    Attributes:
        name: Its name in the data contract.
        shape: Its shape, None for the batch.
        dtype: The name of its numpy dtype.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Endpoint:
    """A callable of the SavedModel.

    Attributes:
        name: Its name.
        function: The `ConcreteFunction` behind it.
        inputs: Its inputs, sorted by name (the order of a signature varies between processes).
        outputs: All its outputs.
    """

    name: str
    function: Any
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]

    @property
    def predictions(self) -> tuple[TensorEntry, ...]:
        """The outputs that the model predicts, without what an endpoint says beside them for its loss."""
        return tuple(e for e in self.outputs if e.name != ADDED_LOSSES and not e.name.startswith(_BESIDE))

    def named(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs by name for named input tensors."""
        return dict(zip((entry.name for entry in self.outputs), self(tensors), strict=True))

    def __call__(self, tensors: Mapping[str, Any]) -> list[Any]:
        """The flat outputs for named input tensors."""
        args, kwargs = self.function.structured_input_signature
        flat = [
            tensors[item.name] if isinstance(item, tf.TensorSpec) else item for item in tf.nest.flatten((args, kwargs))
        ]
        packed_args, packed_kwargs = tf.nest.pack_sequence_as((args, kwargs), flat)
        results: list[Any] = tf.nest.flatten(self.function(*packed_args, **packed_kwargs))
        return results


def endpoint_names(loaded: Any) -> list[str]:
    """The names of everything that can be called: attributes first, then signatures.

    Where `loaded(..., training=True)` was traced, as in Keras 2 saves, that is one more: `train`.
    """
    attributes = [
        name
        for name in sorted(vars(loaded))
        if getattr(getattr(loaded, name), "concrete_functions", None) and not name.startswith("_")
    ]
    if getattr(loaded, "concrete_functions", None) or _is_callable_object(loaded):
        attributes.append("__call__")
    names = [*attributes, *(name for name in sorted(loaded.signatures) if name not in attributes)]
    if TRAINING_ENDPOINT not in names and traces(loaded, training=True):
        names.append(TRAINING_ENDPOINT)
    return names


def choose_endpoint(loaded: Any, name: str | None) -> Endpoint:
    """The endpoint of that name; by default `serve`, else `serving_default`, else the only one.

    Raises:
        UsageError: There is no such endpoint, or no default among several.
        UnsupportedError: It takes or returns something that is not a dense tensor.
    """
    names = endpoint_names(loaded)
    if name is None:
        name = next((n for n in ("serve", "serving_default") if n in names), names[0] if len(names) == 1 else None)
        if name is None:
            raise UsageError(f"several endpoints, choose one with --endpoint: {', '.join(names) or 'none found'}")
    if name not in names:
        raise UsageError(f"no endpoint {name!r}; the model has: {', '.join(names) or 'none'}")
    function = _concrete(loaded, name)
    specs = tf.nest.flatten(function.structured_input_signature)
    odd = [item for item in specs if not isinstance(item, tf.TensorSpec) and isinstance(item, tf.TypeSpec)]
    if odd:
        raise UnsupportedError(f"the endpoint {name!r} takes {odd[0]}: only dense tensors are supported")
    inputs = [_entry(item, name) for item in specs if isinstance(item, tf.TensorSpec)]
    outputs = _output_entries(function, name)
    return Endpoint(name, function, tuple(sorted(inputs, key=lambda entry: entry.name)), outputs)


def choose_forward_endpoint(loaded: Any, name: str | None, trained: Endpoint) -> Endpoint:
    """The endpoint of the inference graph: the one of that name; by default the one that trains.

    Beside the training endpoint of `graphfreeze export` that is the default endpoint: dropout has no place there.
    """
    if name is None and trained.name != TRAINING_ENDPOINT:
        name = trained.name
    if name is None:
        name = next((n for n in ("serve", "serving_default") if n in endpoint_names(loaded)), trained.name)
    return choose_endpoint(loaded, name)


def _concrete(loaded: Any, name: str) -> Any:
    # A signature may have the name of a variable.
    if name in loaded.signatures and not hasattr(getattr(loaded, name, None), "concrete_functions"):
        return loaded.signatures[name]
    if name == TRAINING_ENDPOINT and not hasattr(getattr(loaded, name, None), "concrete_functions"):
        return training_call(loaded, ADDED_LOSSES)
    functions = (loaded.__call__ if name == "__call__" else getattr(loaded, name)).concrete_functions
    if name == "__call__":
        functions = traces(loaded, training=False) or functions
    return min(functions, key=lambda f: sum(not isinstance(i, tf.TensorSpec) for i in _specs(f)))


def _specs(function: Any) -> list[Any]:
    specs: list[Any] = tf.nest.flatten(function.structured_input_signature)
    return specs


def _is_callable_object(loaded: Any) -> bool:
    return hasattr(type(loaded), "__call__") and hasattr(getattr(loaded, "__call__", None), "concrete_functions")  # noqa: B004


def _entry(spec: Any, endpoint: str) -> TensorEntry:
    if spec.shape.rank is None:
        raise UnsupportedError(
            f"the input {spec.name!r} of the endpoint {endpoint!r} has no known rank; export it with one"
        )
    return TensorEntry(spec.name, tuple(spec.shape.as_list()), spec.dtype.name)


def _output_entries(function: Any, endpoint: str) -> tuple[TensorEntry, ...]:
    structured = function.structured_outputs
    flat = tf.nest.flatten(structured)
    names: Sequence[str] = [f"output_{index}" for index in range(len(flat))]
    if isinstance(structured, Mapping):
        # Of an output that is itself a structure, each tensor by its path.
        names = [path for path, _ in nest.flatten_with_joined_string_paths(structured)]
    entries = []
    for name, tensor in zip(names, flat, strict=True):
        if not hasattr(tensor, "shape") or tensor.shape.rank is None:
            raise UnsupportedError(f"the output {name!r} of the endpoint {endpoint!r} has no known rank")
        entries.append(TensorEntry(name, tuple(tensor.shape.as_list()), tensor.dtype.name))
    return tuple(entries)
