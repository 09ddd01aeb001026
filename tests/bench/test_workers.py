from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.bench_cases.catalogue import MODELS, draw_batch
from tools.bench_cases.environments import EnvironmentUnavailableError, python_of
from tools.bench_cases.paired import Worker, WorkerFailedError
from tools.bench_cases.peers import BASE, SIDES


def test_a_worker_that_cannot_says_why(tmp_path: Path) -> None:
    worker = Worker(Path(sys.executable), "graphfreeze", "small", tmp_path, 1, "unfrozen")
    with pytest.raises(WorkerFailedError, match=r"ArtifactReadError: .*unfrozen"):
        worker.wait_until_ready()
    # It has ended, which is noticed too.
    with pytest.raises(WorkerFailedError, match="ended"):
        worker.turn()
    worker.close()


def test_environment_that_cannot_be_made(tmp_path: Path) -> None:
    assert python_of("own", (), tmp_path) == Path(sys.executable)
    missing = f"nothing @ {(tmp_path / 'no-such-package').as_uri()}"
    with pytest.raises(EnvironmentUnavailableError, match="pip cannot install"):
        python_of("peer", (missing,), tmp_path)


def test_every_side_is_compared_with_one_that_trains_the_same_variant() -> None:
    assert SIDES[BASE].base == BASE
    assert all(SIDES[side.base].variant == side.variant for side in SIDES.values())


@pytest.mark.parametrize("name", MODELS)
def test_batches_are_the_same_each_time_and_fit(name: str) -> None:
    model = MODELS[name]
    first, second = draw_batch(model), draw_batch(model)
    assert all((first[key] == second[key]).all() for key in ("x", "y"))
    assert first["x"].shape == (model.batch_size, *model.shape)
    assert first["y"].shape == (model.batch_size,) and int(first["y"].max()) < model.classes
