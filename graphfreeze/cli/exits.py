"""What the process says and returns when a command ends, whichever way it ends.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | a validation or verification failed |
| 2 | wrong usage, selector, specification or data; TensorFlow is needed and not installed |
| 3 | the model holds something that is not supported |
| 4 | an input is unreadable or corrupt, or the output cannot be written |
| 70 | a defect in graphfreeze |
| 130 | Ctrl-C |
"""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from graphfreeze.cli.commands import graphfreeze
from graphfreeze.cli.terminal import SCHEMA_VERSION, json_value
from graphfreeze.errors import GraphfreezeError, UsageError
from graphfreeze.tensorflow_loader import TENSORFLOW_MISSING

__all__ = ["main", "run"]

_DEFECT = 70
_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The lines of tables, and names of variables, need not be in the encoding of a pipe or a terminal.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but SystemExit of a signal handler is raised."""
    as_json = _given(arguments, "--json")
    try:
        result = graphfreeze.main(args=list(arguments), prog_name="graphfreeze", standalone_mode=False)
    except click.Abort:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return _INTERRUPTED
    except click.ClickException as error:
        if as_json:
            _print_error(UsageError(error.format_message()), as_json)
        else:
            error.show()
        return UsageError.exit_code
    except GraphfreezeError as error:
        _print_error(error, as_json)
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("tensorflow", "keras"):
            return _report_defect(error, arguments, as_json)
        missing = UsageError(TENSORFLOW_MISSING)
        _print_error(missing, as_json)
        return missing.exit_code
    except Exception as error:
        return _report_defect(error, arguments, as_json)
    # --help and --version end with a code of their own; commands return nothing.
    return result if isinstance(result, int) else 0


def _print_error(error: GraphfreezeError, as_json: bool) -> None:
    if as_json:
        _print_error_object(type(error).__name__, str(error), error.exit_code, error.details)
    else:
        click.echo(f"Error: {error}", err=True)


def _print_error_object(kind: str, message: str, exit_code: int, details: dict[str, Any]) -> None:
    """One line on stderr, always the last one; stdout stays empty."""
    value = {"type": kind, "message": message, "exit_code": exit_code, "details": json_value(details)}
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, "error": value}), err=True)


def _report_defect(error: Exception, arguments: Sequence[str], as_json: bool) -> int:
    message = (
        f"{type(error).__name__}: {error}. This is a defect in graphfreeze: please report it, "
        "with the command and the output of the same command with -v."
    )
    if _given(arguments, "-[qv]*v[qv]*|--verbose"):
        traceback.print_exception(error)
    if as_json:
        _print_error_object(type(error).__name__, message, _DEFECT, {})
    else:
        click.echo(f"Unexpected {message}", err=True)
    return _DEFECT


def _given(arguments: Sequence[str], pattern: str) -> bool:
    """Whether an option was given; known also where the arguments do not parse."""
    options = itertools.takewhile(lambda argument: argument != "--", arguments)
    return any(re.fullmatch(pattern, option) for option in options)
