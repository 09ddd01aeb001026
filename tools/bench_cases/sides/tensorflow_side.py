"""TensorFlow: a `tf.function` with the loaded SavedModel, a Keras loss and a Keras optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tools.bench_cases.sides.side import LEARNING_RATE, Side, load_batch

__all__ = ["make"]


def make(model: str, directory: Path, threads: int, variant: str) -> Side:
    """The step of the SavedModel that was rewritten (`frozen`) or of the original (`unfrozen`)."""
    del model
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    saved_model = directory / "frozen" / "saved_model" if variant == "frozen" else directory / "saved_model"
    loaded = tf.saved_model.load(str(saved_model))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    variables = list(loaded.trainable_variables)
    batch = {name: tf.constant(array) for name, array in load_batch(directory).items()}
    optimizer.build(variables)

    def train_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, loaded.train(x)["output_0"])
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    compiled = tf.function(train_step, autograph=False)
    return Side(
        lambda: float(compiled(batch["x"], batch["y"])),
        {"tensorflow": tf.__version__, "keras": keras.__version__},
        sum(int(variable.shape.num_elements()) for variable in variables),
    )
