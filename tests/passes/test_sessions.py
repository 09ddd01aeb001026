"""Session loaders: the rewritten model against the folded original, and what a session saves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.passes.fold import fold
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form

from .harness import make_plan, run_session
from .models import MODELS, X

Saved = Callable[[str], Path]


@pytest.mark.parametrize("form", ["blend", "select"])
@pytest.mark.parametrize("name", MODELS)
def test_sessions_see_the_freeze(saved: Saved, tmp_path: Path, name: str, form: Form) -> None:
    sample = MODELS[name]
    model = SavedModel.load(saved(name))
    plan = make_plan(model, sample.targets, form)
    write(freeze_reads(model, plan), tmp_path / "out")
    fold(saved(name) / "saved_model.pb", tmp_path / "out", plan, {}, tmp_path / "folded")
    before, expected = run_session(saved(name), sample), run_session(tmp_path / "folded", sample)
    for key, value in run_session(tmp_path / "out", sample).items():
        assert value.tobytes() == expected[key].tobytes(), key
        assert value.tobytes() != before[key].tobytes(), f"{key} does not depend on the plan"


def test_a_session_saves_the_raw_variables(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    write(freeze_reads(model, make_plan(model, MODELS["dense"].targets, "blend")), tmp_path / "out")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "out"))
        saver = meta_graph.saver_def
        session.run(saver.save_tensor_name, {saver.filename_tensor_name: str(tmp_path / "checkpoint")})
    stored = tf.train.load_checkpoint(str(tmp_path / "checkpoint"))
    for variable in model.variables:
        key = model.key_of_node[model.node_id(variable)]
        assert stored.get_tensor(key).tobytes() == model.read(variable).tobytes(), variable.name


def test_saved_model_cli_sees_the_freeze(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    write(freeze_reads(model, make_plan(model, MODELS["dense"].targets, "blend")), tmp_path / "out")
    np.save(tmp_path / "x.npy", X)
    tool = Path(sys.executable).parent / "saved_model_cli"
    options = ["--tag_set", "serve", "--signature_def", "serving_default", "--inputs", f"x={tmp_path / 'x.npy'}"]
    command = [str(tool), "run", "--dir", str(tmp_path / "out"), *options, "--outdir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    expected = run_session(tmp_path / "out", MODELS["dense"])["signature serving_default output_0"]
    assert np.load(tmp_path / "output_0.npy").tobytes() == expected.tobytes()
