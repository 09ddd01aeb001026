"""The command `train`: data in, a state file and a report out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from graphfreeze.artifact.data import DataSource, load_data
from graphfreeze.artifact.reader import Artifact, read_artifact
from graphfreeze.artifact.tensors import write_tensors
from graphfreeze.errors import ValidationError
from graphfreeze.output import atomic_file
from graphfreeze.runtime.trainer import Progress, Trainer

__all__ = ["TRAINED_FILE", "train"]

SCHEMA_VERSION = 1
TRAINED_FILE = "trained.safetensors"


def train(
    out: str | Path | Artifact,
    data: DataSource,
    *,
    epochs: int,
    batch_size: int,
    device: str = "auto",
    save: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train an artifact from its initial state, and save the trained state.

    Args:
        out: The OUT of a rewrite.
        data: An `.npz`, a directory of `.npy`, or arrays by name.
        epochs: How often to go over the data.
        batch_size: Examples per step.
        device: `auto`, `cpu` or `cuda`.
        save: Where the trained state goes; by default `OUT/training/trained.safetensors`.
        seed: The seed of the order of the examples.
        progress: Called after each step.

    Returns:
        A JSON-ready report. `frozen_elements_changed` is None where OUT/plan is missing, which says what is frozen.

    Raises:
        ArtifactReadError: The artifact is missing or corrupt.
        DataError: The data do not fit.
        ValidationError: `cuda` was demanded and cannot be used, the loss is not finite, or a frozen element changed
            (nothing is saved then).
        OutputError: The state cannot be written, or would replace the data or a file of the artifact.
    """
    artifact = out if isinstance(out, Artifact) else read_artifact(out)
    artifact.verify_hashes()
    dataset = load_data(data, artifact.manifest.batch)
    trainer = Trainer(artifact, device=device)
    path = artifact.directory / TRAINED_FILE if save is None else Path(save)
    inputs = [artifact.directory / name for name in ("manifest.json", *artifact.manifest.files)]
    inputs += [Path(data)] if isinstance(data, str | Path) else []
    # Opened first, so that nobody trains for hours what cannot be saved.
    with atomic_file(path, overwrite=True, inputs=inputs) as temporary:
        losses = trainer.fit(dataset, epochs=epochs, batch_size=batch_size, seed=seed, progress=progress)
        state = trainer.state_dict()
        changed = None if trainer.frozen is None else trainer.frozen.changed(state)
        partly = sum(entry.frozen_elements or 0 for entry in artifact.manifest.state)
        report = {
            "schema_version": SCHEMA_VERSION,
            "device": trainer.device.kind,
            "device_reason": trainer.device.reason,
            "examples": dataset.examples,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": seed,
            "steps": trainer.steps,
            "casts": list(dataset.casts),
            "losses": losses,
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "last_output_losses": trainer.output_losses,
            "frozen_elements": partly + sum(entry.elements for entry in artifact.manifest.frozen),
            "frozen_elements_changed": None if changed is None else sum(changed.values()),
            "state": str(path),
        }
        diverged = next((epoch for epoch, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
        if diverged is not None:
            raise ValidationError(
                f"the loss is {losses[diverged - 1]} in epoch {diverged}: training diverged, and nothing was saved. "
                "Rewrite with a lower learning rate or with clipping, or look for such values in the data.",
                {**report, "state": None},
            )
        if changed:
            name, count = next(iter(changed.items()))
            raise ValidationError(
                f"{count} frozen elements of {name} changed during training; nothing was saved. "
                "Run `graphfreeze validate` for the reason.",
                {**report, "changed": changed, "state": None},
            )
        write_tensors(temporary, state)
    return report
