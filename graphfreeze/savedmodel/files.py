"""What lies in a SavedModel's directory: find and parse it, or say in one line what is there instead."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import ModelReadError, UnsupportedError

__all__ = [
    "TEXT_GRAPH",
    "VARIABLES_PREFIX",
    "check_variable_files",
    "parse_saved_model",
    "parse_text",
    "read_saved_model",
]

VARIABLES_PREFIX = "variables/variables"
TEXT_GRAPH = "saved_model.pbtxt"

_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})")
_KERAS_SUFFIXES = {".keras": "a Keras 3 file", ".h5": "a Keras HDF5 file", ".hdf5": "a Keras HDF5 file"}


def read_saved_model(directory: Path) -> saved_model_pb2.SavedModel:
    """Parse the `saved_model.pb` of a directory, or its `saved_model.pbtxt`, which is the same as text.

    Args:
        directory: The SavedModel's directory.

    Returns:
        The parsed proto.

    Raises:
        ModelReadError: Nothing is there, it is something else, or it is corrupt.
        UnsupportedError: It is a SavedModel in another format.
    """
    _check_directory(directory)
    file, text = directory / "saved_model.pb", directory / TEXT_GRAPH
    if not file.is_file() and not text.is_file():
        raise _no_saved_model_pb(directory)
    file = file if file.is_file() else text
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelReadError(f"{file} cannot be read: {error.strerror}.") from error
    return parse_text(content, str(file)) if file == text else parse_saved_model(content, str(file))


def parse_text(content: bytes, origin: str) -> saved_model_pb2.SavedModel:
    """Parse a SavedModel proto in the text format.

    Args:
        content: The bytes of a `saved_model.pbtxt`.
        origin: Where they come from, for the message.

    Raises:
        ModelReadError: They are not a whole SavedModel proto.
    """
    proto = saved_model_pb2.SavedModel()
    try:
        text_format.Parse(content.decode(), proto)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise ModelReadError(
            f"{origin} is truncated or corrupt: {reason}. Expected a SavedModel proto as text. Export the model again."
        ) from error
    return _with_graph(proto, content, origin)


def parse_saved_model(content: bytes, origin: str) -> saved_model_pb2.SavedModel:
    """Parse a serialised SavedModel proto.

    Args:
        content: The bytes of a `saved_model.pb`.
        origin: Where they come from, for the message.

    Raises:
        ModelReadError: They are not a whole SavedModel proto.
    """
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelReadError(
            f"{origin} is truncated or corrupt: {len(content)} bytes that are not a SavedModel proto. "
            "Export the model again."
        ) from error
    return _with_graph(proto, content, origin)


def _with_graph(proto: saved_model_pb2.SavedModel, content: bytes, origin: str) -> saved_model_pb2.SavedModel:
    if not proto.meta_graphs:
        raise ModelReadError(f"{origin} holds no graph ({len(content)} bytes). Export the model again.")
    return proto


def check_variable_files(directory: Path, stem: str = VARIABLES_PREFIX) -> None:
    """Check that a checkpoint's index and all its shards are there.

    Args:
        directory: The SavedModel's directory, or another checkpoint's.
        stem: How the names of its files begin, from there.

    Raises:
        ModelReadError: The index or a shard is missing.
    """
    index = directory / f"{stem}.index"
    if not index.is_file():
        raise ModelReadError(f"{index} is missing: the SavedModel is incomplete. Copy or export it again, whole.")
    name = Path(stem).name
    shards = [f.name for f in index.parent.iterdir() if f.name.startswith(f"{name}.data-")]
    found = {shard: int(m.group(2)) for shard in shards if (m := _SHARD.fullmatch(shard, len(name)))}
    count = max(found.values(), default=1)
    missing = [shard for i in range(count) if (shard := f"{name}.data-{i:05}-of-{count:05}") not in found]
    if missing:
        raise ModelReadError(
            f"{index.parent} lacks {', '.join(missing)}: the SavedModel is incomplete. Copy or export it again, whole."
        )


def _check_directory(directory: Path) -> None:
    """Refuse what is no directory at all."""
    if directory.is_dir():
        return
    if not directory.exists():
        raise ModelReadError(f"{directory} does not exist. Expected the directory of a SavedModel.")
    kind = _KERAS_SUFFIXES.get(directory.suffix.lower())
    if kind is None:
        raise ModelReadError(
            f"{directory} is a file. Expected the directory of a SavedModel, which holds saved_model.pb."
        )
    raise ModelReadError(
        f"{directory} is {kind}, not a SavedModel. Export it first: graphfreeze export {directory} SAVED_MODEL."
    )


def _no_saved_model_pb(directory: Path) -> ModelReadError | UnsupportedError:
    """The error for a directory without `saved_model.pb`, from what it holds."""
    if (directory / "saved_model.cpb").is_file():
        return UnsupportedError(
            f"{directory} holds saved_model.cpb, the split format, which is not supported. "
            "Save the model again without the option experimental_image_format."
        )
    names = sorted(entry.name for entry in directory.iterdir())
    if not names:
        return ModelReadError(f"{directory} is empty. Expected a SavedModel, which holds saved_model.pb.")
    if "saved_model.pb" in names:
        return ModelReadError(f"{directory / 'saved_model.pb'} is no file. Expected the graph that the export wrote.")
    inner = [name for name in names if (directory / name / "saved_model.pb").is_file()]
    if inner:
        return ModelReadError(f"{directory} is no SavedModel, but {directory / inner[0]} is. Give that path.")
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return ModelReadError(f"{directory} holds no saved_model.pb, only {shown}. Expected the directory of a SavedModel.")
