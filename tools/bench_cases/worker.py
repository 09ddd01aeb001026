"""One side of a measurement, in a process and an environment of its own: it trains when it is told to.

`python -m tools.bench_cases.worker SIDE MODEL DIRECTORY THREADS VARIANT` makes the step and prints a line of JSON,
either `{"versions": ..., "parameters": ..., "loss": ..., "seconds": ...}` or `{"reason": ...}`. Then each line
`{"steps": N}` on its standard input is answered with `{"seconds": [...], "processor": [...], "loss": ...}`, one number
for each step. It ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from tools.bench_cases.sides.side import CannotRunError, Side

_WARM_UP = 3


def main() -> None:
    """Make the step, and answer."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Libraries print to the standard output what they like.
    os.dup2(2, 1)
    name, model, directory, threads, variant = sys.argv[1:]
    try:
        module = importlib.import_module(f"tools.bench_cases.sides.{name}_side")
        side = module.make(model, Path(directory), int(threads), variant)
        first = side.step()
        seconds = min(_steps(side, _WARM_UP)[0])
    except CannotRunError as error:
        _answer(answers, {"reason": str(error)})
        return
    except Exception as error:  # a tool fails as it likes; how, is a finding
        _answer(answers, {"reason": f"{type(error).__name__}: {error}"})
        return
    ready = {"versions": dict(side.versions), "parameters": side.parameters, "loss": first, "seconds": seconds}
    _answer(answers, ready)
    for line in sys.stdin:
        # The first step of a turn finds the caches as the others have left them.
        side.step()
        walls, processors, loss = _steps(side, json.loads(line)["steps"])
        _answer(answers, {"seconds": walls, "processor": processors, "loss": loss})


def _steps(side: Side, count: int) -> tuple[list[float], list[float], float]:
    walls, processors, loss = [], [], float("nan")
    for _ in range(count):
        processor, wall = time.process_time(), time.perf_counter()
        loss = side.step()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return walls, processors, loss


def _answer(stream: TextIO, value: object) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
