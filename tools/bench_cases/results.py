"""What was measured, as docs/benchmarks.json keeps it, so that a part can be measured anew."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.bench_cases.alternation import Summary

__all__ = ["Conversion", "Measured", "ProfileLine", "Results", "SizeRow", "read_results", "write_results"]


@dataclass(frozen=True)
class Measured:
    """One side on one model with one number of threads.

    Attributes:
        summary: The times.
        rounds: How often the sides took turns.
        date: Of the measurement, in UTC.
        load: The average number of processes that wanted to run in the minute before.
    """

    summary: Summary
    rounds: int
    date: str
    load: float


@dataclass(frozen=True)
class Conversion:
    """What it takes to trace and lower the training step of a model.

    Attributes:
        seconds: Processor seconds.
        megabytes: The most memory beyond start-up.
        state: The size of the state that comes out, parameters and what the optimizer keeps of them, in MB.
        operations: TensorFlow's, in the step that is lowered, with those in the bodies of loops.
    """

    seconds: float
    megabytes: float
    state: float
    operations: int = 0


@dataclass(frozen=True)
class ProfileLine:
    """One type of operator in a profile of the training step.

    Attributes:
        operator: Its name in onnxruntime.
        count: How many nodes there are.
        milliseconds: What they take in a step.
        share: Their part of all nodes' time.
        slowest: Output shapes and milliseconds of the slowest node.
    """

    operator: str
    count: int
    milliseconds: float
    share: float
    slowest: str


@dataclass(frozen=True)
class SizeRow:
    """One way to handle a large SavedModel.

    Attributes:
        label: What was done.
        seconds: Without start-up; the fastest of several.
        ratio: By the seconds of `cp -r`.
        start_up: Seconds.
        megabytes: Beyond start-up and the largest variable.
        processor: Processor seconds, without start-up; the least of several.
    """

    label: str
    seconds: float
    ratio: float
    start_up: float | None = None
    megabytes: float | None = None
    processor: float | None = None


@dataclass
class Results:
    """Everything that the document shows.

    Attributes:
        machine: What it was measured on.
        versions: The packages.
        steps: The measurements by model, threads (`"1"`) and side.
        reasons: By model and side, why it was not measured.
        conversion: By model, what it takes to trace and lower its step.
        parameters: How many trainable numbers each model has.
        profiles: By model, where the time goes.
        size: What was done with a large SavedModel.
        size_note: The model of those rows, and the date.
    """

    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    steps: dict[str, dict[str, dict[str, Measured]]] = field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)
    conversion: dict[str, Conversion] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    profiles: dict[str, list[ProfileLine]] = field(default_factory=dict)
    size: list[SizeRow] = field(default_factory=list)
    size_note: str = ""

    def note(self, model: str, threads: int, side: str, measured: Measured) -> None:
        """Keep a measurement in the place of an earlier one."""
        self.steps.setdefault(model, {}).setdefault(str(threads), {})[side] = measured
        self.reasons.get(model, {}).pop(side, None)

    def note_reason(self, model: str, side: str, reason: str) -> None:
        """Keep why a side was not measured, and forget what it measured earlier."""
        self.reasons.setdefault(model, {})[side] = textwrap.shorten(reason, 200, placeholder=" ...")
        for sides in self.steps.get(model, {}).values():
            sides.pop(side, None)


def read_results(path: Path) -> Results:
    """What an earlier run wrote; nothing where there is no file."""
    if not path.is_file():
        return Results()
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    steps = {
        model: {
            threads: {side: _measured(values) for side, values in sides.items()}
            for threads, sides in by_threads.items()
        }
        for model, by_threads in content.pop("steps").items()
    }
    profiles = {model: [ProfileLine(**line) for line in lines] for model, lines in content.pop("profiles").items()}
    size = [SizeRow(**row) for row in content.pop("size")]
    conversion = {model: Conversion(**values) for model, values in content.pop("conversion").items()}
    return Results(steps=steps, profiles=profiles, size=size, conversion=conversion, **content)


def write_results(path: Path, results: Results) -> None:
    """Write them as JSON, with times to four digits."""
    text = json.dumps(_rounded(asdict(results)), indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def _measured(values: Mapping[str, Any]) -> Measured:
    return Measured(**{**values, "summary": Summary(**values["summary"])})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
