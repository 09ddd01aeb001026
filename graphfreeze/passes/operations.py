"""What is known of operations by which a training step makes updates out of gradients and slots."""

from __future__ import annotations

from graphfreeze.savedmodel.call_sites import CONDITIONALS

__all__ = ["DIRECTION", "ELEMENTWISE", "FOLLOWED", "MIXING", "OF_SHAPE", "REARRANGING", "SUMS"]

ELEMENTWISE = frozenset(
    {
        *("Identity", "Cast", "StopGradient", "AddV2", "Add", "AddN", "Sub", "Mul", "MulNoNan", "RealDiv", "Div"),
        *(
            "DivNoNan",
            "Maximum",
            "Minimum",
            "Pow",
            "SquaredDifference",
            "Square",
            "Sqrt",
            "Rsqrt",
            "Neg",
            "Abs",
            "Sign",
        ),
        *("Reciprocal", "Inv", "Exp", "Log", "Log1p", "Tanh", "SelectV2", "Less", "LessEqual", "Greater"),
        *("GreaterEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "IsFinite", "IsNan"),
    }
)
"""An element of the result depends on the same element of the operands alone."""

SUMS = frozenset({"L2Loss", "Sum", "Mean"})
"""What a norm may be computed with: elements that are zero have no part in it."""

OF_SHAPE = frozenset({"Shape", "Size", "Rank", "ZerosLike", "OnesLike"})
"""The result depends on the operand's shape alone."""

REARRANGING = frozenset(
    {
        *("BroadcastTo", "ExpandDims", "GatherNd", "GatherV2", "Reshape", "Slice", "Squeeze", "StridedSlice"),
        *("Tile", "Transpose", "UnsortedSegmentSum"),
    }
)
"""The result consists of elements of the first input, or of sums of some: whose values these are stays."""

MIXING = frozenset(
    {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "MatMul", "Qr", "Reshape", "Svd", "Transpose"}
)
"""What begins a direction: an element of the result depends on other elements of the operands."""

DIRECTION = (
    ELEMENTWISE
    | MIXING
    | SUMS
    | {"BroadcastTo", "ExpandDims", "IdentityN", "Max", "Min", "Prod", "Slice", "Squeeze", "StridedSlice", "Tile"}
)
"""What a direction may be computed with."""

FOLLOWED = CONDITIONALS | {"PartitionedCall", "StatefulPartitionedCall"}
"""Calls through which values are followed into functions, and out of them."""
