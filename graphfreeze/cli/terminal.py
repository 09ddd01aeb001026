"""Where output goes: the result on stdout, as tables or one JSON object; logs and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["SCHEMA_VERSION", "Progress", "Terminal", "json_value"]

SCHEMA_VERSION = 1

# progress(stage, done, total): what is being done, how far it is, and out of how much.
Progress = Callable[[str, int, int], None]

_UNLIMITED_WIDTH = 10_000
_LEVELS = {0: logging.WARNING, 1: logging.INFO}


class Terminal:
    """The output of one command.

    Args:
        as_json: One JSON object on stdout instead of tables.
        verbose: How often -v was given: 1 logs what happens, 2 also details, and TensorFlow's own log.
        quiet: Nothing but errors.
    """

    def __init__(self, *, as_json: bool, verbose: int, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._verbose = verbose
        self._stdout = sys.stdout

    @contextlib.contextmanager
    def working(self) -> Iterator[Progress | None]:
        """Set up logging, keep stdout clean of what libraries print, and show progress where a person looks on."""
        # Both are read once, when TensorFlow and Keras are imported.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        if not self._verbose:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
        logger = logging.getLogger("graphfreeze")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR if self._quiet else _LEVELS.get(self._verbose, logging.DEBUG))
        try:
            with contextlib.redirect_stdout(sys.stderr), self._progress() as progress:
                yield progress
        finally:
            logger.removeHandler(handler)

    def show(self, report: Mapping[str, Any], tables: Callable[[Mapping[str, Any]], list[RenderableType]]) -> None:
        """Print a report on stdout: the JSON object itself, or its tables.

        Args:
            report: What a public function returned, or the details of a failed check.
            tables: Makes the tables of that kind of report.
        """
        if self._as_json:
            text = json.dumps({"schema_version": SCHEMA_VERSION, **json_value(report)}, indent=2)
            self._stdout.write(text + "\n")
        elif not self._quiet:
            _print(self._stdout, tables(report))

    def show_failure(
        self, report: Mapping[str, Any], tables: Callable[[Mapping[str, Any]], list[RenderableType]]
    ) -> None:
        """Print the report of a failed check on stderr, for people; JSON holds it in the error object."""
        if self._as_json or not report:
            return
        _print(sys.stderr, tables(report))

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Progress | None]:
        if self._as_json or self._quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress as Bars

        with Bars(console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def advance(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage)
                bars.update(tasks[stage], completed=done, total=total)

            yield advance


def _print(stream: TextIO, tables: list[RenderableType]) -> None:
    """Print tables with a blank line between them, without padding; only a terminal has a width to fit into."""
    from rich.console import Console

    width = None if stream.isatty() else _UNLIMITED_WIDTH
    console = Console(file=stream, width=width, highlight=False)
    for i, table in enumerate(tables):
        with console.capture() as capture:
            console.print(table)
        lines = [line.rstrip() for line in capture.get().splitlines()]
        stream.write("\n" * (i > 0) + "\n".join(lines).rstrip() + "\n")


def json_value(value: Any) -> Any:
    """The value in JSON's own types: JSON has no NaN and no infinity, so that these become strings."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "tolist"):
        return json_value(value.tolist())
    return str(value)
