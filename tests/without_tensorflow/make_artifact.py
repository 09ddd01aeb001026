"""Where TensorFlow is installed: write a small artifact and its training data, for `use_artifact.py`.

Usage: make_artifact.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

import graphfreeze


def main(directory: Path) -> None:
    """Export a small model, rewrite it, and draw data that it can learn."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(8, "relu", name="hidden")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="scores")(hidden), name="tiny")
    model.export(directory / "model", verbose=False)
    graphfreeze.rewrite(
        directory / "model",
        directory / "out",
        [graphfreeze.Selection("freeze", "**/hidden/kernel[:, 0:3]"), graphfreeze.Selection("freeze", "**/norm/gamma")],
        loss="sparse_categorical_crossentropy:from_logits=true",
        optimizer="adamw:learning_rate=0.01,weight_decay=0.1",
    )
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 6)).astype(np.float32)
    np.savez(directory / "data.npz", x=x, y=np.argmax(x[:, :3], axis=1).astype(np.int64))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
