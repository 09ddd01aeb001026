"""The specification file: the options of a rewrite in TOML, with the selectors as an ordered list.

`spec.schema.json` is the one place that says which keys exist and what they hold.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from graphfreeze.errors import SpecError
from graphfreeze.selection.forms import RequestedForm
from graphfreeze.selection.nearest import suggest
from graphfreeze.selection.resolve import Selection

__all__ = ["Spec", "load_spec", "spec_schema"]


@dataclass(frozen=True, slots=True)
class Spec:
    """A specification file. Each attribute is the option of the same name; None where the file does not give it.

    Attributes:
        selections: The selectors, in order; relative paths in them start from the file's directory.
    """

    selections: tuple[Selection, ...] = ()
    form: RequestedForm | None = None
    tags: str | tuple[str, ...] | None = None
    only_in: tuple[str, ...] | None = None
    loss: str | tuple[str, ...] | None = None
    sample_weight: bool | None = None
    optimizer: str | tuple[str, ...] | None = None
    endpoint: str | None = None
    forward_endpoint: str | None = None
    no_onnx: bool | None = None
    opset: int | None = None
    data: Path | None = None
    seed: int | None = None
    checks: Literal["full", "static", "none"] | None = None
    device: Literal["auto", "cpu", "cuda"] | None = None
    noise: Literal["exact", "native"] | None = None
    keras2: Literal["refuse", "keep"] | None = None
    link: bool | None = None


@cache
def spec_schema() -> dict[str, Any]:
    """The JSON Schema of specification files."""
    text = resources.files("graphfreeze.selection").joinpath("spec.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def load_spec(path: Path) -> Spec:
    """Read a specification file.

    Raises:
        SpecError: The file is missing, is not TOML, or a key is unknown or holds something else than it should.
    """
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"the specification {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not TOML: {error}") from None
    _validate(options, path)
    options.pop("schema_version", None)
    directory = path.parent
    selections = tuple(
        Selection(kind, text, directory) for entry in options.pop("selectors", []) for kind, text in entry.items()
    )
    if "data" in options:
        options["data"] = directory / options["data"]
    for key in ("opset", "seed"):
        # JSON Schema counts 18.0 among the integers.
        if key in options:
            options[key] = int(options[key])
    for key in ("tags", "only_in", "loss", "optimizer"):
        if isinstance(options.get(key), list):
            options[key] = tuple(options[key])
    return Spec(selections, **options)


def _validate(options: dict[str, Any], path: Path) -> None:
    # Here, because most commands read no specification.
    import jsonschema

    errors = jsonschema.Draft202012Validator(spec_schema()).iter_errors(options)
    # Shallow first: an unknown key explains more than what it lacks.
    first = min(errors, key=lambda error: (len(error.absolute_path), error.json_path), default=None)
    if first is not None:
        raise SpecError(f"{path}: {_explain(first)}")


def _explain(error: Any) -> str:
    where = error.json_path.removeprefix("$").removeprefix(".")
    known = error.schema.get("properties", {})
    if error.validator == "additionalProperties":
        unknown = sorted(set(error.instance) - set(known))[0]
        return f"unknown key {'.'.join(filter(None, (where, unknown)))!r}; {suggest(unknown, known)}"
    if error.validator == "enum":
        choices = [str(choice) for choice in error.validator_value]
        if where == "schema_version":
            return f"{where} is {error.instance!r}, this version of graphfreeze reads {', '.join(choices)}"
        return (
            f"{where} is {error.instance!r}, expected one of {', '.join(choices)}; "
            f"{suggest(str(error.instance), choices)}"
        )
    if error.validator == "type":
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        return f"{where} is {error.instance!r}, expected {' or '.join(map(_article, kinds))}"
    if error.validator in ("minProperties", "maxProperties"):
        return f"{where} is {error.instance!r}, expected exactly one of {', '.join(known)}"
    return f"{where}: {error.message}"


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aio' else 'a'} {kind}"
