"""What else lies in a SavedModel's directory: whether assets stay in it, and whether it can be copied as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.errors import ModelReadError

__all__ = ["check_assets", "check_files"]

# Caches of models keep their files elsewhere and link to them. What these hold is parsed, and not merely copied.
_MAY_BE_LINK = re.compile(
    r"(saved_model|fingerprint|keras_metadata)\.pb|saved_model\.pbtxt|variables/variables\.(index|data-\d{5}-of-\d{5})"
)
# Where TensorFlow 1 lists the assets.
_COLLECTION = "saved_model_assets"


def check_assets(meta_graph: meta_graph_pb2.MetaGraphDef, directory: Path) -> None:
    """Check that the assets that a graph names lie in `assets/`.

    Raises:
        ModelReadError: One lies elsewhere, or is missing.
    """
    file = directory / "saved_model.pb"
    names = [asset.filename for asset in meta_graph.asset_file_def]
    for i, node in enumerate(meta_graph.object_graph_def.nodes):
        if node.WhichOneof("kind") == "asset" and not 0 <= node.asset.asset_file_def_index < len(names):
            raise ModelReadError(
                f"{file} is corrupt: object {i} is asset {node.asset.asset_file_def_index} of {len(names)}. "
                "Export the model again."
            )
    for name in dict.fromkeys([*names, *_collected(meta_graph, file)]):
        if not name or "\0" in name or _leads_out(name):
            raise ModelReadError(
                f"{file} names the asset {name!r}, which is no path below {directory / 'assets'}. "
                "Do not load this model; export it again."
            )
        if not (directory / "assets" / name).is_file():
            raise ModelReadError(
                f"{directory / 'assets' / name} is missing: the SavedModel is incomplete. "
                "Copy or export it again, whole."
            )


def _collected(meta_graph: meta_graph_pb2.MetaGraphDef, file: Path) -> Iterator[str]:
    if _COLLECTION not in meta_graph.collection_def:
        return
    for value in meta_graph.collection_def[_COLLECTION].any_list.value:
        try:
            yield meta_graph_pb2.AssetFileDef.FromString(value.value).filename
        except DecodeError as error:
            raise ModelReadError(f"{file} is corrupt: its list of assets is. Export the model again.") from error


def _leads_out(name: str) -> bool:
    paths: list[Any] = [PurePosixPath(name), PureWindowsPath(name)]
    return any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)


def check_files(directory: Path) -> None:
    """Check that a directory can be copied as it is: that it holds files and folders, and no links to elsewhere.

    Raises:
        ModelReadError: It holds something else, or cannot be looked into.
    """
    root = Path(os.path.realpath(directory))
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            if path.is_dir():
                raise ModelReadError(
                    f"{path} is a symbolic link to a folder, which is not followed. Copy the model with cp -rL, "
                    "which replaces links by what they stand for."
                )
            inside = Path(os.path.realpath(path)).is_relative_to(root)
            if not inside and not _MAY_BE_LINK.fullmatch(name):
                raise ModelReadError(
                    f"{path} is a symbolic link to what lies outside of {directory}. If it shall become part of the "
                    "output, copy the model with cp -rL, which replaces links by what they stand for."
                )
        if not path.is_dir() and not path.is_file():
            raise ModelReadError(f"{path} is neither a file nor a folder, or leads nowhere. Remove it from the model.")
