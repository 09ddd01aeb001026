"""Writing a rewritten SavedModel."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2
from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

from graphfreeze.errors import OutputError
from graphfreeze.passes.copying import copy_file, link_or_copy
from graphfreeze.passes.extend_checkpoint import Copy, extend_checkpoint
from graphfreeze.passes.freeze_reads import RewrittenModel
from graphfreeze.passes.serialise import serialise
from graphfreeze.savedmodel.directory import check_files
from graphfreeze.savedmodel.earlier import original_file
from graphfreeze.savedmodel.files import TEXT_GRAPH, VARIABLES_PREFIX
from graphfreeze.savedmodel.keras_metadata import KERAS_METADATA
from graphfreeze.savedmodel.meta_graphs import join_graphs

__all__ = ["copy_files", "write", "write_fingerprint"]

_REPLACED = ("saved_model.pb", TEXT_GRAPH, "fingerprint.pb", KERAS_METADATA)
_NOTES = ("assets.extra", "graphfreeze")


def write(
    rewritten: RewrittenModel, directory: str | os.PathLike[str], *, link: bool = False, copy: Copy = copy_file
) -> None:
    """Write a rewritten SavedModel: the new graph, with copies of checkpoint, assets and all else.

    The same model and plan give the same bytes. The original's directory is only read.

    Args:
        rewritten: The rewritten model. Its graph is given up: with constants in it, it may be as large as the model,
            and TensorFlow needs as much again for the fingerprint.
        directory: Where to; it must not exist, or be empty.
        link: Hard-link files instead of copying them, where the file system can. Changing a linked file in place would
            change the original's too.
        copy: Copies a file.

    Raises:
        OutputError: The directory holds something, or cannot be written.
        UnsupportedError: The graph is larger than protobuf can serialise.
    """
    target = Path(directory)
    try:
        # Stored masks and values make it another checkpoint, with the same shards and more.
        copy = link_or_copy if link else copy
        copy_files(rewritten.original.directory, target, variables=not rewritten.stored, copy=copy)
        if rewritten.stored:
            extend_checkpoint(rewritten.original, rewritten.plan, rewritten.stored, target, copy)
        with (target / "saved_model.pb").open("wb") as file:
            file.writelines(_content(rewritten))
        # Clearing a message does not free its memory.
        rewritten.proto = saved_model_pb2.SavedModel()
        if rewritten.keras_metadata is not None:
            (target / KERAS_METADATA).write_bytes(rewritten.keras_metadata)
        write_fingerprint(target)
        _drop_stale_fingerprint(rewritten.original.directory, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}.") from error
    except tf.errors.OpError as error:
        raise OutputError(f"{target} cannot be written: {str(error).splitlines()[0]}.") from error


def _content(rewritten: RewrittenModel) -> Iterable[bytes]:
    """The new `saved_model.pb`. Of several graphs, those that did not change keep their bytes."""
    original = original_file(rewritten.original.directory, "saved_model.pb")
    pieces = serialise(rewritten.proto)
    if rewritten.changed is None or not original.is_file():
        return pieces
    graphs = rewritten.proto.meta_graphs
    changed = {i: graphs[i].SerializeToString(deterministic=True) for i in sorted(rewritten.changed)}
    return [join_graphs(original.read_bytes(), changed)]


def copy_files(source: Path, target: Path, *, variables: bool = True, copy: Copy = copy_file) -> None:
    """Copy a SavedModel's directory without graph, fingerprint, Keras 2 configuration, and notes of an earlier rewrite.

    Args:
        source: Where from.
        target: Where to; it must not exist, or be empty.
        variables: Whether to copy the checkpoint too.
        copy: Copies or links a file.

    Raises:
        ModelReadError: `source` holds links that lead elsewhere, or what is no file.
        OutputError: `target` holds something.
        OSError: Something cannot be read or written.
    """
    check_files(source)
    if target.exists() and any(target.iterdir()):
        raise OutputError(f"{target} is not empty. Give a new directory.")
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.rglob("*")):
        path = file.relative_to(source)
        if path.parts[0] in _REPLACED or path.parts[:2] == _NOTES or (path.parts[0] == "variables" and not variables):
            continue
        if file.is_dir():
            (target / path).mkdir(parents=True, exist_ok=True)
        else:
            (target / path.parent).mkdir(parents=True, exist_ok=True)
            copy(str(file), str(target / path))


def write_fingerprint(directory: Path) -> None:
    """Write the `fingerprint.pb` of a SavedModel, with an identifier that follows from its content.

    TensorFlow draws the identifier at random; here it is the start of a hash of the other fields.
    """
    fingerprint = fingerprint_pb2.FingerprintDef()
    fingerprint.ParseFromString(fingerprinting.CreateFingerprintDef(str(directory)))
    fingerprint.ClearField("uuid")
    digest = hashlib.sha256(fingerprint.SerializeToString(deterministic=True)).digest()
    fingerprint.uuid = str(int.from_bytes(digest[:16], "big"))
    (directory / "fingerprint.pb").write_bytes(fingerprint.SerializeToString(deterministic=True))


def _drop_stale_fingerprint(original: Path, target: Path) -> None:
    """Leave the new fingerprint out where the original's was none of the original: it would seem to prove a change.

    A rewrite does not change signatures, so that their hash stays if it was right; so does that of an equal checkpoint.
    """
    if not (original / "fingerprint.pb").is_file():
        return
    old, new = fingerprint_pb2.FingerprintDef(), fingerprint_pb2.FingerprintDef()
    try:
        old.ParseFromString((original / "fingerprint.pb").read_bytes())
    except DecodeError:
        (target / "fingerprint.pb").unlink()
        return
    new.ParseFromString((target / "fingerprint.pb").read_bytes())
    index = f"{VARIABLES_PREFIX}.index"
    kept = (original / index).is_file() and (original / index).read_bytes() == (target / index).read_bytes()
    stale = old.signature_def_hash != new.signature_def_hash or (kept and old.checkpoint_hash != new.checkpoint_hash)
    if old.version == new.version and stale:
        (target / "fingerprint.pb").unlink()
