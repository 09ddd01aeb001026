"""Where the time of a training step goes, by onnxruntime's own profiler.

`python -m tools.bench_cases.profiling ARTIFACT THREADS` prints the slowest types of operators as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.bench_cases.results import ProfileLine

__all__ = ["profile", "summarise_events"]

_STEPS = 30
_LINES = 8


def profile(out: Path, threads: int) -> list[ProfileLine]:
    """Train on the batch of the artifact's reference and sum up what its nodes took.

    Args:
        out: The OUT of a rewrite.
        threads: How many threads the session has.
    """
    from graphfreeze.artifact.reader import read_artifact
    from graphfreeze.runtime.device import Device
    from graphfreeze.runtime.device_state import DeviceState
    from graphfreeze.runtime.session import create_session
    from graphfreeze.runtime.step_bindings import StepBindings

    artifact, device = read_artifact(out), Device("cpu", "measured", threads)
    batch = {entry.name: artifact.reference[f"batch/{entry.name}"] for entry in artifact.manifest.batch}
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory) / "p"
        session = create_session(artifact.graph_path("train_step"), device, profile_prefix=prefix, tiled=True)
        state = DeviceState(artifact.manifest.state, artifact.state, device)
        bindings = StepBindings(session, artifact.manifest.graphs["train_step"], state, device)
        for _ in range(_STEPS):
            bindings.step(batch)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summarise_events(events, _STEPS)[:_LINES]


def summarise_events(events: Iterable[Mapping[str, Any]], steps: int) -> list[ProfileLine]:
    """The events of onnxruntime's profile by type of operator, the slowest first.

    Nodes that run other graphs (Loop, If) are left out: what is in these counts.

    Args:
        events: The profile.
        steps: How often the graph ran. What counts of each node is its fastest run: noise only adds to it.
    """
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    shapes: dict[str, str] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        operator = event["args"]["op_name"]
        if operator not in ("Loop", "If", "Scan"):
            durations[operator, event["name"]].append(event["dur"] / 1000)
            shapes[event["name"]] = _shapes(event["args"])
    by_operator: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (operator, name), times in durations.items():
        # A body runs many times in a step: it is the sum that counts.
        per_step = len(times) // steps or 1
        sums = [sum(times[start : start + per_step]) for start in range(0, len(times), per_step)]
        by_operator[operator].append((min(sums), name))
    total = sum(time for nodes in by_operator.values() for time, _ in nodes)
    lines = []
    for operator, nodes in by_operator.items():
        milliseconds = sum(time for time, _ in nodes)
        slowest = max(nodes)
        text = f"{shapes[slowest[1]]}: {slowest[0]:.2f} ms"
        lines.append(ProfileLine(operator, len(nodes), milliseconds, milliseconds / total if total else 0.0, text))
    return sorted(lines, key=lambda line: -line.milliseconds)


def _shapes(arguments: Mapping[str, Any]) -> str:
    def text(key: str) -> str:
        found = [shape for entry in arguments.get(key) or () for shape in entry.values()]
        return " ".join(str(list(shape)).replace(" ", "") for shape in found)

    return f"{text('input_type_shape')} -> {text('output_type_shape')}"


if __name__ == "__main__":
    print(json.dumps([asdict(line) for line in profile(Path(sys.argv[1]), int(sys.argv[2]))]))
