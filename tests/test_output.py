"""The output appears whole or not at all: real signals, real file-size limits, real permissions."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graphfreeze.errors import ModelReadError, OutputError
from graphfreeze.output import atomic_directory, atomic_file


def contents(directory: Path) -> list[str]:
    """Everything below a directory, hidden names included."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def earlier_output(directory: Path) -> Path:
    directory.mkdir()
    (directory / "report.json").write_text("old")
    return directory


def test_the_directory_appears_when_the_body_succeeds(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with atomic_directory(final) as temporary:
        (temporary / "a").write_text("a")
        assert temporary.parent == tmp_path
        assert not final.exists()
    assert contents(tmp_path) == ["out", "out/a"]


def test_the_directory_gets_the_permissions_of_any_new_directory(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with atomic_directory(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(143), ModelReadError("no")])
def test_nothing_stays_when_the_body_fails(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), atomic_directory(tmp_path / "new" / "parents" / "out") as temporary:
        (temporary / "folder").mkdir()
        (temporary / "folder" / "a").write_text("a")
        raise error
    assert contents(tmp_path) == []


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "new" / "parents" / "out"):
        pass
    assert contents(tmp_path) == ["new", "new/parents", "new/parents/out"]


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    final = earlier_output(tmp_path / "out")
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"), atomic_directory(final):
        pytest.fail("the body must not run")
    assert (final / "report.json").read_text() == "old"


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(OutputError, match="exists already"), atomic_directory(final) as temporary:
        (temporary / "a").write_text("mine")
        final.mkdir()
    assert contents(tmp_path) == ["out"]


def test_overwrite_replaces_at_the_end(tmp_path: Path) -> None:
    final = earlier_output(tmp_path / "out")
    with atomic_directory(final, overwrite=True) as temporary:
        (temporary / "b").write_text("new")
        assert (final / "report.json").read_text() == "old"
    assert contents(tmp_path) == ["out", "out/b"]


def test_overwrite_keeps_the_old_output_when_the_body_fails(tmp_path: Path) -> None:
    final = earlier_output(tmp_path / "out")
    with pytest.raises(ValueError, match="no"), atomic_directory(final, overwrite=True):
        raise ValueError("no")
    assert contents(tmp_path) == ["out", "out/report.json"]


def test_overwrite_replaces_a_link_and_not_what_it_names(tmp_path: Path) -> None:
    earlier_output(tmp_path / "elsewhere")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with atomic_directory(tmp_path / "out", overwrite=True):
        pass
    assert contents(tmp_path) == ["elsewhere", "elsewhere/report.json", "out"]
    assert not (tmp_path / "out").is_symlink()


def test_overwrite_refuses_a_directory_that_is_no_earlier_output(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters.txt").write_text("dear")
    with (
        pytest.raises(OutputError, match="does not look like an earlier output"),
        atomic_directory(tmp_path / "home", overwrite=True),
    ):
        pytest.fail("the body must not run")
    assert contents(tmp_path) == ["home", "home/letters.txt"]


def test_overwrite_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is not a directory"), atomic_directory(tmp_path / "out", overwrite=True):
        pytest.fail("the body must not run")


@pytest.mark.parametrize(
    ("final", "message"),
    [("model", "lies in the input"), ("model/sub/out", "lies in the input"), (".", "contains the input")],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_overlaps_its_input_is_refused(
    tmp_path: Path, final: str, message: str, overwrite: bool
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_text("model")
    with (
        pytest.raises(OutputError, match=message),
        atomic_directory(tmp_path / final, overwrite=overwrite, inputs=[tmp_path / "model"]),
    ):
        pytest.fail("the body must not run")
    assert contents(tmp_path) == ["model", "model/saved_model.pb"]


def test_an_overlap_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with (
        pytest.raises(OutputError, match="lies in the input"),
        atomic_directory(tmp_path / "link" / "out", inputs=[tmp_path / "model"]),
    ):
        pytest.fail("the body must not run")


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), atomic_directory(tmp_path / "file" / "out"):
        pytest.fail("the body must not run")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Become a user who may not write, where the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("unprivileged")
def test_a_parent_without_permission_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="Permission denied"), atomic_directory(Path("/usr/share/out")):
        pytest.fail("the body must not run")


@pytest.mark.usefixtures("unprivileged")
def test_a_file_without_permission_is_an_output_error_before_any_work() -> None:
    with pytest.raises(OutputError, match="Permission denied"), atomic_file(Path("/usr/share/out")):
        pytest.fail("the body must not run")


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "out"):
        (tmp_path / "missing_input").read_bytes()
    assert contents(tmp_path) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let every write past 64 KiB fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_with_python(path: Path) -> None:
    path.write_bytes(bytes(200_000))


def write_with_safetensors(path: Path) -> None:
    save_file({"a": np.zeros(200_000, np.uint8)}, path)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("write", [write_with_python, write_with_safetensors])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_is_an_output_error(tmp_path: Path, write: Callable[[Path], None], overwrite: bool) -> None:
    if overwrite:
        earlier_output(tmp_path / "out")
    before = contents(tmp_path)
    with (
        pytest.raises(OutputError, match="File too large"),
        atomic_directory(tmp_path / "out", overwrite=overwrite) as temporary,
    ):
        write(temporary / "a")
    assert contents(tmp_path) == before
    with pytest.raises(OutputError, match="File too large"), atomic_file(tmp_path / "file") as path:
        write(path)
    assert contents(tmp_path) == before


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP ends processes, although `nohup` may have started the tests: what is ignored then stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_killed_process_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = textwrap.dedent("""
        import pathlib, sys, time
        from graphfreeze.output import atomic_directory
        with atomic_directory(pathlib.Path(sys.argv[1])) as temporary:
            (temporary / "half").write_text("half")
            print("writing", flush=True)
            time.sleep(60)
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "new" / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert [Path(name).name for name in contents(tmp_path)].count("half") == 1
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    assert time.monotonic() - started < 30
    assert contents(tmp_path) == []


class RaisesNothing:
    """Its destructor sends this process a signal: Python drops what a destructor raises."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.usefixtures("hangup")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
@pytest.mark.parametrize("then", [None, RuntimeError("what a library makes of it")])
def test_a_signal_whose_exception_got_lost_still_counts(
    tmp_path: Path, number: signal.Signals, raised: type[BaseException], then: Exception | None
) -> None:
    for output in (atomic_directory, atomic_file):
        with pytest.raises(raised), output(tmp_path / "out") as temporary:
            RaisesNothing(number)
            if then is not None:
                raise then
            assert temporary.parent == tmp_path
        assert contents(tmp_path) == []


def test_the_handlers_of_the_caller_come_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with atomic_directory(tmp_path / "out"):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_the_file_appears_when_the_body_succeeds(tmp_path: Path) -> None:
    final = tmp_path / "new" / "state.npz"
    with atomic_file(final) as temporary:
        np.savez(temporary, a=np.arange(3))
        assert not final.exists()
    assert contents(tmp_path) == ["new", "new/state.npz"]
    assert np.load(final)["a"].tolist() == [0, 1, 2]


def test_no_file_stays_when_the_body_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "new" / "state") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == []


def test_an_existing_file_is_replaced_on_request_only(tmp_path: Path) -> None:
    final = tmp_path / "state"
    final.write_text("old")
    with pytest.raises(OutputError, match="exists already"), atomic_file(final):
        pytest.fail("the body must not run")
    with atomic_file(final, overwrite=True) as temporary:
        temporary.write_text("new")
        assert final.read_text() == "old"
    assert contents(tmp_path) == ["state"]
    assert final.read_text() == "new"


def test_a_file_output_is_neither_a_directory_nor_an_input(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="found the directory"), atomic_file(tmp_path, overwrite=True):
        pytest.fail("the body must not run")
    (tmp_path / "data.npz").write_text("data")
    with (
        pytest.raises(OutputError, match="is also an input"),
        atomic_file(tmp_path / "data.npz", overwrite=True, inputs=[tmp_path / "data.npz"]),
    ):
        pytest.fail("the body must not run")
