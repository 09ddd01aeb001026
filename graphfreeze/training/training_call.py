"""The training mode of objects that are called as a whole: Keras 2 saves, and modules with a `training` argument."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["traces", "training_call"]

_WITH_LOSSES = "call_and_return_all_conditional_losses"
"""Of a Keras 2 save, the function that returns its outputs and what `add_loss` and activity regularisers add."""


def traces(loaded: Any, training: bool) -> list[Any]:
    """The concrete functions of `loaded(...)` that were traced with that value of `training`."""
    return _with_training(getattr(loaded, "__call__", None), training)  # noqa: B004


def training_call(loaded: Any, losses_name: str) -> Any | None:
    """`loaded(..., training=True)` with what the model adds to its loss, as a concrete function.

    Args:
        loaded: A loaded SavedModel.
        losses_name: What the output is called that holds the added losses.

    Returns:
        The concrete function. It returns what the model does, or, where there are added losses, the model's outputs by
        name with that output beside them. None where the object has no such mode.
    """
    functions = traces(loaded, training=True)
    if not functions:
        return None
    call = _like_signature(loaded, functions)
    with_losses = _with_training(getattr(loaded, _WITH_LOSSES, None), training=True)
    regularizers = [r for r in tf.nest.flatten(list(getattr(loaded, "regularization_losses", ()))) if callable(r)]
    matching = next((f for f in with_losses if _names(f) == _names(call)), None)
    if matching is None or (not regularizers and not tf.nest.flatten(matching.structured_outputs[1])):
        return call
    arguments, keywords = matching.structured_input_signature
    specs = [item for item in tf.nest.flatten((arguments, keywords)) if isinstance(item, tf.TensorSpec)]

    def train(*tensors: Any) -> dict[str, Any]:
        remaining = iter(tensors)
        items = [
            next(remaining) if isinstance(item, tf.TensorSpec) else item
            for item in tf.nest.flatten((arguments, keywords))
        ]
        packed_arguments, packed_keywords = tf.nest.pack_sequence_as((arguments, keywords), items)
        outputs, added = matching(*packed_arguments, **packed_keywords)
        terms = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in tf.nest.flatten(added)]
        terms += [tf.cast(regularizer(), tf.float32) for regularizer in regularizers]
        named = zip(_output_names(outputs), tf.nest.flatten(outputs), strict=True)
        return {**dict(named), losses_name: tf.add_n(terms)}

    return tf.function(train, autograph=False).get_concrete_function(*specs)


def _with_training(function: Any, training: bool) -> list[Any]:
    names = getattr(getattr(function, "function_spec", None), "arg_names", None) or ()
    found = []
    for concrete in getattr(function, "concrete_functions", None) or ():
        arguments, keywords = concrete.structured_input_signature
        values = {**dict(zip(names, arguments, strict=False)), **keywords}
        if values.get("training") is training:
            found.append(concrete)
    return found


def _names(function: Any) -> list[str]:
    flat = tf.nest.flatten(function.structured_input_signature)
    return sorted(item.name for item in flat if isinstance(item, tf.TensorSpec))


def _like_signature(loaded: Any, functions: list[Any]) -> Any:
    """The trace whose inputs have the names that the default signature gives them, or the first."""
    signatures = [s for name, s in sorted(loaded.signatures.items()) if name == "serving_default"]
    return next((f for f in functions for s in signatures if _names(f) == _names(s)), functions[0])


def _output_names(outputs: Any) -> list[str]:
    """As the other endpoints have it: by key, or by position."""
    if isinstance(outputs, dict):
        return ["/".join(str(part) for part in path) for path, _ in tf.nest.flatten_with_tuple_paths(outputs)]
    return [f"output_{index}" for index in range(len(tf.nest.flatten(outputs)))]
