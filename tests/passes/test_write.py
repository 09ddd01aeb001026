"""Written models: reproducible bytes, everything else copied or linked, the original untouched."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from graphfreeze.errors import OutputError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel

from .harness import make_plan
from .models import MODELS

Saved = Callable[[str], Path]

NAMES = ("control_flow", "custom_gradients")


def rewrite_all(source: Path, target: Path) -> None:
    """Rewrite some models."""
    for name in NAMES:
        model = SavedModel.load(source / name)
        write(freeze_reads(model, make_plan(model, ("a", "b"), "blend")), target / name)


def digests(directory: Path) -> dict[str, str]:
    """The hash of every file below a directory."""
    files = sorted(f for f in directory.rglob("*") if f.is_file())
    return {str(f.relative_to(directory)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_two_processes_write_the_same_bytes(saved: Saved, tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copytree(saved(name), tmp_path / "in" / name)
    rewrite_all(tmp_path / "in", tmp_path / "here")
    # Strings hash differently there, so that sets and maps have another order.
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    lines = ["import sys; from pathlib import Path; from tests.passes.test_write import rewrite_all"]
    lines += ["rewrite_all(Path(sys.argv[1]), Path(sys.argv[2]))"]
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path / "in"), str(tmp_path / "there")]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    found = digests(tmp_path / "here")
    assert found == digests(tmp_path / "there")
    assert {"control_flow/saved_model.pb", "control_flow/fingerprint.pb"} <= found.keys()


@pytest.mark.parametrize("link", [False, True])
def test_the_rest_is_copied(saved: Saved, tmp_path: Path, link: bool) -> None:
    shutil.copytree(saved("dense"), tmp_path / "in")
    (tmp_path / "in" / "assets.extra").mkdir()
    (tmp_path / "in" / "assets.extra" / "notes.txt").write_text("notes")
    before = digests(tmp_path / "in")
    # What an earlier rewrite noted would say of this one what is not true.
    (tmp_path / "in" / "assets.extra" / "graphfreeze").mkdir()
    (tmp_path / "in" / "assets.extra" / "graphfreeze" / "plan.json").touch()
    model = SavedModel.load(tmp_path / "in")
    write(freeze_reads(model, make_plan(model, MODELS["dense"].targets, "blend")), tmp_path / "out", link=link)
    after = digests(tmp_path / "out")
    assert digests(tmp_path / "in").items() >= before.items()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"saved_model.pb", "fingerprint.pb"}
    for name in ("variables/variables.index", "assets.extra/notes.txt"):
        assert (tmp_path / "in" / name).samefile(tmp_path / "out" / name) == link
    for name in ("saved_model.pb", "fingerprint.pb"):
        assert not (tmp_path / "in" / name).samefile(tmp_path / "out" / name)


def test_the_fingerprint_is_of_the_new_model(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    write(freeze_reads(model, make_plan(model, MODELS["dense"].targets, "blend")), tmp_path / "out")
    before = tf.saved_model.experimental.read_fingerprint(str(saved("dense")))
    after = tf.saved_model.experimental.read_fingerprint(str(tmp_path / "out"))
    assert after.saved_model_checksum != before.saved_model_checksum
    assert after.checkpoint_hash == before.checkpoint_hash


def test_what_is_there_is_not_overwritten(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    rewritten = freeze_reads(model, make_plan(model, MODELS["dense"].targets, "blend"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not empty"):
        write(rewritten, tmp_path)
    with pytest.raises(OutputError, match="cannot be written"):
        write(rewritten, tmp_path / "file" / "out")
