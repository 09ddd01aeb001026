"""The reference of selectors says only what holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphfreeze.selection import load_spec
from graphfreeze.selection.spec import spec_schema
from tests.selection.table_source import TableSource, plan_of

TEXT = (Path(__file__).parents[2] / "docs" / "selectors.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \|", TEXT, re.MULTILINE)
SELECTORS = [row.replace("\\|", "|") for row in ROWS if row not in ("blend", "select")]

KERNEL = np.array([[0, 1, -2, 5e-4, -0.5], [0.5, 0, 1, 2, 3], [-1, 4, 4, 4, 4]], np.float32)


def source() -> TableSource:
    return TableSource(
        {
            "dense/kernel": KERNEL,
            "dense/bias": np.ones(5, np.float32),
            "kernel": KERNEL,
            "lstm/lstm_cell/kernel": KERNEL,
            "embedding/embeddings": np.ones((50, 2), np.float32),
        }
    )


def frozen_names_and_counts(selector: str, directory: Path) -> dict[str, int]:
    np.save(directory / "values.npy", KERNEL)
    np.save(directory / "mask.npy", KERNEL > 0)
    masks: dict[str, Any] = {"dense/kernel": KERNEL > 0, "bias": np.ones(5, bool)}
    np.savez(directory / "masks.npz", **masks)
    plan = plan_of(source(), f"freeze {selector}", base_directory=directory)
    return {frozen.variable.name: frozen.frozen_elements for frozen in plan.variables}


def test_there_are_examples() -> None:
    assert len(SELECTORS) > 20


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_example_selects_something(selector: str, tmp_path: Path) -> None:
    assert frozen_names_and_counts(selector, tmp_path)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("*/kernel", {"dense/kernel": 15}),
        ("**/kernel", {"kernel": 15, "dense/kernel": 15, "lstm/lstm_cell/kernel": 15}),
        ("lstm/**", {"lstm/lstm_cell/kernel": 15}),
        ("dense/kernel[:, 0:3]", {"dense/kernel": 9}),
        ("dense/kernel[..., -1]", {"dense/kernel": 3}),
        ("embedding/embeddings[[3, 17, 42]]", {"embedding/embeddings": 6}),
        ("dense/kernel[[0, 1], [0, 2]]", {"dense/kernel": 2}),
        ("dense/kernel[[[0], [1]], [0, 2]]", {"dense/kernel": 4}),
        ("dense/kernel where w == 0", {"dense/kernel": 2}),
        ("**/kernel where abs(w) < 1e-3", {"kernel": 3, "dense/kernel": 3, "lstm/lstm_cell/kernel": 3}),
        ("dense/kernel @ mask.npy", {"dense/kernel": 10}),
    ],
)
def test_examples_name_what_the_reference_says(selector: str, expected: dict[str, int], tmp_path: Path) -> None:
    assert selector in SELECTORS
    assert frozen_names_and_counts(selector, tmp_path) == expected


def test_the_specification_loads_and_all_keys_are_named(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "freeze.toml").write_text(example)
    assert len(load_spec(tmp_path / "freeze.toml").selections) == 3
    section = TEXT[TEXT.index("## Specification files") :]
    assert [key for key in spec_schema()["properties"] if not re.search(rf"\b{key}\b", section)] == []
