"""Where to run: what was asked for, what was taken, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from graphfreeze.errors import UsageError, ValidationError
from graphfreeze.runtime.cuda import CUDA_PROVIDER, CUDA_PROVIDER_OPTIONS, why_no_cuda

__all__ = ["CPU_PROVIDER", "Device", "choose_device"]

CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Device:
    """A device to run on.

    Attributes:
        kind: `cpu` or `cuda`.
        reason: Why this one, in words.
        threads: How many threads of the CPU share a node's work; None leaves it to onnxruntime, which takes all cores.
    """

    kind: Literal["cpu", "cuda"]
    reason: str
    threads: int | None = None

    @property
    def provider(self) -> str:
        """The name of onnxruntime's execution provider."""
        return CUDA_PROVIDER if self.kind == "cuda" else CPU_PROVIDER

    @property
    def providers(self) -> list[Any]:
        """The argument `providers` of a session. Nodes without a CUDA kernel need the CPU too."""
        return [(CUDA_PROVIDER, CUDA_PROVIDER_OPTIONS), CPU_PROVIDER] if self.kind == "cuda" else [CPU_PROVIDER]


def choose_device(requested: str | Device) -> Device:
    """Choose the device to run on.

    Args:
        requested: `auto` takes CUDA where it really works; `cpu`; `cuda` takes nothing else.

    Raises:
        ValidationError: `cuda` was requested and is not there; the message says why and what to do.
        UsageError: There is no such device.
    """
    if isinstance(requested, Device):
        return requested
    if requested == "cpu":
        return Device("cpu", "requested")
    if requested not in ("auto", "cuda"):
        raise UsageError(f"The device is one of auto, cpu, cuda; found {requested!r}.")
    missing = why_no_cuda()
    if requested == "cuda":
        if missing:
            raise ValidationError(f"CUDA was demanded and cannot be used: {missing}.", {"device": "cuda"})
        return Device("cuda", "requested")
    return Device("cpu", f"auto took the CPU: {missing}") if missing else Device("cuda", "auto took CUDA: it works")
