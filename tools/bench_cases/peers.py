"""The sides of a measurement: what each is called, what it needs, and which variant of the model it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BASE", "SIDES", "SideEntry"]

BASE = "graphfreeze"
"""The side that the others are compared with."""


@dataclass(frozen=True)
class SideEntry:
    """One side.

    Attributes:
        name: How the command line and the document call it.
        module: Its file in `sides`, without `_side.py`.
        requirements: The packages of its environment; empty where it runs in the tool's own.
        variant: `unfrozen` or `frozen`.
        base: The side that it is compared with.
    """

    name: str
    module: str
    requirements: tuple[str, ...] = ()
    variant: str = "unfrozen"
    base: str = BASE


_ALL = (
    SideEntry(BASE, "graphfreeze"),
    SideEntry("tensorflow", "tensorflow"),
    SideEntry("graphfreeze-frozen", "graphfreeze", variant="frozen", base="graphfreeze-frozen"),
    SideEntry("tensorflow-frozen", "tensorflow", variant="frozen", base="graphfreeze-frozen"),
    SideEntry("torch", "torch", ("torch==2.13.0", "numpy")),
    # Its artifacts need a file format of that time, and its Python API imports torch.
    SideEntry(
        "onnxruntime-training",
        "onnxruntime_training",
        ("onnxruntime-training==1.19.2", "onnx==1.17.0", "torch==2.13.0"),
    ),
    SideEntry("onnxsim", "onnxsim", ("onnxsim==0.8.1", "onnxruntime==1.31.1")),
    SideEntry("litert", "litert", ("ai-edge-litert==2.3.0",)),
)

SIDES: Mapping[str, SideEntry] = {side.name: side for side in _ALL}
