"""An Einsum equation as a plan of sums, transposes, reshapes and one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["Einsum"]


@dataclass(frozen=True)
class Einsum:
    """An equation whose ellipses are spelt out.

    Attributes:
        operands: The labels of each operand's axes.
        result: The labels of the result's axes.
        dims: The size of each label; of those that broadcast, the larger one.
        broadcasts: The labels whose axis is of size 1 in one operand and longer in the other.
    """

    operands: tuple[str, ...]
    result: str
    dims: dict[str, Dim]
    broadcasts: frozenset[str]

    @classmethod
    def parse(cls, node: Node) -> Einsum:
        """The equation of an operation."""
        equation = str(node.attribute("equation")).replace(" ", "")
        left, arrow, result = equation.partition("->")
        operands = left.split(",")
        if not arrow or len(operands) != len(node.inputs):
            raise CannotLower(f"the equation {equation!r}; equations with '->' and a part for each operand are covered")
        # Capitals from the end of the alphabet stand for the axes of an ellipsis; models rarely use them.
        free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in equation]
        ranks = [t.rank - len(o.replace("...", "")) for o, t in zip(operands, node.inputs, strict=True) if "..." in o]
        letters = "".join(free[: max(ranks, default=0)])

        def spell(labels: str, rank: int) -> str:
            extra = rank - len(labels.replace("...", ""))
            return labels.replace("...", letters[len(letters) - extra :] if extra else "")

        operands = [spell(o, tensor.rank) for o, tensor in zip(operands, node.inputs, strict=True)]
        result = spell(result, node.outputs[0].rank)
        dims: dict[str, Dim] = {}
        broadcasts: set[str] = set()
        for labels, tensor in zip(operands, node.inputs, strict=True):
            for label, dim in zip(labels, tensor.dims, strict=True):
                if dims.get(label, dim) != dim:
                    broadcasts.add(label)
                dims[label] = max(dims.get(label, dim), dim)
        return cls(tuple(operands), result, dims, frozenset(broadcasts))

    def lower(self, node: Node) -> ir.Value:
        """Emit the result."""
        values = node.values()
        if any(len(set(labels)) < len(labels) for labels in (*self.operands, self.result)):
            return self._fall_back(node, values)
        if len(values) == 1:
            value, labels = self._sum_out(node, values[0], self.operands[0], self.result)
            return node.transpose(value, [labels.index(label) for label in self.result])
        a, b = self.operands
        left, a = self._sum_out(node, values[0], a, b + self.result)
        right, b = self._sum_out(node, values[1], b, a + self.result)
        shared = [label for label in a if label in b]
        if not self.broadcasts <= set(self.result):
            raise CannotLower("a sum over an axis that broadcasts; broadcasting axes that the result keeps are covered")
        return self._multiply(node, (left, a), (right, b), [label for label in shared if label in self.result])

    def _multiply(self, node: Node, a: tuple[ir.Value, str], b: tuple[ir.Value, str], batch: list[str]) -> ir.Value:
        """The product as one MatMul: batch axes, then rows, then the axes summed over, then columns."""
        (left, a_labels), (right, b_labels) = a, b
        summed = [label for label in a_labels if label in b_labels and label not in batch]
        rows = [label for label in a_labels if label not in b_labels]
        columns = [label for label in b_labels if label not in a_labels]
        left = self._arrange(node, left, a_labels, batch, rows, summed, node.inputs[0].dims, self.operands[0])
        right = self._arrange(node, right, b_labels, batch, summed, columns, node.inputs[1].dims, self.operands[1])
        order = [*batch, *rows, *columns]
        product = node.reshape(node.emit("MatMul", left, right), [self.dims[label] for label in order])
        return node.transpose(product, [order.index(label) for label in self.result])

    def _arrange(
        self,
        node: Node,
        value: ir.Value,
        labels: str,
        batch: list[str],
        first: list[str],
        second: list[str],
        dims: Sequence[Dim],
        operand: str,
    ) -> ir.Value:
        """The operand as a stack of matrices."""
        value = node.transpose(value, [labels.index(label) for label in (*batch, *first, *second)])
        if len(first) == len(second) == 1:
            return value
        own = dict(zip(operand, dims, strict=True))
        return node.reshape(value, [*(own[label] for label in batch), self._product(first), self._product(second)])

    def _product(self, labels: Sequence[str]) -> Dim:
        samples = len(next(iter(self.dims.values())))
        return tuple(int(np.prod([self.dims[label][s] for label in labels], dtype=np.int64)) for s in range(samples))

    def _sum_out(self, node: Node, value: ir.Value, labels: str, kept: str) -> tuple[ir.Value, str]:
        """Sum over the axes that appear nowhere else."""
        axes = [axis for axis, label in enumerate(labels) if label not in kept]
        if axes:
            value = node.emit("ReduceSum", value, node.int64(axes), keepdims=0)
        return value, "".join(label for label in labels if label in kept)

    def _fall_back(self, node: Node, values: list[ir.Value]) -> ir.Value:
        return node.emit("Einsum", *values, equation=f"{','.join(self.operands)}->{self.result}")
