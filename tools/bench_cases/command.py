"""The command line of `tools/bench training-step`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tools.bench_cases.alternation import alternate, summarise
from tools.bench_cases.catalogue import MODELS
from tools.bench_cases.document import document
from tools.bench_cases.environments import EnvironmentUnavailableError, default_directory, python_of
from tools.bench_cases.machine import describe_machine, load
from tools.bench_cases.own_process import in_process
from tools.bench_cases.paired import ROOT, Ready, Worker, WorkerFailedError
from tools.bench_cases.peers import BASE, SIDES, SideEntry
from tools.bench_cases.results import Conversion, Measured, ProfileLine, Results, read_results, write_results

__all__ = ["main"]

_SAME_WEIGHTS = ("tensorflow", "onnxruntime-training", "onnxsim", "litert")
_LOSS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Run:
    """One run of the command: what was asked for, and what there is so far."""

    results: Results
    environments: Path
    rounds: int
    prepared: Path | None

    def measure(self, model: str, sides: Sequence[SideEntry], thread_counts: Sequence[int]) -> None:
        """Prepare a model, which measures its conversion, and measure its step on each number of threads, if on any."""
        with self._directory(model) as directory:
            if not (directory / "frozen").is_dir():
                found = in_process("tools.bench_cases.prepare", model, str(directory))
                self.results.conversion[model] = Conversion(**found)
            if not thread_counts:
                return
            if any(side.name == "litert" for side in sides) and not any(directory.glob("litert.t*")):
                in_process("tools.bench_cases.litert_model", model, str(directory))
            for threads in thread_counts:
                self._measure_on(model, sides, threads, directory)
            lines = in_process("tools.bench_cases.profiling", str(directory / "unfrozen"), "1")
            self.results.profiles[model] = [ProfileLine(**line) for line in lines]

    @contextmanager
    def _directory(self, model: str) -> Iterator[Path]:
        """Where what is prepared for a model goes."""
        if self.prepared is not None:
            directory = self.prepared / model
            directory.mkdir(parents=True, exist_ok=True)
            yield directory
            return
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)

    def _measure_on(self, model: str, sides: Sequence[SideEntry], threads: int, directory: Path) -> None:
        workers: dict[str, Worker] = {}
        try:
            for side in sides:
                try:
                    python = python_of(side.name, side.requirements, self.environments)
                except EnvironmentUnavailableError as error:
                    self.results.note_reason(model, side.name, str(error))
                    continue
                workers[side.name] = Worker(python, side.module, model, directory, threads, side.variant)
            ready = self._wait(model, workers)
            begin = load()
            rounds = alternate({name: workers[name].turn for name in ready}, self.rounds)
        finally:
            for worker in workers.values():
                worker.close()
        date = datetime.now(UTC).strftime("%Y-%m-%d")
        for base in dict.fromkeys(SIDES[name].base for name in ready):
            group = {name: turns for name, turns in rounds.items() if SIDES[name].base == base}
            for name, summary in summarise(group, base).items():
                self.results.note(model, threads, name, Measured(summary, self.rounds, date, begin))
                times = f"{1000 * summary.median:9.3f} ms, best {1000 * summary.best:9.3f}"
                ratios = f"{summary.ratio:6.2f} / {summary.best_ratio:.2f} / {summary.processor_ratio:.2f}"
                print(f"{model:15} {threads} {name:22} {times} {ratios} times {base}", flush=True)

    def _wait(self, model: str, workers: dict[str, Worker]) -> list[str]:
        """Wait for all, and take note of those that cannot."""
        ready: dict[str, Ready] = {}
        for name, worker in workers.items():
            try:
                ready[name] = worker.wait_until_ready()
            except WorkerFailedError as error:
                if SIDES[name].base == name:
                    raise
                self.results.note_reason(model, name, str(error))
                print(f"{model:15}   {name:22} cannot: {str(error)[:150]}", flush=True)
        for name, found in ready.items():
            self.results.versions |= found.versions
            if name in _SAME_WEIGHTS and abs(found.loss - ready[BASE].loss) > _LOSS_TOLERANCE * abs(ready[BASE].loss):
                raise SystemExit(f"{model}: the first loss of {name} is {found.loss}, of {BASE} {ready[BASE].loss}")
        self.results.parameters[model] = ready[BASE].parameters or 0
        return list(ready)


def main(folder: Path) -> int:
    """Measure what was asked for, and write benchmarks.json and benchmarks.md into the folder after each model."""
    arguments = _parse()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    results = read_results(folder / "benchmarks.json")
    results.machine = describe_machine()
    run = _Run(results, arguments.environments, arguments.rounds, arguments.prepared)
    chosen = {SIDES[name].base for name in arguments.peers} | set(arguments.peers)
    sides = [side for name, side in SIDES.items() if name in chosen]
    for model in arguments.models or MODELS:
        run.measure(model, sides, [] if arguments.conversion else arguments.threads)
        if not arguments.dry_run:
            write_results(folder / "benchmarks.json", results)
            (folder / "benchmarks.md").write_text(document(read_results(folder / "benchmarks.json")), encoding="utf-8")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench training-step", description="Time a training step, in turns.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"by default all: {', '.join(MODELS)}")
    peers = [name for name in SIDES if SIDES[name].base != name]
    parser.add_argument("--peers", type=_names(SIDES), default=peers, help=f"of {','.join(peers)}; by default all")
    parser.add_argument("--threads", type=_numbers, default=[1, 2], help="numbers of threads, by default 1,2")
    parser.add_argument("--conversion", action="store_true", help="measure the conversion alone")
    parser.add_argument("--rounds", type=int, default=15, help="how often each tool has its turn")
    parser.add_argument("--environments", type=Path, default=default_directory(), help="where the peers are installed")
    parser.add_argument("--prepared", type=Path, help="where to keep the converted models, to take them from next time")
    parser.add_argument("--dry-run", action="store_true", help="leave the documents as they are")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.models if name not in MODELS]:
        parser.error(f"there is no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    return arguments


def _names(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main(ROOT / "docs"))
