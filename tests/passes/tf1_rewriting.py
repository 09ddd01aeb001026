"""Rewriting SavedModels of TensorFlow 1, with reference and with resource variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphfreeze
from graphfreeze import Selection
from graphfreeze.pipeline.report import Report

KINDS = pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])


def rewrite(model: Path, out: Path, *selectors: str, **options: Any) -> Report:
    selections = [Selection("freeze", text) for text in selectors]
    report: Report = graphfreeze.rewrite(model, out, selections, onnx=False, **options)
    assert graphfreeze.verify(model, out)["passed"]
    return report
