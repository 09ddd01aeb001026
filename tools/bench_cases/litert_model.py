"""Converts the training step for LiteRT: a signature with gradients and Adam, of built-in operators only.

`python -m tools.bench_cases.litert_model MODEL DIRECTORY` writes `litert.tflite`, or to `litert.txt` why not.
LiteRT's runtimes on PyPI have no others: the operators of TensorFlow have to be linked in.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tools.bench_cases.catalogue import MODELS, Model
from tools.bench_cases.keras_models import build
from tools.bench_cases.sides.side import LEARNING_RATE

__all__ = ["convert"]


def convert(model: Model, directory: Path) -> None:
    """Write `litert.tflite` or `litert.txt`."""
    try:
        (directory / "litert.tflite").write_bytes(_converted(model, directory / "litert_saved_model"))
    except Exception as error:  # the converter fails in many ways
        (directory / "litert.txt").write_text(_reason(str(error)), encoding="utf-8")


def _converted(model: Model, saved_model: Path) -> bytes:
    root = tf.Module()
    root.network = build(model)
    root.optimizer = keras.optimizers.Adam(LEARNING_RATE)
    variables = [variable.value for variable in root.network.trainable_variables]
    root.variables_of_optimizer = _build(root.optimizer, variables)
    signature = [
        tf.TensorSpec((model.batch_size, *model.shape), tf.int32 if model.vocabulary else tf.float32, name="x"),
        tf.TensorSpec((model.batch_size,), tf.int64, name="y"),
    ]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def train(x: Any, y: Any) -> dict[str, Any]:
        # LiteRT has no operator for the gradient of Relu, and none for the cross-entropy.
        with tf.compat.v1.get_default_graph().gradient_override_map({"Relu": "GraphfreezeBenchRelu"}):
            chosen = tf.one_hot(y, model.classes) * tf.nn.log_softmax(root.network(x, training=True))
            loss = -tf.reduce_sum(chosen) / model.batch_size
        # A tape would not see the other gradient.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tf.gradients(loss, variables)]
        root.optimizer.apply(gradients, variables)
        return {"loss": loss}

    # Nothing differentiates what is saved.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(root, str(saved_model), signatures={"train": train}, options=options)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=["train"])
    converter.experimental_enable_resource_variables = True
    converted: bytes = converter.convert()
    return converted


@tf.RegisterGradient("GraphfreezeBenchRelu")  # type: ignore[untyped-decorator]
def _relu_gradient(operation: Any, gradient: Any) -> Any:
    return tf.where(operation.outputs[0] > 0.0, gradient, tf.zeros_like(gradient))


def _build(optimizer: Any, variables: list[Any]) -> list[Any]:
    optimizer.build(variables)
    return [variable.value for variable in optimizer.variables]


def _reason(text: str) -> str:
    """The operators that are missing, or the first line."""
    patterns = r"'(tf\.\w+)' op is neither a custom op nor a flex op|failed to legalize operation '(tf\.\w+)'"
    if missing := sorted({name for found in re.findall(patterns, text) for name in found if name}):
        return f"the converter has no built-in operators for {', '.join(missing)}"
    return f"the converter fails: {(text.strip().splitlines() or ['without a word'])[0]}"


if __name__ == "__main__":
    convert(MODELS[sys.argv[1]], Path(sys.argv[2]))
    print("null")
