"""Work in the background is done before the result is, or fails it."""

from __future__ import annotations

import pytest

from graphfreeze.pipeline.background import Background


def test_tasks_run_in_order() -> None:
    done: list[int] = []
    with Background() as background:
        for number in range(5):
            background.start(lambda number=number: done.append(number))  # type: ignore[misc]
        background.finish()
        assert done == list(range(5))
        background.finish()


def test_what_a_task_raises_is_raised() -> None:
    def fail() -> None:
        raise KeyError("first")

    with Background() as background:
        background.start(fail)
        background.start(lambda: None)
        with pytest.raises(KeyError, match="first"):
            background.finish()
