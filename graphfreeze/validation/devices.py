"""Which device each graph's nodes ran on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.reader import Artifact
from graphfreeze.errors import ValidationError
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.device_tensor import element_dtype
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.validation.check import Check, conclude

__all__ = ["check_placement"]


def check_placement(
    artifact: Artifact, device: Device, values: Mapping[str, npt.NDArray[Any]], batch_size: int
) -> tuple[Check, dict[str, Any]]:
    """Run every graph once and look where its nodes ran.

    Args:
        artifact: The artifact.
        device: Where they should run.
        values: The batch, the state and the gradients.
        batch_size: For inputs of the forward endpoint that the batch does not have, which become zeros.

    Returns:
        The check, and the placement per graph.
    """
    problems = []
    placements: dict[str, Any] = {}
    for graph in artifact.manifest.graphs:
        runner = GraphRunner(artifact, graph, device)
        zeros = {name: _zeros(runner, name, batch_size) for name in runner.entry.inputs if name not in values}
        placement = runner.placement({**values, **zeros})
        placements[graph] = placement.report()
        try:
            placement.check()
        except ValidationError as error:
            problems.append(str(error))
    nodes = sum(sum(report["nodes"].values()) for report in placements.values())
    return conclude("every node ran on the device", problems, f"{nodes} nodes on {device.kind}"), placements


def _zeros(runner: GraphRunner, name: str, batch_size: int) -> npt.NDArray[Any]:
    shape = [size if isinstance(size, int) else batch_size for size in runner.input_shapes[name]]
    return np.zeros(shape, element_dtype(runner.input_types[name]))
