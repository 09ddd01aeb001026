"""Writes docs/benchmarks.md from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tools.bench_cases.alternation import Summary
from tools.bench_cases.catalogue import MODELS
from tools.bench_cases.peers import BASE, SIDES
from tools.bench_cases.reasons import REASONS
from tools.bench_cases.results import Measured, Results

__all__ = ["document"]

_FROZEN = (f"{BASE}-frozen", "tensorflow-frozen")
_INTRODUCTION = """\
# Benchmarks

Written by `tools/bench training-step` and `tools/bench saved-model-size` from `benchmarks.json`; `tools/bench` says how
to measure again. All of it is on the CPU: nothing here was run on CUDA, and there are no numbers beside PyTorch there.
"""
_METHOD = f"""\
## A training step

One step is: forward, sparse categorical cross-entropy from logits, gradients, Adam (onnxruntime-training: AdamW without
decay, the only one it has), and the loss as a number. Each tool is a process of its own with that many threads, and
they take turns of about 0.2 s: in each round every tool has its turn, so that noise of the machine hits all alike. The
first step of a turn is not counted. Where the load (below, at the times) is above the number of cores, times are too
long, and processor times say most; the tools of a model were not all measured on the same day and load, but each beside
{BASE}.

- `tensorflow`: a `tf.function` with the SavedModel, a Keras loss and a Keras optimizer, fed with tensors.
- `{BASE}`: `Trainer.step` on the same SavedModel; numpy arrays go in by copy.
- `torch`: PyTorch, eager, the same architecture with as many parameters (its LSTM has one bias more).
- `onnxruntime-training`: artifacts generated from our `forward.onnx`, which leaves out the moving averages of batch
  normalisation, in its favour.
- `onnxsim`: `compile_training_loop` on the same `forward.onnx` with the loss, at the fixed batch size.
- `litert`: a `train` signature with the gradients and Adam, converted with built-in operators only.

Frozen means every other column of each kernel, as `{{freeze}}` says: TensorFlow then trains the rewritten SavedModel.
"""


def document(results: Results) -> str:
    """The whole page.

    Args:
        results: What there is; sections without measurements are left out.
    """
    lines = [_INTRODUCTION, *_machine(results)]
    if results.steps:
        lines += [_METHOD.replace("{freeze}", MODELS["mlp"].freeze)]
        for threads in sorted({threads for by_threads in results.steps.values() for threads in by_threads}, key=int):
            lines += _ratios(results, threads)
        lines += [*_missed(results), *_reasons(results), *_times(results), *_conversion(results)]
    if results.size:
        lines += _size(results)
    return "\n".join(lines).rstrip() + "\n"


def _machine(results: Results) -> list[str]:
    if not results.machine:
        return []
    machine = ", ".join(f"{key}: {value}" for key, value in results.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    return [f"Machine: {machine}.", "", *([f"Versions: {versions}.", ""] if versions else [])]


def _ratios(results: Results, threads: str) -> list[str]:
    others = [name for name in SIDES if SIDES[name].base != name]
    rows = []
    for model in MODELS:
        sides = results.steps.get(model, {}).get(threads, {})
        if not sides:
            continue
        cells = [_ratio(sides.get(name), results.reasons.get(model, {}).get(name)) for name in others]
        base = sides.get(BASE)
        rows.append(
            [MODELS[model].title, f"{_target(model)}", "" if base is None else _ms(base.summary.median), *cells]
        )
    heading = f"### {'One thread' if threads == '1' else f'{threads} threads'}: times as fast as each tool"
    columns = ["model", "target for TensorFlow", f"{BASE}, ms", *(_heading(name) for name in others)]
    note = (
        "Above 1, graphfreeze is faster. The first number compares medians round by round, the second the fastest steps"
        + (", the third the processor time of a step, which other processes disturb least." if threads == "1" else ".")
    )
    return [heading, "", note, "", *_table(columns, rows), ""]


def _heading(name: str) -> str:
    return "tensorflow, frozen" if name == _FROZEN[1] else name


def _ratio(measured: Measured | None, reason: str | None) -> str:
    if measured is None:
        return "cannot" if reason else ""
    summary = measured.summary
    return f"{_two(summary.ratio)} / {_two(summary.best_ratio)} / {_two(summary.processor_ratio)}"


_MISSED = (
    "The targets are TensorFlow's speed, ten times that of the smallest model, and to be ahead of every other tool. "
    "Profiles of onnxruntime, one thread."
)


def _missed(results: Results) -> list[str]:
    lines: list[str] = []
    for model in MODELS:
        behind = [
            entry
            for threads, sides in sorted(results.steps.get(model, {}).items())
            for side, found in sides.items()
            if (entry := _behind(model, threads, side, found.summary))
        ]
        if not behind:
            continue
        lines += [f"#### {MODELS[model].title}: {', '.join(behind)}", ""]
        lines += [REASONS[model], ""] if model in REASONS else []
        rows = [
            [line.operator, str(line.count), f"{line.milliseconds:.2f}", f"{line.share:.0%}", line.slowest]
            for line in results.profiles.get(model, ())
        ]
        if rows:
            lines += [*_table(["operator", "nodes", "ms", "share", "slowest node"], rows), ""]
    if not lines:
        return []
    return ["### Where a target is missed", "", _MISSED, "", *lines]


def _behind(model: str, threads: str, side: str, found: Summary) -> str | None:
    """What is said of a tool that is faster than the target allows. Threads that wait take processor time, too."""
    target = MODELS[model].target if side == "tensorflow" else 1.0
    if side in _FROZEN or found.ratio >= target or (threads == "1" and found.processor_ratio >= target):
        return None
    if threads == "1":
        return f"{side} {_two(found.ratio)} (processor time {_two(found.processor_ratio)})"
    return f"{side} {_two(found.ratio)} on {threads} threads"


def _reasons(results: Results) -> list[str]:
    rows = [
        f"- {MODELS[model].title}: {side}: {reason}"
        for model in MODELS
        for side, reason in results.reasons.get(model, {}).items()
    ]
    return ["### What cannot train a model, and why", "", *rows, ""] if rows else []


def _times(results: Results) -> list[str]:
    rows = []
    for model in MODELS:
        for threads, sides in sorted(results.steps.get(model, {}).items()):
            for side in SIDES:
                if (found := sides.get(side)) is None:
                    continue
                times = (found.summary.median, found.summary.best, found.summary.processor)
                cells = [model, threads, side, *(_ms(time) for time in times)]
                rows.append([*cells, str(found.rounds), f"{found.load:.1f}", found.date])
    columns = ["model", "threads", "tool", "median ms", "best ms", "processor ms", "rounds", "load", "date"]
    return ["### Times", "", *_table(columns, rows), ""]


_CONVERSION = """
Processor seconds to trace and lower one step, Adam's, the fewest of three runs, and the most memory that the process
held beyond start-up. The targets are 10 s for ResNet50, and three times the model, which is 92 MB for ResNet50. The
parameters and what Adam keeps of them, which make up the state that is written, are in memory only once something
runs: what there is until then are TensorFlow's graphs and Python objects for their operations, whatever the size of
the weights. These are most of what small models take. The seconds are linear in the size of the graph, as the last
column shows: what there is per operation does not grow.
""".strip().replace("\n", " ")


def _conversion(results: Results) -> list[str]:
    rows = []
    for model in MODELS:
        found = results.conversion.get(model)
        if found is None:
            continue
        parameters = results.parameters.get(model, 0)
        numbers = [f"{found.seconds:.1f}", f"{found.megabytes:.0f}", f"{found.state:.1f}"]
        each = f"{found.seconds / found.operations * 1000:.2f}" if found.operations else ""
        rows.append([MODELS[model].title, f"{parameters:,}", *numbers, f"{found.operations:,}", each])
    columns = ["model", "parameters", "processor seconds", "MB beyond start-up", "MB of state", "operations", "ms each"]
    return ["### Conversion", "", _CONVERSION, "", *_table(columns, rows), ""] if rows else []


_SIZE = """
The target is 1.5 of `cp -r`, and less than 1 GB beyond start-up and the largest variable. No value is in memory as a
whole, hence less than nothing beyond the largest. What takes time are three passes over the bytes, beside each other:
the copy of the shards, made in the kernel by a thread of its own; the proof that the copy is the original, byte
for byte, which follows it stretch by stretch, while the bytes are in the processor's caches; and the checksums of the
targeted variables. With `--link` the checksums are what is left. Nothing is read to select by indices, and what a
variable is frozen at is stored once, in the variable itself; a predicate reads and evaluates each variable twice more,
and stores a mask of one byte for each number.
""".strip().replace("\n", " ")


def _size(results: Results) -> list[str]:
    rows = [
        [
            row.label,
            f"{row.seconds:.1f}",
            f"{row.ratio:.2f}",
            _or_nothing(row.processor, 1),
            _or_nothing(row.start_up, 1),
            _or_nothing(row.megabytes, 0),
        ]
        for row in results.size
    ]
    columns = ["", "seconds", "of `cp -r`", "processor s", "start-up s", "MB beyond start-up and largest variable"]
    return ["## A large SavedModel", "", results.size_note, "", _SIZE, "", *_table(columns, rows), ""]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(columns)
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (columns, rule, *rows)]


def _target(model: str) -> str:
    return f"{MODELS[model].target:g}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def _two(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.1f}"


def _or_nothing(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"
