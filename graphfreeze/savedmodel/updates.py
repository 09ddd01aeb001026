"""Operations that write a variable: which of their inputs are handles, indices, and what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.python.framework import op_def_registry

__all__ = ["Update", "UpdateKind", "update_of"]


class UpdateKind(Enum):
    """How an operation writes."""

    OVERWRITE = "overwrite"
    DELTA = "delta"
    ROWS = "rows"
    ELEMENTS = "elements"
    APPLY = "apply"


@dataclass(frozen=True, slots=True)
class Update:
    """What an operation that writes variables does.

    Attributes:
        kind: Overwriting all, adding to all, writing rows or elements at indices, or one of an optimizer's steps.
        handles: The inputs that take handles: the variable, then an optimizer's slots.
        value: The input with what is written; of an optimizer's step, the gradient.
        indices: The input with the indices, or None where the whole variable is written.
        neutral: The number that changes nothing when written; None where there is none.
    """

    kind: UpdateKind
    handles: tuple[int, ...]
    value: int
    indices: int | None = None
    neutral: float | None = None


# Adding -0.0 and subtracting 0.0 leave every number as it is, also -0.0.
_DELTAS = {"AssignAddVariableOp": -0.0, "AssignSubVariableOp": 0.0}
_NEUTRAL: Mapping[str, float | None] = {
    **{"Add": -0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0},
    **{"Min": None, "Max": None, "Update": None},
}
_GRADIENTS = ("grad", "delta")


def update_of(node: node_def_pb2.NodeDef) -> Update | None:
    """What a node that writes variables does, or None where that is not known."""
    if node.op == "AssignVariableOp":
        return Update(UpdateKind.OVERWRITE, (0,), 1)
    if node.op in _DELTAS:
        return Update(UpdateKind.DELTA, (0,), 1, neutral=_DELTAS[node.op])
    for prefix, kind in (("ResourceScatterNd", UpdateKind.ELEMENTS), ("ResourceScatter", UpdateKind.ROWS)):
        if node.op.startswith(prefix) and node.op.removeprefix(prefix) in _NEUTRAL:
            # With a policy of its own for bad indices, a gather of the mask would not do the same.
            if "bad_indices_policy" in node.attr and node.attr["bad_indices_policy"].s:
                return None
            return Update(kind, (0,), 2, indices=1, neutral=_NEUTRAL[node.op.removeprefix(prefix)])
    if node.op.startswith(("ResourceApply", "ResourceSparseApply")):
        return _apply(node.op)
    return None


@cache
def _apply(operation: str) -> Update | None:
    definition = op_def_registry.get(operation)
    if definition is None or definition.output_arg:
        return None
    names = [argument.name for argument in definition.input_arg]
    handles = tuple(i for i, argument in enumerate(definition.input_arg) if argument.type == types_pb2.DT_RESOURCE)
    values = [names.index(name) for name in _GRADIENTS if name in names]
    sparse = operation.startswith("ResourceSparseApply")
    if len(values) != 1 or not handles or names[handles[0]] != "var" or ("indices" in names) != sparse:
        return None
    return Update(UpdateKind.APPLY, handles, values[0], names.index("indices") if sparse else None)
