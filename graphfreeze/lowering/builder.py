"""Emits ONNX nodes: constants and equal nodes are shared, names follow the TensorFlow operation, loops nest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Builder", "Operand"]

Operand = ir.Value | npt.NDArray[Any] | np.generic | None
"""What `Builder.emit` takes as an input: a value, a numpy constant, or None for an optional input left out."""


_RANDOM = frozenset({"RandomNormalLike", "RandomUniformLike"})
"""Operators that give something else each time: equal ones are not one, and they stay where they are."""


class Builder:
    """Collects the nodes of one ONNX graph and of the loop bodies inside it.

    Attributes:
        opset: The version of the default ONNX domain that the nodes are written for.
        scope: The TensorFlow operation that is being lowered; it names the nodes.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.scope = "graph"
        self.constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._nodes: list[list[ir.Node]] = [[]]
        self._equal: list[dict[Any, list[ir.Value]]] = [{}]
        self._floors = [0]
        self._depths: dict[ir.Value, int] = {}
        self._names: dict[str, int] = {}

    # -- nodes

    def emit(self, op_type: str, *inputs: Operand, **attributes: Any) -> ir.Value:
        """Add one node with a single output and return that output; an equal node in scope is used again."""
        return self.emit_many(op_type, *inputs, outputs=1, **attributes)[0]

    def emit_many(self, op_type: str, *inputs: Operand, outputs: int, **attributes: Any) -> list[ir.Value]:
        """Add one node with several outputs.

        The node goes into the outermost graph that has all its inputs: what does not change in a loop is computed
        before it, and a value made while a body is open can be used after it closes. A node with a body stays where it
        is, and nothing leaves a graph that was opened with `hoist=False`.
        """
        values = [self.as_value(operand) for operand in inputs]
        stays = op_type in _RANDOM or any(isinstance(a, ir.Graph) for a in attributes.values())
        depth = self.depth if stays else max([self._floors[-1], *(self.depth_of(v) for v in values if v is not None)])
        key = (op_type, tuple(id(v) for v in values), repr(sorted(attributes.items())), outputs)
        if not stays and key in self._equal[depth]:
            return self._equal[depth][key]
        name = self.unique(f"{self.scope}/{op_type}")
        typed = {key: _with_type(key, value) for key, value in attributes.items()}
        node = ir.node(op_type, values, attributes=typed or None, num_outputs=outputs, name=name)
        made = list(node.outputs)
        for index, output in enumerate(made):
            output.name = name if index == 0 else f"{name}:{index}"
            self._depths[output] = depth
        self._nodes[depth].append(node)
        if not stays:
            self._equal[depth][key] = made
        return made

    def unique(self, name: str) -> str:
        """A name that no other node has."""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self.unique(f"{name}_{count}")

    # -- constants

    def as_value(self, operand: Operand) -> ir.Value | None:
        """The operand as an ONNX value: numpy arrays become initializers."""
        return self.constant(operand) if isinstance(operand, np.ndarray | np.generic) else operand

    def constant(self, array: npt.ArrayLike) -> ir.Value:
        """The initializer with these bits. Equal constants are one initializer."""
        array = np.asarray(array)
        key = (array.dtype.str + array.dtype.name, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"constant_{len(self.constants)}"
            value = ir.Value(
                name=name,
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array, name=name),
            )
            self.constants[key] = value
        return self.constants[key]

    def int64(self, values: Sequence[int] | int) -> ir.Value:
        """An int64 initializer: of rank 1 for a sequence, of rank 0 for a number."""
        return self.constant(np.asarray(values, np.int64))

    # -- the two things every layout change comes down to

    def transpose(self, value: ir.Value, permutation: Sequence[int]) -> ir.Value:
        """Transpose, merged with a Transpose that made the value, and left out where it changes nothing."""
        permutation = list(permutation)
        producer = value.producer()
        if producer is not None and producer.op_type == "Transpose":
            first = list(producer.attributes["perm"].as_ints())
            source = producer.inputs[0]
            assert source is not None
            return self.transpose(source, [first[axis] for axis in permutation])
        if permutation == list(range(len(permutation))):
            return value
        return self.emit("Transpose", value, perm=permutation)

    def cast(self, value: ir.Value, dtype: np.dtype[Any]) -> ir.Value:
        """Cast to a numpy dtype."""
        return self.emit("Cast", value, to=int(ir.DataType.from_numpy(np.dtype(dtype))))

    # -- bodies of loops and branches

    def open(self, inputs: Sequence[ir.Value] = (), *, hoist: bool = True) -> None:
        """Start the nodes of a nested graph with these inputs. What the outer graphs made stays usable inside.

        Args:
            inputs: The nested graph's own inputs.
            hoist: Whether nodes that depend on nothing inside go to the outer graph: right for a loop, wrong for a
                branch that may not be taken.
        """
        self._nodes.append([])
        self._equal.append({})
        self._floors.append(self._floors[-1] if hoist else self.depth)
        for value in inputs:
            self.add_input(value, self.depth)

    def add_input(self, value: ir.Value, depth: int) -> None:
        """Note that the value is an input of the nested graph at that depth."""
        self._depths[value] = depth

    def close(self) -> list[ir.Node]:
        """End the nested graph and return its nodes, unpruned."""
        self._equal.pop()
        self._floors.pop()
        return self._nodes.pop()

    def depth_of(self, value: ir.Value) -> int:
        """How many nested graphs the value's own graph is inside of."""
        return self._depths.get(value, 0)

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes of the graph that is open now."""
        return self._nodes[-1]

    @property
    def depth(self) -> int:
        """How many nested graphs are open."""
        return len(self._nodes) - 1


def _with_type(name: str, value: Any) -> Any:
    """The attribute as it is, but for whole numbers: that a list holds these takes onnx_ir long to find out."""
    if isinstance(value, list | tuple) and value and all(isinstance(number, int) for number in value):
        return ir.AttrInt64s(name, value)
    return value
