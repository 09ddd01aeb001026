"""Work that goes on beside the stages, and that has to succeed before there is a result."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

__all__ = ["Background"]


class Background:
    """Tasks that another thread runs one after the other. Leaving the context drops those that have not begun."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._tasks: list[Future[None]] = []

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, task: Callable[[], object]) -> None:
        """Run a task when those before it are done. What it returns is not kept."""

        def run() -> None:
            task()

        self._tasks.append(self._pool.submit(run))

    def finish(self) -> None:
        """Wait for all tasks, and raise what the first of those that failed has raised."""
        for task in self._tasks:
            task.result()
        self._tasks.clear()
