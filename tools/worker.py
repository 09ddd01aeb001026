"""A process of its own for work that may crash or hang; it ends with the process that started it, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

__all__ = ["CrashError", "Worker"]

Result = TypeVar("Result")


class CrashError(Exception):
    """The process ended without a result."""


class Worker(Generic[Result]):
    """Calls a function in another process, one call at a time. The process is started anew where it crashed or hung.

    Args:
        function: What to call: a function of a module, which takes and returns what can be pickled, and never raises.
    """

    def __init__(self, function: Callable[..., Result]) -> None:
        self._function = function
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None

    def __enter__(self) -> Worker[Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, *arguments: object, seconds: float) -> Result:
        """Call the function.

        Raises:
            CrashError: The process crashed.
            TimeoutError: It took too long, and was ended.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send(arguments)
            if not self._connection.poll(seconds):
                raise TimeoutError(f"no result within {seconds} seconds")
            result: Result = self._connection.recv()
        except (EOFError, OSError) as error:
            # A TimeoutError is an OSError.
            self.stop()
            if isinstance(error, TimeoutError):
                raise
            raise CrashError("the process ended without a result") from error
        except BaseException:
            self.stop()
            raise
        return result

    def stop(self) -> None:
        """End the process, and what it keeps on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self._connection.close()
            self._folder.cleanup()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="graphfreeze_worker_")
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(
            target=_work, args=(self._function, other, self._folder.name), daemon=True
        )
        self._process.start()
        # The only other end is the process's own, so that its end can be noticed.
        other.close()


def _work(function: Callable[..., Any], connection: Connection, folder: str) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    tempfile.tempdir = folder
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        connection.send(function(*arguments))


def _end_with(sentinel: int) -> None:
    """End this process, in whatever it is, as soon as another one has ended."""
    wait([sentinel])
    os._exit(1)
