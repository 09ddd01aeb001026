"""The command `validate`: is the artifact right, on this machine, without TensorFlow?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from graphfreeze.artifact.consistency import check_reference
from graphfreeze.artifact.data import load_data
from graphfreeze.artifact.frozen import read_frozen_elements
from graphfreeze.artifact.manifest import GRADIENTS
from graphfreeze.artifact.reader import Artifact, read_artifact
from graphfreeze.errors import ArtifactReadError, DataError, UsageError, ValidationError
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.runtime.trainer import Trainer
from graphfreeze.validation.composition import check_composition
from graphfreeze.validation.devices import check_placement
from graphfreeze.validation.gradients import check_frozen_gradients, check_gradients, check_outputs, compare_gradients
from graphfreeze.validation.native_noise import check_distribution, find_native_noise
from graphfreeze.validation.steps import check_frozen_bits, check_movement, measure_movement

__all__ = ["validate"]

SCHEMA_VERSION = 1


def validate(
    out: str | Path | Artifact,
    *,
    device: str = "auto",
    reference: Mapping[str, npt.NDArray[Any]] | None = None,
    steps: int = 5,
) -> dict[str, Any]:
    """Compare the artifact's numbers with TensorFlow's, and watch it train.

    Args:
        out: The OUT of a rewrite.
        device: `auto`, `cpu` or `cuda`.
        reference: Replaces the stored `reference.safetensors`: a batch with TensorFlow's loss, gradients and noise.
        steps: How many optimizer steps to watch.

    Returns:
        A JSON-ready report: `passed` and `message`, facts, `parameters` (a record for each), `checks`, and `placement`:
        what ran where.

    Raises:
        ArtifactReadError: The artifact or its plan is missing or corrupt.
        DataError: `reference` does not fit the artifact.
        ValidationError: A check failed, or `cuda` was demanded and cannot be used; `details` is the report.
    """
    if steps < 1:
        raise UsageError(f"steps must be 1 or more, found {steps}.")
    artifact = out if isinstance(out, Artifact) else read_artifact(out)
    artifact.verify_hashes()
    manifest = artifact.manifest
    frozen = read_frozen_elements(artifact)
    if frozen is None:
        raise ArtifactReadError(
            f"{artifact.plan_directory} is missing, which says what is frozen. Validate the whole OUT of the rewrite."
        )
    expected = artifact.reference if reference is None else reference
    if reference is not None and (problems := check_reference(manifest, reference)):
        raise DataError(f"The reference does not fit the artifact: {problems[0]}.", {"problems": problems})
    chosen = choose_device(device)
    stored = {e.name: expected[f"batch/{e.name}"] for e in manifest.batch}
    try:
        dataset = load_data(stored, manifest.batch)
    except DataError as error:
        if reference is not None:
            raise
        raise ArtifactReadError(
            f"The reference batch of {artifact.directory} is not what its manifest says: {error} "
            "Run `graphfreeze rewrite` again."
        ) from error
    batch = dataset.batch(slice(None))
    initial = dict(artifact.state)

    outputs = GraphRunner(artifact, "gradients", chosen)({**initial, **batch})
    evidence = compare_gradients(manifest, frozen, outputs, expected)
    gradients = {name: value for name, value in outputs.items() if name.startswith(GRADIENTS)}
    checks = [
        check_outputs("loss equals TensorFlow's", outputs, expected, ["loss", *manifest.output_losses]),
        check_gradients(evidence),
        check_frozen_gradients(evidence),
    ]
    trainer = Trainer(artifact, device=chosen)
    if outputs_expected := [name for name in manifest.graphs["forward"].outputs if name in expected]:
        inputs = {name: batch[name] for name in manifest.graphs["forward"].inputs if name in batch}
        predicted = {f"output/{name}": value for name, value in trainer.predict(inputs).items()}
        checks.append(check_outputs("outputs equal TensorFlow's", predicted, expected, outputs_expected))
    losses: list[float] = []
    moved: dict[str, npt.NDArray[np.bool_]] = {}
    checks.append(check_frozen_bits(trainer, frozen, batch, steps, losses, moved))
    movements = measure_movement(
        manifest, frozen, initial, moved, gradients, GraphRunner(artifact, "apply_gradients", chosen)
    )
    checks.append(check_movement(movements, manifest, initial))
    checks.append(check_composition(artifact, chosen, {**initial, **batch}))
    noise = find_native_noise(artifact, chosen)
    if noise is not None:
        checks.append(check_distribution(noise, {**initial, **batch}))
    placed, placement = check_placement(artifact, chosen, {**initial, **batch, **gradients}, dataset.examples)
    checks.append(placed)

    records = [{**found.record(), **movement.record()} for found, movement in zip(evidence, movements, strict=True)]
    failed = [check for check in checks if not check.passed]
    report = {
        "schema_version": SCHEMA_VERSION,
        "passed": not failed,
        "message": f"{len(checks) - len(failed)} of {len(checks)} checks passed on {chosen.kind}, over "
        f"{len(records)} gradients and {steps} steps",
        "device": chosen.kind,
        "device_reason": chosen.reason,
        "reference": "stored" if reference is None else "given",
        "loss": float(outputs["loss"]),
        "loss_expected": float(expected["loss"]),
        "examples": dataset.examples,
        "steps": steps,
        "losses": losses,
        "frozen_elements": frozen.elements + sum(entry.elements for entry in manifest.frozen),
        "versions": {
            **manifest.versions,
            "graphfreeze": manifest.graphfreeze,
            "onnxruntime": onnxruntime.__version__,
        },
        "parameters": records,
        "checks": [asdict(check) for check in checks],
        "placement": placement,
    }
    if failed:
        raise ValidationError(
            f"{len(failed)} of {len(checks)} checks failed on {chosen.kind}. "
            + " ".join(f"{check.name}: NO: {check.message}." for check in failed),
            report,
        )
    return report
