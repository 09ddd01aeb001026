"""A plan that leaves frozen values where the model stores them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection import Selection, load_plan, resolve, resolve_plan, save_plan
from graphfreeze.selection.plan import FreezePlan

from .table_source import TableSource

PATHS = ["a", "b", "c"]


@pytest.fixture
def source() -> TableSource:
    rng = np.random.default_rng(0)
    return TableSource({name: rng.normal(size=(5, 7)).astype(np.float32) for name in PATHS})


@pytest.fixture
def plan(source: TableSource, monkeypatch: pytest.MonkeyPatch) -> FreezePlan:
    monkeypatch.setattr(resolve, "_KEPT_BYTES", 0)
    texts = ["a[1:, :3]", "a[0] := 1", "a", "b where w > 0", "c[2:]", "c[0, 0] := 2"]
    return resolve_plan([Selection("freeze", text) for text in texts], source)


def test_it_is_known_what_is_frozen_at_its_value(plan: FreezePlan) -> None:
    assert [v.at_current for v in plan.variables] == [True, True, False]


def test_values_are_read_again(plan: FreezePlan, source: TableSource, tmp_path: Path) -> None:
    checksums = {v.variable.object_path: i for i, v in enumerate(plan.variables) if v.at_current}
    save_plan(plan, tmp_path, checksums)
    asked = []

    def stored(variable: object, checksum: int) -> np.ndarray:
        asked.append(checksum)
        return source.read(variable)  # type: ignore[arg-type]

    loaded = load_plan(tmp_path, stored)
    assert not asked
    for before, after in zip(plan.variables, loaded.variables, strict=True):
        assert after.checksum == checksums.get(before.variable.object_path)
        assert after.value.tobytes() == before.value.tobytes()
        assert after.frozen_values.tobytes() == before.frozen_values.tobytes()
    assert set(asked) == {0, 1}


def test_without_the_model_masks_are_all_there_is(plan: FreezePlan, tmp_path: Path) -> None:
    save_plan(plan, tmp_path, {plan.variables[0].variable.object_path: 7})
    loaded = load_plan(tmp_path)
    assert loaded.variables[0].mask.tobytes() == plan.variables[0].mask.tobytes()
    with pytest.raises(ArtifactReadError, match="give the whole output of the rewrite"):
        _ = loaded.variables[0].frozen_values
    assert loaded.variables[1].frozen_values.tobytes() == plan.variables[1].frozen_values.tobytes()


@pytest.mark.parametrize("change", [("checkpoint_crc32c", "x"), ("checkpoint_crc32c", None), ("frozen_elements", 1)])
def test_what_does_not_fit_is_refused(plan: FreezePlan, tmp_path: Path, change: tuple[str, object]) -> None:
    save_plan(plan, tmp_path, {plan.variables[0].variable.object_path: 7})
    document = json.loads((tmp_path / "plan.json").read_text())
    document["variables"][0][change[0]] = change[1]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactReadError):
        load_plan(tmp_path)
