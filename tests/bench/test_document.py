from __future__ import annotations

from pathlib import Path

from tools.bench_cases.alternation import Summary
from tools.bench_cases.catalogue import MODELS
from tools.bench_cases.document import document
from tools.bench_cases.results import Conversion, Measured, ProfileLine, Results, SizeRow, read_results, write_results


def measured(ratio: float, *, processor_ratio: float | None = None) -> Measured:
    other = ratio if processor_ratio is None else processor_ratio
    return Measured(Summary(0.002 * ratio, 0.001 * ratio, 0.0015 * ratio, ratio, ratio, other), 5, "2026-01-31", 0.5)


def example() -> Results:
    results = Results(machine={"processor": "Z80", "cores": "1"}, versions={"tensorflow": "2.21.0"})
    for model, ratio in (("mlp", 1.25), ("cnn", 0.5)):
        results.note(model, 1, "graphfreeze", measured(1.0))
        results.note(model, 1, "tensorflow", measured(ratio))
    results.note_reason("cnn", "litert", "no built-in operators for\n tf.MaxPoolGrad")
    results.profiles["cnn"] = [ProfileLine("ConvTranspose", 1, 6.35, 0.28, "[32,64,11,11] -> [32,32,13,13]: 6.35 ms")]
    results.profiles["mlp"] = [ProfileLine("Gemm", 6, 1.0, 0.5, "[64,784] -> [64,256]: 0.50 ms")]
    results.conversion["mlp"], results.parameters["mlp"] = Conversion(1.04, 60.0, 2.7), 235146
    results.size = [SizeRow("`cp -r`", 12.0, 1.0), SizeRow("rewrite", 15.0, 1.25, 9.5, 698.0, 7.5)]
    results.size_note = "8 variables."
    return results


def test_ratios_targets_and_times() -> None:
    page = document(example())
    assert "Machine: processor: Z80, cores: 1." in page
    assert "| MLP 784-256-128-10 | 1 | 2 | 1.25 / 1.25 / 1.25 |" in page
    assert "| mlp | 1 | tensorflow | 2.5 | 1.25 | 1.88 | 5 | 0.5 | 2026-01-31 |" in page
    assert "| MLP 784-256-128-10 | 235,146 | 1.0 | 60 | 2.7 |" in page
    assert "| rewrite | 15.0 | 1.25 | 7.5 | 9.5 | 698 |" in page


def test_only_models_below_their_target_have_a_profile() -> None:
    page = document(example())
    assert f"#### {MODELS['cnn'].title}: tensorflow 0.50 (processor time 0.50)\n" in page
    assert "| ConvTranspose | 1 | 6.35 | 28% | [32,64,11,11] -> [32,32,13,13]: 6.35 ms |" in page
    assert "| Gemm |" not in page


def test_another_tool_that_is_faster_is_a_missed_target_too() -> None:
    results = example()
    results.note("mlp", 1, "litert", measured(0.9))
    title = MODELS["mlp"].title
    assert f"#### {title}: litert {0.9:.2f} (processor time {0.9:.2f})\n" in document(results)
    results.note("mlp", 1, "tensorflow-frozen", measured(0.8))
    assert "frozen 0.8" not in document(results)


def test_what_cannot_run_has_its_reason() -> None:
    page = document(example())
    assert f"- {MODELS['cnn'].title}: litert: no built-in operators for tf.MaxPoolGrad" in page
    row = next(line for line in page.splitlines() if line.startswith(f"| {MODELS['cnn'].title} |"))
    assert row.endswith("| cannot |")


def test_nothing_measured() -> None:
    page = document(Results())
    assert page.startswith("# Benchmarks") and "##" not in page.replace("# Benchmarks", "", 1)


def test_results_survive_their_file(tmp_path: Path) -> None:
    assert read_results(tmp_path / "missing.json") == Results()
    write_results(tmp_path / "benchmarks.json", example())
    assert read_results(tmp_path / "benchmarks.json") == example()


def test_a_measurement_replaces_a_reason_and_a_reason_a_measurement() -> None:
    results = example()
    results.note("cnn", 1, "litert", measured(2.0))
    assert results.reasons["cnn"] == {}
    results.note_reason("cnn", "tensorflow", "gone")
    assert set(results.steps["cnn"]["1"]) == {"graphfreeze", "litert"}
