"""Groups of TensorFlow operations, by what they do with the elements of a tensor."""

from __future__ import annotations

__all__ = [
    "ELEMENT_BY_ELEMENT",
    "FOLLOWED",
    "IFS",
    "KEEPING",
    "MIXING",
    "MOVING",
    "NORMS",
    "PURE",
    "SHAPE_ONLY",
]

ELEMENT_BY_ELEMENT = frozenset(
    {
        *("Identity", "Cast", "StopGradient", "SelectV2"),
        *("Add", "AddV2", "AddN", "Sub", "Mul", "MulNoNan", "Div", "RealDiv", "DivNoNan", "SquaredDifference"),
        *("Maximum", "Minimum", "Pow", "Square", "Sqrt", "Rsqrt", "Reciprocal", "Inv", "Neg", "Abs", "Sign"),
        *("Exp", "Log", "Log1p", "Tanh", "IsFinite", "IsNan", "LogicalAnd", "LogicalOr", "LogicalNot"),
        *("Less", "LessEqual", "Greater", "GreaterEqual", "Equal", "NotEqual"),
    }
)
NORMS = frozenset({"L2Loss", "Mean", "Sum"})
"""What sums up the elements of its first input: over all axes, or some."""
SHAPE_ONLY = frozenset({"Shape", "Size", "Rank", "ZerosLike", "OnesLike"})
"""What tells nothing of a tensor but its shape."""
IFS = frozenset({"If", "StatelessIf"})
FOLLOWED = IFS | {"PartitionedCall", "StatefulPartitionedCall"}
"""What hands values to functions and takes what these return, so that values are followed there."""
KEEPING = ELEMENT_BY_ELEMENT | {"IdentityN", "Any", "GatherV2", "UnsortedSegmentSum"}
"""What may keep elements in their places."""
MOVING = frozenset(
    {
        *("GatherV2", "GatherNd", "UnsortedSegmentSum", "Reshape", "ExpandDims", "Squeeze", "Transpose"),
        *("StridedSlice", "Slice", "Tile", "BroadcastTo"),
    }
)
"""Operations that yield elements of their first input, or sums of them, in other places."""
MIXING = frozenset(
    {
        *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"),
        *("Transpose", "Reshape", "Svd", "Qr"),
    }
)
"""What a direction may begin with: its elements come from several of its inputs', or from other places."""
PURE = (
    MIXING
    | ELEMENT_BY_ELEMENT
    | NORMS
    | {
        *("IdentityN", "ExpandDims", "Squeeze", "BroadcastTo", "Tile", "StridedSlice", "Slice"),
        *("Max", "Min", "Prod"),
    }
)
"""What a direction is computed with."""
