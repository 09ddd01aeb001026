"""Models made to do harm by their files, one at a time: each is refused in one line, in little time and memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from .lookup_model import SHARD, change, refused, rewrite


def test_tables_and_assets_are_kept(model: Path) -> None:
    (model / "assets.extra").mkdir()
    (model / "assets.extra" / "notes.txt").write_text("mine")
    rewrite(model)
    out = model.parent / "out" / "saved_model"
    assert (out / "assets" / "words.txt").read_text() == "one\ntwo\n"
    assert (out / "assets.extra" / "notes.txt").read_text() == "mine"
    x, words = tf.constant([[1.0, -1.0]]), tf.constant(["two"])
    before, after = tf.saved_model.load(str(model)), tf.saved_model.load(str(out))
    np.testing.assert_array_equal(after.serve(x, words), before.serve(x, words))


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "sub/../../secret", "..\\secret", "C:\\secret", ""])
def test_assets_elsewhere(model: Path, name: str) -> None:
    change(model, lambda graph: setattr(graph.asset_file_def[0], "filename", name))
    assert "is no path below" in refused(model)


def test_missing_assets(model: Path) -> None:
    (model / "assets" / "words.txt").unlink()
    assert "words.txt is missing" in refused(model)


def test_assets_that_no_list_has(model: Path) -> None:
    change(model, lambda graph: graph.asset_file_def.pop())
    assert "is asset 0 of 0" in refused(model)


@pytest.mark.parametrize("name", ["assets/words.txt", "assets.extra", "notes.txt"])
def test_links_to_elsewhere(model: Path, name: str) -> None:
    secret = model.parent / "secret"
    secret.write_text("a password\n")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    assert "symbolic link to what lies outside" in refused(model)


def test_links_to_folders(model: Path) -> None:
    (model / "again").symlink_to(model)
    assert "symbolic link to a folder" in refused(model)


def test_links_to_nowhere(model: Path) -> None:
    (model / "loop").symlink_to(model / "loop")
    assert "leads nowhere" in refused(model)


def test_pipes(model: Path) -> None:
    os.mkfifo(model / "pipe")
    assert "neither a file nor a folder" in refused(model)


def test_files_of_a_cache_of_models(model: Path) -> None:
    """Such caches keep the files elsewhere and link to them."""
    secret = model.parent / "secret"
    secret.mkdir()
    for name in ("saved_model.pb", "variables/variables.index", SHARD.as_posix()):
        kept = (model / name).rename(secret / name.replace("/", "_"))
        (model / name).symlink_to(kept)
    rewrite(model)
    assert not (model.parent / "out" / "saved_model" / SHARD).is_symlink()
