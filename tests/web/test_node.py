"""Node trains an artifact by the programs of docs/artifact.md as `Trainer` does. Nothing is downloaded here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import graphfreeze
from tools.web_cases.backends import run_documented_in_node
from tools.web_cases.cases import CASES
from tools.web_cases.trained import Trained

MODULES = os.environ.get("GRAPHFREEZE_NODE_MODULES")

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not on the PATH"),
    pytest.mark.skipif(
        not MODULES, reason="GRAPHFREEZE_NODE_MODULES does not name a node_modules with onnxruntime-node"
    ),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    assert MODULES is not None
    return Trained(CASES["cnn"], tmp_path_factory.mktemp("web"), Path(MODULES), steps=5)


@pytest.mark.parametrize("backend", ["node", "node-wasm", "node-documented"])
def test_node_trains_as_trainer_does(trained: Trained, backend: str) -> None:
    finding = trained.on(backend, None, software=True)
    assert (finding.outcome, finding.detail) == ("agrees", "")
    assert finding.loss_error is not None and finding.loss_error < 1e-5
    assert finding.frozen == 3 * 9 * 3 + 216


def test_what_node_trained_folds(trained: Trained, tmp_path: Path) -> None:
    run = run_documented_in_node(trained.folder)
    assert run.state is not None
    report = graphfreeze.fold(trained.folder / "out", tmp_path / "deploy", state=run.state)
    assert report["trained_variables"] > 0
    trainer = graphfreeze.Trainer(trained.folder / "out", device="cpu", state=run.state)
    before = graphfreeze.Trainer(trained.folder / "out", device="cpu").weights()
    moved = [name for name, value in trainer.weights().items() if not np.array_equal(value, before[name])]
    assert len(moved) >= 6
