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
        is_reference: Whether it takes references, as in TensorFlow 1, and not handles.
    """

    kind: UpdateKind
    handles: tuple[int, ...]
    value: int
    indices: int | None = None
    neutral: float | None = None
    is_reference: bool = False


# Adding -0.0 and subtracting 0.0 leave every number as it is, also -0.0.
_DELTAS = {"AssignAddVariableOp": -0.0, "AssignSubVariableOp": 0.0}
_REFERENCE_DELTAS = {"AssignAdd": -0.0, "AssignSub": 0.0}
_NEUTRAL: Mapping[str, float | None] = {
    **{"Add": -0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0},
    **{"Min": None, "Max": None, "Update": None},
}
_SCATTERS = {
    "ResourceScatterNd": UpdateKind.ELEMENTS,
    "ResourceScatter": UpdateKind.ROWS,
    "ScatterNd": UpdateKind.ELEMENTS,
    "Scatter": UpdateKind.ROWS,
}
_GRADIENTS = ("grad", "delta")


def update_of(node: node_def_pb2.NodeDef) -> Update | None:
    """What a node that writes variables does, or None where that is not known."""
    if node.op == "AssignVariableOp":
        return Update(UpdateKind.OVERWRITE, (0,), 1)
    if node.op == "Assign":
        # Without validation it may change the shape.
        fixed = "validate_shape" not in node.attr or node.attr["validate_shape"].b
        return Update(UpdateKind.OVERWRITE, (0,), 1, is_reference=True) if fixed else None
    if node.op in _DELTAS:
        return Update(UpdateKind.DELTA, (0,), 1, neutral=_DELTAS[node.op])
    if node.op in _REFERENCE_DELTAS:
        return Update(UpdateKind.DELTA, (0,), 1, neutral=_REFERENCE_DELTAS[node.op], is_reference=True)
    for prefix, kind in _SCATTERS.items():
        if node.op.startswith(prefix) and node.op.removeprefix(prefix) in _NEUTRAL:
            # With a policy of its own for bad indices, a gather of the mask would not do the same.
            if "bad_indices_policy" in node.attr and node.attr["bad_indices_policy"].s:
                return None
            neutral, is_reference = _NEUTRAL[node.op.removeprefix(prefix)], not prefix.startswith("Resource")
            return Update(kind, (0,), 2, indices=1, neutral=neutral, is_reference=is_reference)
    if node.op.removeprefix("Resource").startswith(("Apply", "SparseApply")):
        return _apply(node.op)
    return None


@cache
def _apply(operation: str) -> Update | None:
    definition = op_def_registry.get(operation)
    is_reference = not operation.startswith("Resource")
    if definition is None or len(definition.output_arg) != is_reference:
        return None
    names = [argument.name for argument in definition.input_arg]
    handles = tuple(
        i
        for i, argument in enumerate(definition.input_arg)
        if argument.type == types_pb2.DT_RESOURCE or argument.is_ref
    )
    values = [names.index(name) for name in _GRADIENTS if name in names]
    sparse = operation.removeprefix("Resource").startswith("SparseApply")
    if len(values) != 1 or not handles or names[handles[0]] != "var" or ("indices" in names) != sparse:
        return None
    indices = names.index("indices") if sparse else None
    return Update(UpdateKind.APPLY, handles, values[0], indices, is_reference=is_reference)
