"""The operations that write variables, and what each of their inputs is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorflow.core.framework import node_def_pb2

__all__ = ["NORM", "Write", "write_of"]


@dataclass(frozen=True)
class Write:
    """How an operation writes.

    Attributes:
        handles: The inputs with handles: a variable, then the optimizer's slots.
        value: The input with what is written, or with the gradient.
        indices: The input with the indices, None where the whole variable is written.
        by_element: Whether the indices name elements (or slices), not rows.
        applies: Whether it is an optimizer's step.
        unchanged: The number that writes nothing new; None where any stored number is needed for that.
        reference: Whether it takes references, as operations of TensorFlow 1 do, and not handles.
    """

    handles: tuple[int, ...]
    value: int
    indices: int | None = None
    by_element: bool = False
    applies: bool = False
    unchanged: float | None = None
    reference: bool = False


NORM = Write((), 0, unchanged=0.0)
"""What takes a gradient for its norm: at frozen elements it has to take zeros."""

_PLAIN = {
    "AssignVariableOp": Write((0,), 1),
    # A sum with -0.0 and a difference with 0.0 are exact even for -0.0.
    "AssignAddVariableOp": Write((0,), 1, unchanged=-0.0),
    "AssignSubVariableOp": Write((0,), 1, unchanged=0.0),
    **{
        f"ResourceScatter{end}": Write((0,), 2, 1, unchanged=number)
        for end, number in (("Add", -0.0), ("Sub", 0.0), ("Mul", 1.0), ("Div", 1.0))
    },
    **{f"ResourceScatter{end}": Write((0,), 2, 1) for end in ("Min", "Max", "Update")},
    "ResourceScatterNdAdd": Write((0,), 2, 1, by_element=True, unchanged=-0.0),
    "ResourceScatterNdSub": Write((0,), 2, 1, by_element=True, unchanged=0.0),
    **{f"ResourceScatterNd{end}": Write((0,), 2, 1, by_element=True) for end in ("Min", "Max", "Update")},
}

# Of each optimizer: how many slots follow the variable, and where the gradient is.
_DENSE = {
    "AdaMax": (2, 8),
    "Adadelta": (2, 6),
    "Adagrad": (1, 3),
    "AdagradDA": (2, 3),
    "AdagradV2": (1, 4),
    "Adam": (2, 9),
    "AdamWithAmsgrad": (3, 10),
    "AddSign": (1, 6),
    "CenteredRMSProp": (3, 8),
    "Ftrl": (2, 3),
    "FtrlV2": (2, 3),
    "GradientDescent": (0, 2),
    "KerasMomentum": (1, 3),
    "Momentum": (1, 3),
    "PowerSign": (1, 6),
    "ProximalAdagrad": (1, 5),
    "ProximalGradientDescent": (0, 4),
    "RMSProp": (2, 7),
}
_SPARSE = frozenset(_DENSE) - {
    *("AdaMax", "Adam", "AdamWithAmsgrad", "AddSign", "GradientDescent", "PowerSign"),
}


_REFERENCES = {
    "Assign": _PLAIN["AssignVariableOp"],
    "AssignAdd": _PLAIN["AssignAddVariableOp"],
    "AssignSub": _PLAIN["AssignSubVariableOp"],
    **{f"Scatter{name.removeprefix('ResourceScatter')}": w for name, w in _PLAIN.items() if "Scatter" in name},
}


def write_of(node: node_def_pb2.NodeDef) -> Write | None:
    """How a node writes variables, or None where it does not, or in a way that is not understood."""
    resource = "Resource" + node.op
    if node.op in _REFERENCES:
        # Without validation, assigning may change the shape.
        loose = node.op == "Assign" and "validate_shape" in node.attr and not node.attr["validate_shape"].b
        policy = "bad_indices_policy" in node.attr and bool(node.attr["bad_indices_policy"].s)
        return None if loose or policy else replace(_REFERENCES[node.op], reference=True)
    if resource.startswith(("ResourceApply", "ResourceSparseApply")):
        same = _optimizer_step(resource)
        return None if same is None else replace(same, reference=True)
    if node.op in _PLAIN:
        policy = "bad_indices_policy" in node.attr and bool(node.attr["bad_indices_policy"].s)
        return None if policy else _PLAIN[node.op]
    return _optimizer_step(node.op)


def _optimizer_step(operation: str) -> Write | None:
    """An optimizer's operation. TensorFlow 1's have the same inputs, and the same name without `Resource`."""
    for prefix, names in (("ResourceApply", frozenset(_DENSE)), ("ResourceSparseApply", _SPARSE)):
        optimizer = operation.removeprefix(prefix)
        if operation.startswith(prefix) and optimizer in names:
            slots, gradient = _DENSE[optimizer]
            indices = gradient + 1 if names is _SPARSE else None
            return Write(tuple(range(slots + 1)), gradient, indices, applies=True)
    return None
