"""The public function `fold`: from a trained state back to the original graph, and to a plain inference ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from graphfreeze.artifact import Artifact, FrozenElements, StateEntry, read_artifact, read_frozen_elements
from graphfreeze.artifact.averages import Averages
from graphfreeze.artifact.inference import write_inference_model
from graphfreeze.artifact.tensors import TensorFile
from graphfreeze.errors import ArtifactReadError, DataError
from graphfreeze.output import atomic_directory
from graphfreeze.selection import load_plan
from graphfreeze.tensorflow_loader import load_tensorflow

if TYPE_CHECKING:
    from graphfreeze.savedmodel.model import SavedModel

__all__ = ["fold"]

SCHEMA_VERSION = 1

Values = Mapping[str, npt.NDArray[Any]]
Weights = Literal["averages", "last"]


def fold(
    out: str | Path,
    deploy: str | Path,
    *,
    state: str | Path | None = None,
    weights: Weights | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a plain SavedModel: the original graph, with trained and frozen weights merged.

    Where OUT holds an ONNX training step, DEPLOY/model.onnx is its forward graph with the same weights inside.

    Args:
        out: The OUT of a rewrite.
        deploy: The directory to make.
        state: The trained state: a state file that `train` saved, a checkpoint of TensorFlow (its prefix, its index, or
            the directory of which the latest is taken) of the loaded OUT/saved_model, or that model saved again with
            `tf.saved_model.save`; by default OUT/training/trained.safetensors.
        weights: Of a state file, `averages` takes the averages that an optimizer with `use_ema` keeps, `last` the
            weights after the last step; by default the averages where there are some, as Keras' `fit` does at its end.
        overwrite: Replace an earlier output.

    Returns:
        The report.

    Raises:
        DataError: There is no trained state, it is not one of this model, or it has no averages that are demanded.
        UsageError: The freeze is limited to some endpoints, and the others take other values.
        FileError: Something cannot be read or written.
    """
    load_tensorflow()
    from graphfreeze.passes.fold import fold as fold_saved_model
    from graphfreeze.savedmodel.files import parse_saved_model
    from graphfreeze.savedmodel.model import SavedModel
    from graphfreeze.savedmodel.own_values import read_unchanged

    directory = Path(out)
    plan = load_plan(directory / "plan", lambda variable, checksum: read_unchanged(model, variable, checksum))
    source = Path(state) if state is not None else directory / "training" / "trained.safetensors"
    original = directory / "plan" / "original_saved_model.pb"
    if not original.is_file():
        raise DataError(f"expected the original graph at {original}, found none: give the OUT of a rewrite")
    content = original.read_bytes()
    # Of a Keras 2 save: what it notes of its layers, so that load_model works again.
    layers = directory / "plan" / "original_keras_metadata.pb"
    keras_metadata = layers.read_bytes() if layers.is_file() else None
    model = SavedModel(parse_saved_model(content, str(original)), directory / "saved_model", plan.tags)
    has_step = (directory / "training" / "manifest.json").is_file()
    artifact = read_artifact(directory) if has_step else None
    trained, others, taken = _trained_values(model, artifact, source, explicit=state is not None, weights=weights)
    inputs = [directory, *([source] if source.exists() else [])]
    with atomic_directory(Path(deploy), overwrite=overwrite, inputs=inputs) as destination:
        fold_saved_model(
            content, model.directory, plan, trained, destination, others=others, keras_metadata=keras_metadata
        )
        files: list[str] = []
        if artifact is not None and "forward" in artifact.manifest.graphs:
            folded = SavedModel(model.proto, destination)
            files = write_inference_model(artifact, _forward_state(artifact, folded, source), destination)
    return {
        "schema_version": SCHEMA_VERSION,
        "saved_model": str(deploy),
        "onnx": str(Path(deploy) / files[0]) if files else None,
        "state": str(source),
        "weights": taken,
        "trained_variables": len(trained),
        "frozen_elements": sum(v.frozen_elements for v in plan.variables),
    }


def _trained_values(
    model: SavedModel, artifact: Artifact | None, source: Path, *, explicit: bool, weights: Weights | None
) -> tuple[Values, Values, Weights]:
    """The trained values.

    Returns:
        Object path -> trained value, in TensorFlow's layout; checkpoint key -> value of what is no variable; and which
        weights these are.
    """
    from graphfreeze.savedmodel.lazy_arrays import LazyArrays
    from graphfreeze.savedmodel.trained_state import checkpoint_of, read_trained_state

    checkpoint = checkpoint_of(source) if explicit else None
    if checkpoint is not None:
        if weights == "averages":
            raise DataError(
                f"expected a state file with averages of weights, found {source}: give one, or leave it out"
            )
        found = read_trained_state(model, checkpoint)
        return found.variables, found.others, "last"
    if not source.is_file():
        raise DataError(
            f"expected a trained state at {source}, found none: "
            + (
                "give a state file, a checkpoint or a SavedModel"
                if explicit
                else "run graphfreeze train, or give --state"
            )
        )
    if artifact is None:
        raise DataError(
            f"{source} is a file, and this OUT has no training step whose state it could be: "
            "give a checkpoint of the loaded model, or a SavedModel"
        )
    stored, frozen = TensorFile(source), _frozen_elements(artifact)
    averages = _averages(artifact, stored, source, weights)
    paths = {variable.object_path for variable in model.variables}
    trained: dict[str, Callable[[], npt.NDArray[Any]]] = {}
    for entry in artifact.manifest.state:
        if entry.object_path is None:
            continue
        if entry.object_path not in paths:
            raise ArtifactReadError(
                f"{artifact.directory} does not belong to {model.directory}: the model has no variable at the object "
                f"path {entry.object_path!r} of {entry.name}. Both must come from one `graphfreeze rewrite`."
            )
        if entry.name not in stored or stored.shape(entry.name) != entry.stored_shape:
            raise DataError(f"{source} is no state of {model.directory.parent}: {entry.name} is missing or misshapen")
        trained[entry.object_path] = partial(_stored_value, averages or stored, entry, frozen)
    return LazyArrays(trained), {}, "last" if averages is None else "averages"


def _averages(artifact: Artifact, stored: TensorFile, source: Path, weights: Weights | None) -> Averages | None:
    """The averages of a state file; None where the last weights are to be taken."""
    if weights == "last" or any(entry.name not in stored for entry in artifact.manifest.state):
        return None
    averages = Averages(artifact.manifest, stored)
    if not averages and weights == "averages":
        raise DataError(
            f"expected averages of weights in {source}, found none: the optimizer of {artifact.directory} keeps none "
            "(use_ema=true), or made no step yet"
        )
    return averages if averages else None


def _stored_value(stored: TensorFile | Averages, entry: StateEntry, frozen: FrozenElements) -> npt.NDArray[Any]:
    values = stored.of(entry, frozen) if isinstance(stored, Averages) else stored[entry.name]
    return frozen.to_tensorflow(values, entry)


def _frozen_elements(artifact: Artifact) -> FrozenElements:
    """What is needed to put slices back among frozen ones; nothing is read where every state is whole."""
    if not any(entry.trained_slices for entry in artifact.manifest.state):
        return FrozenElements({}, {})
    frozen = read_frozen_elements(artifact)
    assert frozen is not None, "the plan was read before"
    return frozen


def _forward_state(artifact: Artifact, folded: SavedModel, source: Path) -> Values:
    """What the forward graph takes besides the batch, as stored: the folded model's own values.

    A state without a variable of the model behind it comes from the state file, else from the initial state.
    """
    frozen = _frozen_elements(artifact)
    variables = {variable.object_path: variable for variable in folded.variables}
    fallback: Values = TensorFile(source) if source.suffix == ".safetensors" else artifact.state
    taken = set(artifact.manifest.graphs["forward"].inputs)
    return {
        entry.name: frozen.to_stored(folded.read(variables[entry.object_path]), entry)
        if entry.object_path is not None
        else fallback[entry.name]
        for entry in artifact.manifest.state
        if entry.name in taken
    }
