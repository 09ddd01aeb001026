"""Work in a process of its own: it may crash, hang, or lose the process that waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tools.worker import CrashError, Worker

ROOT = Path(__file__).resolve().parent.parent

WAIT = """
import os, time
from tools.worker import Worker

def main():
    with Worker(time.sleep) as worker:
        worker.call(0, seconds=60)
        print("started", flush=True)
        worker.call(600, seconds=600)

if __name__ == "__main__":
    main()
"""


def make_a_file() -> str:
    """The name of a new file in the folder for such files."""
    handle, name = tempfile.mkstemp()
    os.close(handle)
    return name


def test_a_crash_is_told_and_survived() -> None:
    with Worker(os._exit) as worker:
        for _ in range(2):
            with pytest.raises(CrashError):
                worker.call(0, seconds=60)


def test_what_hangs_is_ended() -> None:
    with Worker(time.sleep) as worker:
        assert worker.call(0, seconds=60) is None
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            worker.call(600, seconds=0.2)
        assert time.monotonic() - start < 60
        assert worker.call(0, seconds=60) is None


def test_it_leaves_no_files() -> None:
    with Worker(make_a_file) as worker:
        name = Path(worker.call(seconds=60))
        assert name.exists()
    assert not name.parent.exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(tmp_path: Path, end: signal.Signals) -> None:
    (tmp_path / "wait.py").write_text(WAIT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "wait.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(end)
    # The worker has the same output: it ends when both have ended.
    process.communicate(timeout=60)
