"""Worker processes that take turns: the side of `worker.py` that asks."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tools.bench_cases.alternation import Timing

__all__ = ["ROOT", "Ready", "Worker", "WorkerFailedError"]

ROOT = Path(__file__).resolve().parents[2]
_SECONDS_PER_TURN = 0.2
_MOST_STEPS = 200
_LIMIT = 900.0


class WorkerFailedError(Exception):
    """The worker cannot train the model, or has ended. The message is the reason."""


@dataclass(frozen=True)
class Ready:
    """What a worker says when its step works.

    Attributes:
        versions: The packages that do the work.
        parameters: How many trainable numbers there are, where it knows.
        loss: The loss of the first step.
        seconds: A first impression of what a step takes.
    """

    versions: Mapping[str, str]
    parameters: int | None
    loss: float
    seconds: float


@dataclass
class Worker:
    """A process that trains when told to.

    Args:
        python: The Python of its environment.
        side: Its file in `sides`.
        model: The model's name.
        directory: What was prepared for the model.
        threads: How many threads it may use.
        variant: `unfrozen` or `frozen`.
    """

    python: Path
    side: str
    model: str
    directory: Path
    threads: int
    variant: str
    steps: int = 1
    _process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        count = str(self.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        arguments = [self.side, self.model, str(self.directory), count, self.variant]
        self._process = subprocess.Popen(
            [str(self.python), "-m", "tools.bench_cases.worker", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait_until_ready(self) -> Ready:
        """Wait for the first steps, and decide from them how many steps a turn has.

        Raises:
            WorkerFailedError: The side cannot train the model.
        """
        answer = self._read()
        if "reason" in answer:
            raise WorkerFailedError(str(answer["reason"]))
        ready = Ready(**answer)
        self.steps = max(1, min(_MOST_STEPS, round(_SECONDS_PER_TURN / ready.seconds)))
        return ready

    def turn(self) -> Sequence[Timing]:
        """Make the steps of one turn.

        Raises:
            WorkerFailedError: The process has ended.
        """
        stdin = self._stream(self._process.stdin)
        try:
            stdin.write(json.dumps({"steps": self.steps}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise WorkerFailedError("the process ended while it trained") from None
        answer = self._read()
        return [Timing(*pair) for pair in zip(answer["seconds"], answer["processor"], strict=True)]

    def close(self) -> None:
        """End the process."""
        self._stream(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stream(self._process.stdout).close()

    def _read(self) -> dict[str, Any]:
        stdout = self._stream(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(_LIMIT):
                self._process.kill()
                raise WorkerFailedError(f"no answer within {_LIMIT:.0f} s")
        line = stdout.readline()
        if not line:
            raise WorkerFailedError(f"the process ended with the exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream
