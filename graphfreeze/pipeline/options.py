"""What `rewrite` is asked for: arguments, a spec file, defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from graphfreeze.errors import UsageError
from graphfreeze.selection import Selection, load_spec
from graphfreeze.selection.forms import RequestedForm

__all__ = ["OPSETS", "Batch", "Options", "StrPath", "merge_options", "split_tags"]

# The rules of lowering write operators of opset 18, which later ones only extend; onnxruntime ends at 26.
OPSETS = range(18, 27)

StrPath = str | Path
Batch = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """The options of `rewrite` with their defaults; a spec file holds the same."""

    form: RequestedForm = "auto"
    tags: str | Sequence[str] | None = None
    only_in: Sequence[str] = ()
    loss: str | Sequence[str] | None = None
    sample_weight: bool = False
    optimizer: str | Sequence[str] = "sgd:learning_rate=0.01"
    endpoint: str | None = None
    forward_endpoint: str | None = None
    no_onnx: bool = False
    opset: int = 18
    data: StrPath | None = None
    seed: int = 0
    checks: Literal["full", "static", "none"] = "full"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    noise: Literal["exact", "native"] = "exact"
    keras2: Literal["refuse", "keep"] = "refuse"
    link: bool = False


def split_tags(tags: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The tags of a graph, as a sequence or as `TAG,TAG`; an empty text stands for a graph without any."""
    if isinstance(tags, str):
        return tuple(tag.strip() for tag in tags.split(",") if tag.strip())
    return None if tags is None else tuple(tags)


def merge_options(
    given: Mapping[str, Any], selections: Sequence[Selection], spec: StrPath | None
) -> tuple[Options, list[Selection]]:
    """What was asked for: arguments first, then the spec file, then the defaults."""
    merged: dict[str, Any] = {}
    ordered = list(selections)
    if spec is not None:
        loaded = load_spec(Path(spec))
        ordered = [*loaded.selections, *ordered]
        merged = {name: getattr(loaded, name) for name in given if getattr(loaded, name) is not None}
    merged |= {name: value for name, value in given.items() if value is not None}
    options = Options(**merged)
    if not ordered:
        raise UsageError("nothing is selected: give at least one selection to freeze")
    if options.opset not in OPSETS:
        raise UsageError(f"the opset is {options.opset}, expected {OPSETS[0]} to {OPSETS[-1]}")
    if options.no_onnx and options.data is not None:
        raise UsageError(
            "data is a batch for the training step, which no_onnx leaves out; the checks draw random inputs then"
        )
    if not options.no_onnx and not options.loss:
        raise UsageError("the training step needs a loss: give one, or no_onnx to rewrite the SavedModel only")
    return options, ordered
