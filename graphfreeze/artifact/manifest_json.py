"""`manifest.json`: deterministic to write, strict to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from graphfreeze.artifact.manifest import (
    BATCH_ROLES,
    GRAPH_NAMES,
    SCHEMA_VERSION,
    STATE_ROLES,
    BatchEntry,
    BatchRole,
    Configuration,
    FrozenEntry,
    GraphEntry,
    LossEntry,
    Manifest,
    PartEntry,
    SlicesEntry,
    StateEntry,
    StateRole,
)
from graphfreeze.errors import ArtifactReadError

__all__ = ["from_json", "losses_to_json", "to_json"]

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
        document |= losses_to_json(manifest.losses) if key == "losses" else {key: value}
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


def losses_to_json(losses: Sequence[LossEntry]) -> dict[str, Any]:
    """`loss`, an object, where the endpoint has one output; else `losses`, one object for each output with a loss."""
    if len(losses) == 1 and losses[0].output is None:
        (only,) = losses
        weight = {} if only.weight == 1.0 else {"weight": only.weight}
        return {"loss": {"name": only.name, "arguments": dict(only.arguments), **weight}}
    return {
        "losses": [
            {"output": loss.output, "name": loss.name, "arguments": dict(loss.arguments), "weight": loss.weight}
            for loss in losses
        ]
    }


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
    fields = _Object(document, "manifest.json")
    manifest = Manifest(
        graphfreeze=fields.text("graphfreeze"),
        versions=fields.texts_by_name("versions"),
        opset=fields.integer("opset"),
        endpoint=fields.text("endpoint"),
        forward_endpoint=fields.text("forward_endpoint"),
        losses=_losses(fields),
        optimizer=_configuration(fields.object("optimizer")),
        seed=fields.integer("seed"),
        batch=tuple(_batch_entry(entry) for entry in fields.objects("batch")),
        state=tuple(_state_entry(entry) for entry in fields.objects("state")),
        frozen=tuple(_frozen_entry(entry) for entry in fields.objects("frozen")),
        graphs=_graphs(fields.object("graphs")),
        files=fields.texts_by_name("files"),
    )
    fields.finish()
    return manifest


def _configuration(fields: _Object) -> Configuration:
    configuration = Configuration(name=fields.text("name"), arguments=fields.mapping("arguments"))
    fields.finish()
    return configuration


def _losses(fields: _Object) -> tuple[LossEntry, ...]:
    if "losses" not in fields:
        only = fields.object("loss")
        weight = only.number("weight") if "weight" in only else 1.0
        losses = [LossEntry(only.text("name"), only.mapping("arguments"), weight=weight)]
        only.finish()
    else:
        losses = []
        for entry in fields.objects("losses"):
            name, arguments = entry.text("name"), entry.mapping("arguments")
            losses.append(LossEntry(name, arguments, entry.text("output"), entry.number("weight")))
            entry.finish()
        if not losses:
            fields.wrong("losses", "a list of at least one loss", [])
    return tuple(losses)


def _batch_entry(fields: _Object) -> BatchEntry:
    entry = BatchEntry(
        name=fields.text("name"),
        role=cast(BatchRole, fields.choice("role", BATCH_ROLES)),
        shape=fields.symbolic_shape("shape"),
        dtype=fields.text("dtype"),
        below=fields.integer("below") if "below" in fields else None,
    )
    fields.finish()
    return entry


def _state_entry(fields: _Object) -> StateEntry:
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


def _part(fields: _Object) -> PartEntry:
    entry = PartEntry(parameter=fields.text("parameter"), elements=fields.integer("elements"))
    fields.finish()
    return entry


def _slices(fields: _Object) -> SlicesEntry:
    entry = SlicesEntry(axis=fields.integer("axis"), count=fields.integer("count"))
    fields.finish()
    return entry


def _frozen_entry(fields: _Object) -> FrozenEntry:
    entry = FrozenEntry(
        name=fields.text("name"),
        object_path=fields.text("object_path"),
        elements=fields.integer("elements"),
        shape=fields.integers("shape"),
        dtype=fields.text("dtype"),
    )
    fields.finish()
    return entry


def _graphs(fields: _Object) -> dict[str, GraphEntry]:
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


# Of what is found in place of something else, so many characters tell enough.
_SHOWN = 120


class _Object:
    """A JSON object that is read key by key, each with its type; `finish` refuses what is left over."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def missing(self, key: str) -> None:
        raise ArtifactReadError(f"{self._where} lacks the key {key!r}. Run `graphfreeze rewrite` again.")

    def wrong(self, key: str, expected: str, found: object) -> None:
        text = repr(found)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise ArtifactReadError(
            f"{self._where}: {key!r} should be {expected}, found {shown}. Run `graphfreeze rewrite` again."
        )

    def finish(self) -> None:
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            raise ArtifactReadError(
                f"{self._where} has the unknown key {unknown[0]!r}. It was written by another version of graphfreeze."
            )

    def _take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        if key not in self._values:
            self.missing(key)
        value = self._values[key]
        # bool is an int to isinstance, and never one in the manifest.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.wrong(key, expected, value)
        self._read.add(key)
        return value

    def _take_all(self, key: str, kind: type | tuple[type, ...], expected: str) -> tuple[Any, ...]:
        values = self._take(key, list, expected)
        if any(not isinstance(value, kind) or isinstance(value, bool) for value in values):
            self.wrong(key, expected, values)
        return tuple(values)

    def text(self, key: str) -> str:
        return str(self._take(key, str, "a string"))

    def integer(self, key: str) -> int:
        return int(self._take(key, int, "an integer"))

    def number(self, key: str) -> float:
        return float(self._take(key, (int, float), "a number"))

    def boolean(self, key: str) -> bool:
        return bool(self._take(key, bool, "true or false"))

    def texts(self, key: str) -> tuple[str, ...]:
        return self._take_all(key, str, "a list of strings")

    def integers(self, key: str) -> tuple[int, ...]:
        return self._take_all(key, int, "a list of integers")

    def symbolic_shape(self, key: str) -> tuple[int | str, ...]:
        return self._take_all(key, (int, str), "a list of integers and names")

    def permutation(self, key: str) -> tuple[int, ...] | None:
        self._read.add(key)
        if key not in self._values:
            self.missing(key)
        return None if self._values[key] is None else self.integers(key)

    def mapping(self, key: str) -> dict[str, Any]:
        return dict(self._take(key, dict, "an object"))

    def texts_by_name(self, key: str) -> dict[str, str]:
        values = self.mapping(key)
        if any(not isinstance(value, str) for value in values.values()):
            self.wrong(key, "an object of strings", values)
        return values

    def object(self, key: str) -> _Object:
        return _Object(self.mapping(key), f"{self._where}: {key}")

    def objects(self, key: str) -> list[_Object]:
        values = self._take_all(key, dict, "a list of objects")
        return [_Object(value, f"{self._where}: {key}[{index}]") for index, value in enumerate(values)]

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            self.wrong(key, "one of " + ", ".join(choices), value)
        return value

    def file_name(self, key: str) -> str:
        """A plain file name: an artifact never refers to a file outside its directory."""
        value = self.text(key)
        if not value or value in (".", "..") or any(separator in value for separator in "/\\:"):
            self.wrong(key, "a file name without a directory", value)
        return value
