"""Operations that pass their inputs on, or do nothing that a training step needs."""

from __future__ import annotations

from graphfreeze.lowering.rule import Node, special
from graphfreeze.lowering.tensor import Tensor


@special(
    "Identity",
    "StopGradient",
    "PreventGradient",
    "PlaceholderWithDefault",
    "Snapshot",
    "CheckNumerics",
    "CheckNumericsV2",
    "DebugIdentityV2",
    "EnsureShape",
    "Print",
)
def identity(node: Node) -> list[Tensor]:
    """The first input, unchanged."""
    return [node.inputs[0]]


@special("IdentityN")
def identity_n(node: Node) -> list[Tensor]:
    """All inputs, unchanged."""
    return list(node.inputs)


@special("NoOp", "Assert", "ControlTrigger", "PrintV2")
def nothing(node: Node) -> list[Tensor]:
    """Nothing: assertions and messages are left out of the training step."""
    return []
