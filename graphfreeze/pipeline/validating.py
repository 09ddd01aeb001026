"""`validate`: the artifact against TensorFlow's reference, stored or new."""

from __future__ import annotations

from typing import Any, Literal

import numpy.typing as npt

from graphfreeze.artifact import Artifact, read_artifact
from graphfreeze.artifact.manifest import LossEntry, OptimizerEntry
from graphfreeze.errors import ArtifactReadError
from graphfreeze.pipeline.options import Options, StrPath
from graphfreeze.pipeline.report import Report
from graphfreeze.pipeline.training import reference_batch, stored_reference, trace
from graphfreeze.selection import load_plan
from graphfreeze.tensorflow_loader import load_tensorflow

__all__ = ["validate"]


def validate(
    out: StrPath, *, device: Literal["auto", "cpu", "cuda"] = "auto", data: StrPath | None = None, steps: int = 5
) -> Report:
    """Compare the artifact's loss and gradients with TensorFlow's reference, and check that frozen elements stay.

    Needs no TensorFlow, unless `data` asks for a new reference.

    Args:
        out: The OUT of a rewrite.
        device: Where to run; `cuda` demands CUDA.
        data: A batch whose reference TensorFlow computes now, instead of the stored one.
        steps: How many optimizer steps to check the frozen elements over.

    Raises:
        ValidationError: Something disagrees, or the demanded device did not run it.
        ArtifactReadError: The artifact is missing or corrupt.
        DataError: The data does not fit.
    """
    from graphfreeze.validation import validate as validate_artifact

    if data is None:
        return validate_artifact(out, device=device, steps=steps)
    load_tensorflow()
    artifact = read_artifact(out)
    return validate_artifact(out, device=device, steps=steps, reference=_new_reference(artifact, data))


def _written(entry: LossEntry | OptimizerEntry) -> str:
    """A loss or an optimizer of a manifest as it is written on the command line."""
    text = f"{entry.name}:" + ",".join(f"{key}={value}" for key, value in entry.arguments.items())
    if isinstance(entry, LossEntry):
        text += f":weight={entry.weight!r}"
    of = entry.output if isinstance(entry, LossEntry) else entry.parameters
    return text if of is None else f"{of}={text}"


def _new_reference(artifact: Artifact, data: StrPath) -> dict[str, npt.NDArray[Any]]:
    """TensorFlow's loss and gradients for the user's batch, from the rewritten SavedModel beside the artifact."""
    from graphfreeze.assembly import assemble
    from graphfreeze.checks.reference import compute_reference
    from graphfreeze.savedmodel.model import SavedModel

    manifest, out = artifact.manifest, artifact.directory.parent
    if not (out / "saved_model" / "saved_model.pb").is_file():
        raise ArtifactReadError(f"a new reference needs {out / 'saved_model'}, which is missing")
    options = Options(
        loss=[_written(loss) for loss in manifest.losses],
        sample_weight=any(entry.role == "sample_weight" for entry in manifest.batch),
        optimizer=[_written(optimizer) for optimizer in manifest.optimizers],
        endpoint=manifest.endpoint,
        forward_endpoint=manifest.forward_endpoint,
        data=data,
    )
    model = SavedModel.load(out / "saved_model")
    step = trace(model.directory, model, load_plan(out / "plan"), options)
    assembly = assemble(step, opset=manifest.opset, seed=manifest.seed)
    batch = reference_batch(step, assembly, options)
    return stored_reference(assembly, compute_reference(step, batch, manifest.seed), batch)
