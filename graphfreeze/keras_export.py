"""The public function `export`: a Keras model becomes a SavedModel with an inference and a training endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphfreeze.errors import UsageError
from graphfreeze.output import atomic_directory
from graphfreeze.tensorflow_loader import load_tensorflow

__all__ = ["export"]

SCHEMA_VERSION = 1


def export(model: Any, saved_model: str | Path, *, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Write a SavedModel with the endpoints `serve` (as in `predict`) and `train` (as in `fit`).

    A file is read without running anything that it brings along.

    Args:
        model: A `.keras` file, an `.h5` file of Keras 3, or a built `keras.Model`.
        saved_model: The directory to make; it appears whole or not at all.
        seed: Of a file: the seed of what has no seed of its own in it, as most dropout layers.
        overwrite: Replace an earlier output.

    Returns:
        A JSON-ready report: the endpoints, the counts of variables, whether the model adds to the loss, and the
        variables that have constraints, which become part of the training step.

    Raises:
        UsageError: `model` is neither, or Keras runs on another backend than TensorFlow.
        ModelReadError: The file is missing or corrupt.
        UnsupportedError: The file holds code or classes that are not Keras' own; or TensorFlow cannot trace the model.
        OutputError: The output cannot be written.
    """
    load_tensorflow()
    import keras

    from graphfreeze.passes.write import write_fingerprint
    from graphfreeze.training.keras_endpoints import write_endpoints
    from graphfreeze.training.keras_file import load_keras_file

    if keras.backend.backend() != "tensorflow":
        raise UsageError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before it is imported")
    source = Path(model) if isinstance(model, str | Path) else None
    if source is None and not isinstance(model, keras.Model):
        raise UsageError(f"expected the path of a Keras file or a keras.Model, found {type(model).__name__}")
    loaded = model if source is None else load_keras_file(source, seed)
    inputs = [] if source is None else [source]
    with atomic_directory(Path(saved_model), overwrite=overwrite, inputs=inputs) as directory:
        written = write_endpoints(loaded, directory)
        write_fingerprint(directory)
    return {"schema_version": SCHEMA_VERSION, "saved_model": str(saved_model), **written}
