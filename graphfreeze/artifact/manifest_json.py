"""`manifest.json`: deterministic to write, strict to read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, cast

from graphfreeze.artifact.configurations import (
    losses_from_json,
    losses_to_json,
    optimizers_from_json,
    optimizers_to_json,
)
from graphfreeze.artifact.json_object import JsonObject
from graphfreeze.artifact.manifest import (
    BATCH_ROLES,
    GRAPH_NAMES,
    SCHEMA_VERSION,
    STATE_ROLES,
    BatchEntry,
    BatchRole,
    FrozenEntry,
    GraphEntry,
    Manifest,
    PartEntry,
    SlicesEntry,
    StateEntry,
    StateRole,
)
from graphfreeze.errors import ArtifactReadError

__all__ = ["from_json", "to_json"]

# Keys that a state entry has only where they mean something for its role.
_OPTIONAL_STATE_KEYS = (
    "object_path",
    "parameter",
    "trainable",
    "elements",
    "frozen_elements",
    "form",
    "constrained",
    "trained_slices",
    "parts",
)


def to_json(manifest: Manifest) -> str:
    """The text of `manifest.json`. Equal manifests give equal text."""
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for key, value in asdict(manifest).items():
        if key == "losses":
            document |= losses_to_json(manifest.losses)
        elif key == "optimizers":
            document |= optimizers_to_json(manifest.optimizers)
        else:
            document[key] = value
    for entry in document["state"]:
        for key in _OPTIONAL_STATE_KEYS:
            if entry[key] is None:
                del entry[key]
    for entry in document["batch"]:
        if entry["below"] is None:
            del entry["below"]
    for key in ("versions", "files"):
        document[key] = dict(sorted(document[key].items()))
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Manifest:
    """Read the text of a `manifest.json`.

    Raises:
        ArtifactReadError: It is not JSON, has another schema version, or a key is missing, unknown or of a wrong type.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ArtifactReadError(
            f"manifest.json is not valid JSON: {error}. Run `graphfreeze rewrite` again."
        ) from error
    if not isinstance(document, dict):
        raise ArtifactReadError(f"manifest.json holds a {type(document).__name__} where an object was expected.")
    version = document.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ArtifactReadError(
            f"manifest.json has schema_version {version!r}; this version of graphfreeze reads {SCHEMA_VERSION}. "
            "Run `graphfreeze rewrite` again, or use the version of graphfreeze that wrote it."
        )
    fields = JsonObject(document, "manifest.json")
    manifest = Manifest(
        graphfreeze=fields.text("graphfreeze"),
        versions=fields.texts_by_name("versions"),
        opset=fields.integer("opset"),
        endpoint=fields.text("endpoint"),
        forward_endpoint=fields.text("forward_endpoint"),
        losses=losses_from_json(fields),
        optimizers=optimizers_from_json(fields),
        seed=fields.integer("seed"),
        batch=tuple(_batch_entry(entry) for entry in fields.objects("batch")),
        state=tuple(_state_entry(entry) for entry in fields.objects("state")),
        frozen=tuple(_frozen_entry(entry) for entry in fields.objects("frozen")),
        graphs=_graphs(fields.object("graphs")),
        files=fields.texts_by_name("files"),
    )
    fields.finish()
    return manifest


def _batch_entry(fields: JsonObject) -> BatchEntry:
    entry = BatchEntry(
        name=fields.text("name"),
        role=cast(BatchRole, fields.choice("role", BATCH_ROLES)),
        shape=fields.symbolic_shape("shape"),
        dtype=fields.text("dtype"),
        below=fields.integer("below") if "below" in fields else None,
    )
    fields.finish()
    return entry


def _state_entry(fields: JsonObject) -> StateEntry:
    entry = StateEntry(
        name=fields.text("name"),
        role=cast(StateRole, fields.choice("role", STATE_ROLES)),
        shape=fields.integers("shape"),
        dtype=fields.text("dtype"),
        updated=fields.boolean("updated"),
        permutation=fields.permutation("permutation"),
        object_path=fields.text("object_path") if "object_path" in fields else None,
        parameter=fields.text("parameter") if "parameter" in fields else None,
        trainable=fields.boolean("trainable") if "trainable" in fields else None,
        elements=fields.integer("elements") if "elements" in fields else None,
        frozen_elements=fields.integer("frozen_elements") if "frozen_elements" in fields else None,
        form=fields.text("form") if "form" in fields else None,
        constrained=fields.boolean("constrained") if "constrained" in fields else None,
        trained_slices=_slices(fields.object("trained_slices")) if "trained_slices" in fields else None,
        parts=tuple(_part(part) for part in fields.objects("parts")) if "parts" in fields else None,
    )
    needed = ("object_path", "trainable", "elements", "frozen_elements") if entry.role == "parameter" else ()
    for key in needed:
        if getattr(entry, key) is None:
            fields.missing(key)
    if entry.permutation is not None and sorted(entry.permutation) != list(range(len(entry.shape))):
        fields.wrong("permutation", f"a permutation of {len(entry.shape)} axes", list(entry.permutation))
    slices = entry.trained_slices
    if slices is not None and not (0 <= slices.axis < len(entry.shape) and 0 < slices.count < entry.shape[slices.axis]):
        fields.wrong("trained_slices", f"some slices along an axis of {list(entry.shape)}", asdict(slices))
    parts = entry.parts
    if parts is not None and entry.shape != (sum(part.elements for part in parts),):
        fields.wrong(
            "parts", f"parts that together have the shape {list(entry.shape)}", [asdict(part) for part in parts]
        )
    fields.finish()
    return entry


def _part(fields: JsonObject) -> PartEntry:
    entry = PartEntry(parameter=fields.text("parameter"), elements=fields.integer("elements"))
    fields.finish()
    return entry


def _slices(fields: JsonObject) -> SlicesEntry:
    entry = SlicesEntry(axis=fields.integer("axis"), count=fields.integer("count"))
    fields.finish()
    return entry


def _frozen_entry(fields: JsonObject) -> FrozenEntry:
    entry = FrozenEntry(
        name=fields.text("name"),
        object_path=fields.text("object_path"),
        elements=fields.integer("elements"),
        shape=fields.integers("shape"),
        dtype=fields.text("dtype"),
    )
    fields.finish()
    return entry


def _graphs(fields: JsonObject) -> dict[str, GraphEntry]:
    graphs: dict[str, GraphEntry] = {}
    for name in GRAPH_NAMES:
        graph = fields.object(name)
        graphs[name] = GraphEntry(
            file=graph.file_name("file"),
            inputs=graph.texts("inputs"),
            outputs=graph.texts("outputs"),
            host_side=graph.texts("host_side"),
        )
        graph.finish()
    fields.finish()
    return graphs
