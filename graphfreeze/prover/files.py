"""The files of both SavedModel directories: which must be byte-identical, and which hold the graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from google.protobuf import text_format
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.file_bytes import first_difference
from graphfreeze.prover.messages import differing_fields

__all__ = ["KERAS_METADATA", "FirstDifference", "compare_files", "read_saved_model"]

FirstDifference = Callable[[Path, Path], int | None]
"""The offset of the first byte in which two files differ, or None."""

GRAPH = "saved_model.pb"
TEXT = "saved_model.pbtxt"
FINGERPRINT = "fingerprint.pb"
KERAS_METADATA = "keras_metadata.pb"
HASHES = tuple(field.name for field in fingerprint_pb2.FingerprintDef.DESCRIPTOR.fields if field.name != "version")
OWN_FOLDER = "assets.extra/graphfreeze/"
INDEX = "variables/variables.index"
SHARD = re.compile(r"variables/variables\.data-(\d{5})-of-\d{5}")


def read_saved_model(directory: Path, original: bool) -> saved_model_pb2.SavedModel:
    """Parse `saved_model.pb`; of an original without one, `saved_model.pbtxt`.

    Raises:
        ModelReadError: It is the original's, and missing or corrupt.
        VerificationError: It is the rewritten model's, and missing or corrupt.
    """
    path = directory / GRAPH
    model = saved_model_pb2.SavedModel()
    as_text = original and not path.exists() and (directory / TEXT).is_file()
    path = directory / TEXT if as_text else path
    try:
        content = path.read_bytes()
        if as_text:
            text_format.Parse(content.decode(), model)
        else:
            model.ParseFromString(content)
    except Exception as error:
        # protobuf's DecodeError is a plain Exception in some implementations.
        message = (
            f"expected a serialised SavedModel in {path.name} of {directory}, found {type(error).__name__}: {error}"
        )
        if original:
            raise ModelReadError(f"{message}. Give the directory that `model.export` wrote.") from error
        refuse(message)
    if not model.meta_graphs:
        refuse(f"expected a meta graph in {path.name} of {directory}, found none")
    return model


def _relative_files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}


def _compare_fingerprint(original: Path, rewritten: Path, stored: bool) -> None:
    """`fingerprint.pb` is derived from the rest; what it says of the checkpoint and signatures must not change."""
    prints = []
    for path in (original, rewritten):
        message = fingerprint_pb2.FingerprintDef()
        try:
            message.ParseFromString(path.read_bytes())
        except Exception as error:
            refuse(f"expected a FingerprintDef in {path.name}, found {type(error).__name__}: {error}", file=FINGERPRINT)
        prints.append(message)
    if differing_fields(prints[0], prints[1], skip=HASHES):
        # Another version of TensorFlow hashes in another way.
        return
    for field in ("signature_def_hash",) if stored else ("checkpoint_hash", "signature_def_hash"):
        before, after = getattr(prints[0], field), getattr(prints[1], field)
        if before != after:
            refuse(f"expected {FINGERPRINT} to keep {field} {before}, found {after}", file=FINGERPRINT, field=field)


def _align_shards(before: dict[str, Path], after: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Name each shard of both by its number alone; further shards and the indices, proven elsewhere, are left out."""

    def shards(files: dict[str, Path]) -> dict[str, Path]:
        return {f"shard {m.group(1)}": path for name, path in files.items() if (m := SHARD.fullmatch(name))}

    def others(files: dict[str, Path]) -> dict[str, Path]:
        return {name: path for name, path in files.items() if not SHARD.fullmatch(name) and name != INDEX}

    old, new = shards(before), shards(after)
    return others(before) | old, others(after) | {name: path for name, path in new.items() if name in old}


def compare_files(
    original: Path,
    rewritten: Path,
    *,
    stored: bool = False,
    difference: FirstDifference = first_difference,
) -> dict[str, int]:
    """Compare everything but the graph byte for byte: checkpoint shards, checkpoint index, assets.

    `fingerprint.pb` may be regenerated, new or absent. Files of the product's own live in `assets.extra/graphfreeze/`.
    What `keras_metadata.pb` says is not compared here. With `stored`, the checkpoint holds masks and values too: its
    index and further shards are compared elsewhere. `difference` compares two files.

    Returns:
        Evidence: how many files and bytes are identical.

    Raises:
        VerificationError: A file is missing, added, or differs.
    """
    before, after = _relative_files(original), _relative_files(rewritten)
    if stored:
        before, after = _align_shards(before, after)
    free = {GRAPH, FINGERPRINT}
    # A text gives place to what the loaders take first.
    before.pop(TEXT, None)
    for name in before:
        # The original may itself be an output of the product; its plan is replaced by the new one.
        if name not in after and name not in free and not name.startswith(OWN_FOLDER):
            refuse(f"expected the file {name} of the original, found none in the rewritten model", file=name)
    for name in after:
        if name not in before and name not in free and not name.startswith(OWN_FOLDER):
            refuse(f"expected only the original's files, found the added file {name}", file=name)
    free.add(KERAS_METADATA)
    identical = [name for name in before if name not in free and not name.startswith(OWN_FOLDER)]
    size = 0
    for name in identical:
        offset = difference(before[name], after[name])
        if offset is not None:
            refuse(
                f"expected {name} to be byte-identical to the original's, found a difference at byte {offset}",
                file=name,
                offset=offset,
            )
        size += before[name].stat().st_size
    if FINGERPRINT in before and FINGERPRINT in after:
        _compare_fingerprint(before[FINGERPRINT], after[FINGERPRINT], stored)
    return {"identical": len(identical), "identical_bytes": size}
