"""Which node ran on which provider, from what onnxruntime recorded rather than from what it was asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from graphfreeze.errors import ValidationError
from graphfreeze.runtime.device import CPU_PROVIDER, Device

__all__ = ["Kernel", "Placement", "assigned_nodes", "read_kernels"]

_FLOATING = {"float", "double", "float16", "bfloat16"}
# These read a tensor's shape, not its content.
_SHAPE_OPERATORS = {"Shape", "Size"}


@dataclass(frozen=True)
class Kernel:
    """One kernel that ran.

    Attributes:
        name: The node's name, as it is after onnxruntime's rearrangements.
        operator: The operator (`Conv`, or a fused one).
        provider: The execution provider that ran it.
        input_types: onnxruntime's names of the inputs' element types.
        output_types: The same of the outputs.
    """

    name: str
    operator: str
    provider: str
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]

    @property
    def carries_floats(self) -> bool:
        """Whether it computes with floating-point data, rather than with shapes, indices or random bits."""
        inputs = () if self.operator in _SHAPE_OPERATORS else self.input_types
        return not _FLOATING.isdisjoint((*inputs, *self.output_types))


@dataclass(frozen=True)
class Placement:
    """Where the nodes of one graph were put, and where its kernels ran.

    Attributes:
        graph: The ONNX file's name.
        device: Where they should have run.
        assigned: Nodes by provider and operator, as onnxruntime assigned them when it loaded the graph.
        kernels: The kernels of one run.
        host_side: The nodes that may carry floating-point data on the CPU.
    """

    graph: str
    device: Device
    assigned: dict[str, Counter[str]]
    kernels: tuple[Kernel, ...]
    host_side: tuple[str, ...] = ()

    @property
    def on_host(self) -> tuple[Kernel, ...]:
        """The kernels that ran on the CPU although the device is another one."""
        if self.device.provider == CPU_PROVIDER:
            return ()
        return tuple(kernel for kernel in self.kernels if kernel.provider == CPU_PROVIDER)

    @property
    def misplaced(self) -> tuple[Kernel, ...]:
        """Those of them that carry floating-point data and are not listed as host-side."""
        return tuple(k for k in self.on_host if k.carries_floats and k.name not in self.host_side)

    def report(self) -> dict[str, Any]:
        """The placement as JSON-ready facts."""
        return {
            "nodes": {provider: sum(counts.values()) for provider, counts in sorted(self.assigned.items())},
            "operators": {provider: dict(sorted(counts.items())) for provider, counts in sorted(self.assigned.items())},
            "kernels": dict(sorted(Counter(kernel.provider for kernel in self.kernels).items())),
            "on_host": [
                {"name": k.name, "operator": k.operator, "carries_floats": k.carries_floats} for k in self.on_host
            ],
        }

    def check(self) -> None:
        """Refuse floating-point work that fell back to the CPU.

        Raises:
            ValidationError: There is such work, or nothing ran on the device.
        """
        if self.misplaced:
            names = ", ".join(f"{kernel.name} ({kernel.operator})" for kernel in self.misplaced[:5])
            more = f" and {len(self.misplaced) - 5} more" if len(self.misplaced) > 5 else ""
            raise ValidationError(
                f"{self.graph}: {len(self.misplaced)} nodes with floating-point data ran on the CPU instead of "
                f"{self.device.kind}: {names}{more}. The manifest does not list them as host-side. "
                "Use --device cpu, or another version of onnxruntime-gpu.",
                self.report(),
            )
        if self.kernels and not any(kernel.provider == self.device.provider for kernel in self.kernels):
            raise ValidationError(f"{self.graph}: no node ran on {self.device.kind}.", self.report())


def assigned_nodes(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]]:
    """Count the nodes of a session by provider and operator, those of nested graphs included."""
    counts: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return counts


def read_kernels(profile: Path) -> tuple[Kernel, ...]:
    """Read the kernels from a profile of onnxruntime; one that ran several times is listed once."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    kernels = {
        Kernel(
            name=event["name"].removesuffix("_kernel_time"),
            operator=event["args"]["op_name"],
            provider=event["args"]["provider"],
            input_types=_element_types(event["args"].get("input_type_shape", ())),
            output_types=_element_types(event["args"].get("output_type_shape", ())),
        ): None
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return tuple(kernels)


def _element_types(tensors: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(name for tensor in tensors for name in tensor)
