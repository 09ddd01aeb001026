"""The main job of graphfreeze on a small model and real data, told step by step."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from graphfreeze import Trainer
from graphfreeze.tensorflow_loader import load_tensorflow

WORK = Path("demo_output")
MODEL, OUT, DEPLOY = WORK / "model", WORK / "rewritten", WORK / "deploy"

# What is frozen: four of the sixteen filters of conv1, and the small weights of dense.
FROZEN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "digits/conv1/kernel[:, :, :, 0:4]": ("digits/conv1/kernel", lambda w: np.arange(w.shape[-1]) < 4),
    "digits/dense/kernel where abs(w) < 0.03": ("digits/dense/kernel", lambda w: np.abs(w) < 0.03),
}

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def main() -> None:
    """Run the demo."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    images, labels = digits()
    train, test = slice(0, 1300), slice(1300, None)

    say("1. Somebody trains a small CNN on scikit-learn's 8x8 digits, and exports it with Keras.")
    load_tensorflow()
    export_model(images[train], labels[train])
    original = load(MODEL)
    print(f"   accuracy on test images: {accuracy(original, images[test], labels[test]):.1%}")

    say("2. All that we get is the exported SavedModel. What is in it?")
    graphfreeze("inspect", MODEL)

    say(
        "3. Freeze some elements of two kernels for ever: four filters of conv1, and every small weight of dense. "
        "Everything else stays trainable. Besides the rewritten SavedModel this writes the training step, with Keras' "
        "own loss, gradients and optimizer, as plain ONNX."
    )
    options = ["--loss", "sparse_categorical_crossentropy:from_logits=true"]
    options += ["--optimizer", "adamw:learning_rate=3e-3,weight_decay=0.01"]
    for selector in FROZEN:
        options += ["--freeze", selector]
    graphfreeze("rewrite", MODEL, OUT, *options)

    say("4. Are the ONNX gradients those of TensorFlow? Do frozen elements keep still? (This needs no TensorFlow.)")
    graphfreeze("validate", OUT)

    say("5. The world has changed: every image is now shifted by two pixels. Train on that, with onnxruntime alone.")
    shifted = np.roll(images, 2, axis=2)
    np.savez(WORK / "shifted.npz", image=shifted[train], y=labels[train])
    print(f"   accuracy on shifted test images before: {accuracy(original, shifted[test], labels[test]):.1%}")
    graphfreeze("train", OUT, "--data", WORK / "shifted.npz", "--epochs", "15", "--batch-size", "50")

    say("6. Fold: back to a plain SavedModel, the original graph with the new weights.")
    graphfreeze("fold", OUT, DEPLOY)
    deployed = load(DEPLOY)
    print(f"   accuracy on shifted test images after:  {accuracy(deployed, shifted[test], labels[test]):.1%}")

    say("7. Has every frozen element kept its bits?")
    show_frozen_elements(original, deployed)

    say("8. Does TensorFlow serve what onnxruntime trained?")
    show_outputs(deployed, shifted[test])

    say(f"Everything is in {WORK}/: model, rewritten (with report.json and training/*.onnx), deploy.")


def digits() -> tuple[Images, Labels]:
    """Digits as images in [0, 1] with one channel, and their labels."""
    data = load_digits()
    return (data.images[..., None] / 16).astype(np.float32), data.target.astype(np.int64)


def export_model(images: Images, labels: Labels) -> None:
    """Train the CNN and export it."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="dense"),
        ],
        name="digits",
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, epochs=12, batch_size=32, verbose=0)
    model.export(MODEL, verbose=False)


def load(path: Path) -> Any:
    """Load a SavedModel in TensorFlow."""
    import tensorflow as tf

    return tf.saved_model.load(path)


def graphfreeze(*arguments: str | Path) -> None:
    """Show a command of graphfreeze, and run it; the demo ends where it fails."""
    command = ["graphfreeze", *map(str, arguments)]
    print(f"   $ {shlex.join(command)}\n", flush=True)
    finished = subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]], check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def accuracy(model: Any, images: Images, labels: Labels) -> float:
    """The accuracy of a loaded SavedModel's `serve`."""
    return float(np.mean(np.argmax(model.serve(images).numpy(), axis=-1) == labels))


def show_frozen_elements(original: Any, deployed: Any) -> None:
    """Compare the bits of both models' kernels, element by element."""
    for selector, (name, is_frozen) in FROZEN.items():
        before, after = kernel(original, name), kernel(deployed, name)
        frozen = np.broadcast_to(is_frozen(before), before.shape)
        same = before.view(np.uint32) == after.view(np.uint32)
        print(
            f"   {selector}\n      frozen:    {np.sum(frozen & same)} of {np.sum(frozen)} elements kept every bit\n"
            f"      trainable: {np.sum(~frozen & ~same)} of {np.sum(~frozen)} elements moved"
        )
        if not same[frozen].all():
            sys.exit("   A frozen element has moved.")


def kernel(model: Any, name: str) -> npt.NDArray[np.float32]:
    """The value of a loaded SavedModel's variable."""
    return next(np.asarray(v.numpy()) for v in model.variables if v.name.removesuffix(":0") == name)


def show_outputs(deployed: Any, images: Images) -> None:
    """Compare the folded SavedModel in TensorFlow with the trained artifact in onnxruntime."""
    trainer = Trainer(OUT, state=OUT / "training" / "trained.safetensors")
    (outputs,) = trainer.predict({"image": images}).values()
    served = deployed.serve(images).numpy()
    difference = float(np.max(np.abs(served - outputs)))
    agreed = float(np.mean(np.argmax(served, -1) == np.argmax(outputs, -1)))
    print(f"   largest difference of any logit: {difference:.1e}; same digit for {agreed:.1%} of the test images")


def say(text: str) -> None:
    """Print a step's heading."""
    print("\n" + textwrap.fill(text, 110, subsequent_indent="   "), flush=True)


if __name__ == "__main__":
    main()
