"""Measures how a SavedModel of many gigabytes is rewritten: time and memory, beside `cp -r`.

Each measurement is a process of its own. Start-up (importing the package and TensorFlow) is told apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.bench_cases.document import document
from tools.bench_cases.machine import load
from tools.bench_cases.results import SizeRow, read_results, write_results

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_DOCS = Path(__file__).resolve().parent.parent / "docs"
COLUMNS = 16384
SELECTORS = {"256 columns of each": "layer_*/kernel[:, :256]", "half of each": "layer_*/kernel[:, :8192]"}


def make_model(directory: Path, variables: int, rows: int) -> None:
    """Save a model with that many variables, half of them read by a product, half by gathers of rows."""
    import tensorflow as tf

    class Model(tf.Module):  # type: ignore[misc]
        """Sums products and gathers."""

        def __init__(self) -> None:
            super().__init__()
            make = tf.random.stateless_uniform
            shape = (rows, COLUMNS)
            self.w = [tf.Variable(make(shape, (i, 1), -1, 1), name=f"layer_{i}/kernel") for i in range(variables)]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])  # type: ignore[untyped-decorator]
        def serve(self, rows_: Any) -> Any:
            """The sum."""
            total = tf.zeros([COLUMNS])
            for i, w in enumerate(self.w):
                product = tf.linalg.matvec(w, tf.ones((rows,)), transpose_a=True)
                total += tf.reduce_sum(tf.gather(w, rows_), 0) if i % 2 else product
            return total

    model = Model()
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.serve})


def megabytes() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Do something once everything is imported; returns seconds, processor seconds and megabytes."""
    begin = time.perf_counter()
    start_up()
    started, processor, before = time.perf_counter(), processor_seconds(), megabytes()
    work()
    return {
        "start-up": started - begin,
        "seconds": time.perf_counter() - started,
        "processor": processor_seconds() - processor,
        "start-up MB": before,
        "MB": megabytes(),
    }


def start_up() -> None:
    """Import whatever a rewrite needs, TensorFlow above all; most of it is imported when it is first used."""
    importlib.import_module("tensorflow")
    for name in ("pipeline", "passes", "savedmodel", "selection", "prover"):
        package = importlib.import_module(f"graphfreeze.{name}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"graphfreeze.{name}.{module.name}")


def processor_seconds() -> float:
    """What this process and those that it has waited for have used."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def copy(source: Path, target: Path) -> None:
    """What is measured beside a rewrite."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)


def rewrite(model: Path, out: Path, selector: str, link: bool) -> None:
    """What is measured."""
    import graphfreeze

    selection = graphfreeze.Selection("freeze", selector)
    graphfreeze.rewrite(model, out, [selection], onnx=False, checks="static", link=link)


def in_process(*arguments: str) -> dict[str, float]:
    """The result of this script with other arguments, in a process of its own."""
    command = [sys.executable, "-m", "tools.saved_model_size", *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    """Make the model, measure, and write docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variables", type=int, default=8, help="how many variables the model has")
    parser.add_argument("--rows", type=int, default=8192, help="the rows of each, of 64 KiB")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is done")
    parser.add_argument("--directory", type=Path, help="where there is room for three copies of the model")
    parser.add_argument("--dry-run", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--step", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(*options.step)
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        rows = measure(Path(name), options.variables, options.rows, options.rounds)
    if options.dry_run:
        return
    record(rows, options.variables, megabytes_of(options.rows), options.rounds)


def record(rows: list[SizeRow], variables: int, size: float, rounds: int) -> None:
    """Write the rows into docs/benchmarks.json and docs/benchmarks.md."""
    results = read_results(_DOCS / "benchmarks.json")
    results.size = rows
    results.size_note = (
        f"{variables} variables of {size:.0f} MB, half of them read by products and half by gathers, rewritten "
        f"with `--no-onnx --checks static`. {datetime.now(UTC):%Y-%m-%d}, load {load():.1f}, files in the page cache. "
        f"Everything is done {rounds} times in turn, `cp -r` too, and each time by a process that has started "
        "up (imported TensorFlow and graphfreeze) before: seconds and processor seconds are the least of each, without "
        "start-up."
    )
    write_results(_DOCS / "benchmarks.json", results)
    page = document(read_results(_DOCS / "benchmarks.json"))
    (_DOCS / "benchmarks.md").write_text(page, encoding="utf-8")


def step(kind: str, model: str, *rest: str) -> None:
    """Do one thing in this process, and print the result."""
    result: dict[str, float] = {}
    if kind == "make":
        make_model(Path(model), int(rest[0]), int(rest[1]))
    elif kind == "copy":
        result = timed(lambda: copy(Path(model), Path(rest[0])))
    else:
        result = timed(lambda: rewrite(Path(model), Path(rest[0]), rest[1], bool(rest[2:])))
    print(json.dumps(result))


def measure(directory: Path, variables: int, rows: int, rounds: int) -> list[SizeRow]:
    """Make the model, copy and rewrite it."""
    model, out = directory / "model", directory / "out"
    in_process("--step", "make", str(model), str(variables), str(rows))
    ways = {"`cp -r`": ["copy", str(model), str(out)]}
    for label, selector in SELECTORS.items():
        for link in (False, True):
            name = f"rewrite, {label} frozen{', `--link`' if link else ''}"
            ways[name] = ["rewrite", str(model), str(out), selector, *(["link"] if link else [])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, arguments in ways.items():
            # What was written before need not be written to the disk at the expense of the next.
            os.sync()
            found[name].append(in_process("--step", *arguments))
            shutil.rmtree(out)
            print(name, found[name][-1], flush=True)
    return summarise(found, megabytes_of(rows))


def summarise(found: dict[str, list[dict[str, float]]], largest: float) -> list[SizeRow]:
    """The least that each took, beside `cp -r`."""
    copied = min(once["seconds"] for once in found["`cp -r`"])
    table = []
    for name, times in found.items():
        seconds, processor, start_up = (
            min(once[key] for once in times) for key in ("seconds", "processor", "start-up")
        )
        beyond = max(once["MB"] - once["start-up MB"] for once in times) - largest
        row = SizeRow(name, seconds, seconds / copied, processor=processor)
        if name.startswith("rewrite"):
            row = replace(row, start_up=start_up, megabytes=beyond)
        table.append(row)
    return table


def megabytes_of(rows: int) -> float:
    """The size of one variable."""
    return rows * COLUMNS * 4 / 2**20


if __name__ == "__main__":
    main()
