"""Makes what the sides of one model need: its SavedModel, training steps with and without frozen parts, and a batch.

`python -m tools.bench_cases.prepare MODEL DIRECTORY` prints as JSON what conversion took.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

import graphfreeze
from tools.bench_cases.catalogue import MODELS, draw_batch
from tools.bench_cases.convert import ENDPOINT, LOSS, OPTIMIZER
from tools.bench_cases.forward_model import write_forward_model
from tools.bench_cases.keras_models import build
from tools.bench_cases.own_process import in_process

__all__ = ["prepare"]

_RUNS = 3
"""How often the conversion is measured."""


def prepare(name: str, directory: Path) -> dict[str, float]:
    """Write `saved_model`, `unfrozen`, `frozen`, `forward.onnx`, `trainable.json` and `batch.npz`.

    Returns:
        The fields of a `Conversion`: that of the step without frozen parts, in the fewest seconds of several runs.
    """
    model = MODELS[name]
    batch = draw_batch(model)
    np.savez(directory / "batch.npz", x=batch["x"], y=batch["y"])
    graphfreeze.export(build(model), directory / "saved_model")
    paths = [directory / "saved_model", directory / "unfrozen" / "training", directory / "batch.npz"]
    runs: list[dict[str, float]] = []
    for _ in range(_RUNS):
        shutil.rmtree(paths[1], ignore_errors=True)
        runs.append(in_process("tools.bench_cases.convert", *map(str, paths)))
    # Other work on the machine only adds to the time.
    found = min(runs, key=lambda run: run["seconds"]) | {"megabytes": max(run["megabytes"] for run in runs)}
    write_forward_model(directory / "unfrozen", directory, model.batch_size)
    graphfreeze.rewrite(
        directory / "saved_model",
        directory / "frozen",
        [graphfreeze.Selection("freeze", model.freeze)],
        loss=LOSS,
        optimizer=OPTIMIZER,
        endpoint=ENDPOINT,
        forward_endpoint=ENDPOINT,
        data=directory / "batch.npz",
        checks="static",
    )
    return found


if __name__ == "__main__":
    print(json.dumps(prepare(sys.argv[1], Path(sys.argv[2]))))
