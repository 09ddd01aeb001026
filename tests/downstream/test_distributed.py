"""A rewritten model trains frozen in several replicas: devices of a process, and processes that exchange gradients."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from .conftest import Array, Rewritten

SCRIPT = Path(__file__).with_name("distributed_training.py")
# Generous: what takes seconds may take minutes where many tests share few cores.
SECONDS = 300
ATTEMPTS = 3


def environment(**more: str) -> dict[str, str]:
    """That of this process, without a proxy between workers and without a GPU."""
    quiet = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "no_proxy": "127.0.0.1",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    return {**os.environ, **quiet, **more}


def run_together(commands: Sequence[tuple[list[str], Mapping[str, str]]], logs: Path) -> str:
    """Run processes until all have ended, or one has failed; then none is left. Returns what went wrong."""
    end = time.monotonic() + SECONDS
    with contextlib.ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        for number, (command, env) in enumerate(commands):
            log = stack.enter_context((logs / f"log{number}").open("wb"))
            processes.append(subprocess.Popen(command, env=dict(env), stdout=log, stderr=log))
            stack.callback(stop, processes[-1])
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            if any(process.poll() for process in processes):
                break
            time.sleep(0.1)
        if all(process.poll() == 0 for process in processes):
            return ""
    return (
        "\n".join((logs / f"log{number}").read_text(errors="replace") for number in range(len(commands))) or "too slow"
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def check(rewritten: Rewritten, results: Sequence[Path]) -> None:
    """Every replica holds the same, which is what was to be trained, and frozen what was to be frozen."""
    found = [dict(np.load(path)) for path in results]
    names = sorted(name.split("/", 1)[1] for name in found[0] if name.startswith("replica0/"))
    replicas: list[dict[str, Array]] = [
        {name: result[f"replica{number}/{name}"] for name in names}
        for result in found
        for number in range(2)
        if f"replica{number}/{names[0]}" in result
    ]
    assert len(replicas) == 2
    for name in names:
        assert replicas[0][name].tobytes() == replicas[1][name].tobytes(), name
    for result in found:
        assert result["losses"].tobytes() == found[0]["losses"].tobytes()
        rewritten.check_trained(replicas[0], result["outputs"])


@dataclass(frozen=True)
class Job:
    """What is trained, and where to.

    Attributes:
        models: Both rewritten models.
        folder: Where data and results lie.
    """

    models: tuple[Rewritten, Rewritten]
    folder: Path

    def result(self, model: int, process: int) -> Path:
        return self.folder / f"result{model}_{process}.npz"

    def command(self, kind: str, process: int = 0) -> list[str]:
        """The command of a process that trains both models."""
        pairs = [(m.saved_model, self.result(number, process)) for number, m in enumerate(self.models)]
        paths = [str(path) for pair in pairs for path in pair]
        return [sys.executable, str(SCRIPT), kind, str(self.folder / "data.npz"), *paths]

    def check(self, processes: int) -> None:
        for number, model in enumerate(self.models):
            check(model, [self.result(number, process) for process in range(processes)])


@pytest.fixture
def job(in_graph: Rewritten, stored: Rewritten, tmp_path: Path) -> Job:
    np.savez(tmp_path / "data.npz", x=in_graph.x, y=in_graph.y)
    return Job((in_graph, stored), tmp_path)


def test_two_devices(job: Job) -> None:
    assert run_together([(job.command("mirrored"), environment())], job.folder) == ""
    job.check(processes=1)


def test_two_processes(job: Job) -> None:
    problem = ""
    for _ in range(ATTEMPTS):
        # Another process may take a port before the worker does.
        workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
        places = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}} for number in range(2)]
        commands = [
            (job.command("workers", number), environment(TF_CONFIG=json.dumps(place)))
            for number, place in enumerate(places)
        ]
        problem = run_together(commands, job.folder)
        if "start gRPC server" not in problem:
            break
    assert problem == ""
    job.check(processes=2)
