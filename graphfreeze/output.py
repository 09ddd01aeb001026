"""Output that appears whole or not at all.

Everything is written into a temporary sibling of the final path and renamed once the body has succeeded. Any exception,
Ctrl-C or SIGTERM removes the sibling and leaves what was there before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphfreeze.errors import GraphfreezeError, OutputError
from graphfreeze.interruption import Interruption, signals_ignored

__all__ = ["atomic_directory", "atomic_file"]

# What says of a non-empty directory that it is an earlier output, so that --overwrite may delete it.
_OUTPUT_MARKS = ("report.json", "saved_model.pb")

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def atomic_directory(final: Path, *, overwrite: bool = False, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield an empty temporary directory beside `final`, which takes the name `final` when the body succeeds.

    Args:
        final: The directory to make. Missing parents are made, and removed again if the body fails.
        overwrite: Replace an existing `final`, at the very end. Only a directory that is empty or holds an earlier
            output is ever replaced.
        inputs: What the body reads. `final` may not be one of them, lie inside one, or contain one.

    Yields:
        The directory to write into.

    Raises:
        OutputError: `final` exists without `overwrite`, overlaps an input, or cannot be written (no permission, disk
            full, in the body too).
    """
    final = _absolute(final)
    _refuse_overlap(final, inputs)
    _refuse_existing_directory(final, overwrite)
    with _temporary_sibling(final) as (temporary, interruption):
        temporary.mkdir()
        yield temporary
        interruption.raise_if_received()
        _refuse_existing_directory(final, overwrite)
        with signals_ignored():
            _replace_directory(temporary, final)


@contextlib.contextmanager
def atomic_file(final: Path, *, overwrite: bool = False, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield the path of a temporary file beside `final`, which takes the name `final` when the body succeeds.

    Args:
        final: The file to make. Missing parents are made, and removed again if the body fails.
        overwrite: Replace an existing file. A directory is never replaced.
        inputs: Files that the body reads: `final` may not be one of them.

    Yields:
        The path to write to; nothing is there yet.

    Raises:
        OutputError: As for `atomic_directory`.
    """
    final = _absolute(final)
    for path in inputs:
        if final.resolve() == Path(path).resolve():
            raise OutputError(f"The output {final} is also an input. Choose another name for the output.")
    if final.is_dir():
        raise OutputError(f"Expected the name of a file to write, found the directory {final}. Name a file.")
    if not overwrite and os.path.lexists(final):
        raise OutputError(f"The output file {final} exists already. Choose another name, or remove it first.")
    with _temporary_sibling(final) as (temporary, interruption):
        # Whether one may write here is found out now, and not when the body has done its work.
        temporary.touch()
        temporary.unlink()
        yield temporary
        interruption.raise_if_received()
        temporary.replace(final)


def _absolute(path: Path) -> Path:
    """The absolute path, without following the last part where it is a link: the link itself is what is replaced."""
    path = Path(path)
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def _refuse_overlap(final: Path, inputs: Sequence[Path]) -> None:
    resolved = final.resolve()
    for path in inputs:
        source = Path(path).resolve()
        if resolved == source or source in resolved.parents:
            raise OutputError(
                f"The output {final} lies in the input {path}, which is never changed. Choose an output outside it."
            )
        if resolved in source.parents:
            raise OutputError(
                f"The output {final} contains the input {path}, which writing the output would delete. "
                "Choose an output that does not contain it."
            )


def _refuse_existing_directory(final: Path, overwrite: bool) -> None:
    if not os.path.lexists(final):
        return
    if not overwrite:
        raise OutputError(
            f"The output {final} exists already. Choose another name, or replace it with --overwrite (overwrite=True)."
        )
    if not final.is_dir():
        raise OutputError(f"The output {final} exists and is not a directory. Remove it, or choose another name.")
    try:
        replaceable = not any(final.iterdir()) or any((final / mark).is_file() for mark in _OUTPUT_MARKS)
    except OSError as error:
        raise OutputError(f"The output {final} cannot be looked into: {error.strerror}.") from error
    if not replaceable:
        raise OutputError(
            f"The output {final} exists, and holds neither {' nor '.join(_OUTPUT_MARKS)}: it does not look like an "
            "earlier output, so it is not deleted. Remove it yourself, or choose another name."
        )


def _replace_directory(temporary: Path, final: Path) -> None:
    """Rename `temporary` to `final`; what was there steps aside first and comes back if that fails."""
    if not os.path.lexists(final):
        temporary.rename(final)
        return
    aside = _sibling_name(final, "replaced")
    final.rename(aside)
    try:
        temporary.rename(final)
    except OSError:
        aside.rename(final)
        raise
    _remove(aside)


@contextlib.contextmanager
def _temporary_sibling(final: Path) -> Iterator[tuple[Path, Interruption]]:
    """Yield an unused path beside `final`, and remove whatever is left there at the end."""
    made_parents: list[Path] = []
    temporary = _sibling_name(final, "partial")
    done = False
    with Interruption() as interruption:
        try:
            _make_parents(final.parent, made_parents)
            yield temporary, interruption
            done = True
        except Exception as error:
            interruption.raise_if_received()
            reason = _write_failure(error, temporary)
            if reason is None:
                raise
            raise OutputError(f"The output {final} cannot be written: {reason}. Nothing was written.") from error
        finally:
            # A second Ctrl-C must not interrupt the cleaning up.
            with signals_ignored():
                _remove(temporary)
                for parent in [] if done else reversed(made_parents):
                    with contextlib.suppress(OSError):
                        parent.rmdir()


def _sibling_name(final: Path, purpose: str) -> Path:
    # The suffix stays: numpy.savez and others add one where it is missing.
    return final.with_name(f".{final.stem[:100]}.{secrets.token_hex(4)}.{purpose}{final.suffix[:20]}")


def _make_parents(directory: Path, made: list[Path]) -> None:
    if directory.is_dir():
        return
    _make_parents(directory.parent, made)
    directory.mkdir()
    made.append(directory)


def _write_failure(error: Exception, temporary: Path) -> str | None:
    """Why the output could not be written, or None where the error is about something else."""
    if isinstance(error, GraphfreezeError):
        return None
    if isinstance(error, OSError):
        paths = [Path(str(name)) for name in (error.filename, error.filename2) if name is not None]
        if error.errno in _DISK_ERRORS or any(p.is_relative_to(temporary) or p in temporary.parents for p in paths):
            return error.strerror or str(error)
        return None
    # TensorFlow and safetensors wrap the system's error in types of their own, and keep its text.
    texts = (os.strerror(code) for code in _DISK_ERRORS)
    return next((text for text in texts if text in str(error)), None)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
