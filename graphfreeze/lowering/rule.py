"""The table of lowering rules, and the three ways to write one.

`@rule` gives a function the ONNX values of its inputs, in the layouts it asks for, and takes its outputs in the layouts
it declares. `@elementwise` gives them in whatever one layout they share. `@special` gives the `Tensor`s themselves, for
operations on shapes, lists and control flow. The docstring of a rule is its line in docs/operators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.broadcast import broadcast, broadcast_dims
from graphfreeze.lowering.builder import Operand
from graphfreeze.lowering.tensor import Dim, Layout, Tensor

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering
    from graphfreeze.training.graph import Operation

__all__ = ["RULES", "CannotLower", "Known", "Node", "Rule", "elementwise", "rule", "special"]


class CannotLower(Exception):  # noqa: N818 - not an error of the user's: the engine turns it into one complete report
    """A rule meets a case that it does not cover. The message says which, and what would be covered."""


@dataclass(frozen=True, slots=True)
class Known:
    """In `rule(inputs=...)`: this input must be known when the graph is lowered; the rule gets a numpy array."""


@dataclass(frozen=True, slots=True)
class Unused:
    """In `rule(inputs=...)`: the rule does not get this input (a shape, say, that the output's shape repeats)."""


@dataclass(frozen=True, slots=True)
class Images:
    """In `rule(inputs=..., outputs=...)`: channels first, whichever order the operation's `data_format` has."""


KNOWN = Known()
UNUSED = Unused()
IMAGES = Images()
PLAIN, CHANNELS_FIRST, FILTER = Layout.PLAIN, Layout.CHANNELS_FIRST, Layout.FILTER
InputKind = Layout | Images | Known | Unused
OutputKind = Layout | Images


class Node:
    """One operation as its rule sees it: typed attributes, inputs and outputs with shapes, and `emit`."""

    def __init__(self, lowering: Lowering, operation: Operation, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.lowering = lowering
        self.operation = operation
        self.inputs = inputs
        self.outputs = outputs

    @property
    def type(self) -> str:
        """TensorFlow's name of the operation."""
        return self.operation.type

    @property
    def image_layout(self) -> Layout:
        """The layout in which a tensor of the operation's `data_format` has its channels first."""
        return Layout.PLAIN if self.attribute("data_format", "NHWC").startswith("NC") else Layout.CHANNELS_FIRST

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the first output."""
        return self.outputs[0].dtype

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value: int, float, bool, str, tf.DType, a list of those, or a shape tuple."""
        from graphfreeze.lowering.attributes import to_python

        value = self.operation.attributes.get(name)
        return default if value is None else to_python(value)

    def emit(self, op_type: str, *inputs: Operand, **attributes: Any) -> ir.Value:
        """Emit an ONNX node with one output. Inputs may be numpy arrays; a rank-0 numpy scalar is for scalars."""
        return self.lowering.builder.emit(op_type, *inputs, **attributes)

    def emit_many(self, op_type: str, *inputs: Operand, outputs: int, **attributes: Any) -> list[ir.Value]:
        """Emit an ONNX node with several outputs."""
        return self.lowering.builder.emit_many(op_type, *inputs, outputs=outputs, **attributes)

    def scalar(self, number: float, rank: int | None = None, dtype: Any = None) -> npt.NDArray[Any]:
        """A number in the output's dtype with `rank` axes of size 1 (by default the first output's rank).

        onnxruntime's CPU kernels broadcast an operand of lower rank up to ninety times slower than one padded to the
        full rank, hence this instead of a rank-0 constant.
        """
        rank = self.outputs[0].rank if rank is None else rank
        return np.full((1,) * rank, number, self.dtype if dtype is None else dtype)

    def int64(self, values: Sequence[int] | int) -> ir.Value:
        """An int64 constant."""
        return self.lowering.builder.int64(values)

    def cast(self, value: ir.Value, dtype: Any) -> ir.Value:
        """Cast to a numpy dtype."""
        return self.lowering.builder.cast(value, np.dtype(dtype))

    def transpose(self, value: ir.Value, permutation: Sequence[int]) -> ir.Value:
        """Transpose, merged with one that made the value."""
        return self.lowering.builder.transpose(value, permutation)

    def value(self, tensor: Tensor, layout: Layout = Layout.PLAIN) -> ir.Value:
        """The ONNX value that holds the tensor, in that layout."""
        return self.lowering.value(tensor, layout)

    def values(self, layout: Layout = Layout.PLAIN) -> list[ir.Value]:
        """The ONNX values of all inputs."""
        return [self.value(tensor, layout) for tensor in self.inputs]

    def reshape(self, value: ir.Value, dims: Sequence[Dim | int]) -> ir.Value:
        """Reshape to dimensions of which any may follow the batch."""
        return self.lowering.reshape(value, dims)

    def shape(self, tensor: Tensor) -> ir.Value:
        """The tensor's shape as an int64 vector: a constant where it is static."""
        return self.lowering.shape(tensor.dims)

    def vector(self, dims: Sequence[Dim | int]) -> ir.Value:
        """An int64 vector of numbers of which any may follow the batch."""
        return self.lowering.shape(dims)

    def axes(self, axes: npt.ArrayLike, rank: int) -> list[int]:
        """Sorted non-negative axes."""
        return sorted({int(axis) % rank for axis in np.atleast_1d(np.asarray(axes))}) if rank else []


Result = ir.Value | Tensor | Sequence[ir.Value | Tensor]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        operation: TensorFlow's name of the operation.
        family: The file that holds it.
        apply: Takes the node with materialised inputs ready to ask for, returns the output tensors.
        description: The first line of the rule's docstring.
        is_special: Whether it is declared with `@special`.
        takes_complex: Whether it takes or gives complex numbers; other rules are applied to both parts, if at all.
    """

    operation: str
    family: str
    apply: Callable[[Node], list[Tensor]]
    description: str
    is_special: bool = False
    takes_complex: bool = False


RULES: dict[str, Rule] = {}

F = TypeVar("F", bound=Callable[..., Any])


def rule(
    *operations: str,
    inputs: Sequence[InputKind] | None = None,
    outputs: Sequence[OutputKind] | None = None,
    takes_complex: bool = False,
) -> Callable[[F], F]:
    """Declare the rule of one or more operations.

    The function is called as `f(node, *values)`: an `ir.Value` for each input with a layout, a numpy array for each
    `KNOWN` one, nothing for an `UNUSED` one. Inputs beyond the declaration repeat its last entry; none declared means
    all PLAIN. It returns one result per output: an `ir.Value` in the layout that `outputs` declares (PLAIN beyond it),
    or a `Tensor` to pass on as it is. A single result may stand alone; outputs beyond the results stay without a value.
    """

    def declare(function: F) -> F:
        def apply(node: Node) -> list[Tensor]:
            arguments: list[Any] = []
            for index, tensor in enumerate(node.inputs):
                kind = PLAIN if not inputs else inputs[min(index, len(inputs) - 1)]
                if isinstance(kind, Images):
                    kind = node.image_layout
                if isinstance(kind, Layout):
                    arguments.append(node.value(tensor, kind))
                elif isinstance(kind, Known):
                    if tensor.constant is None:
                        raise CannotLower(f"input {index} must be known when the graph is lowered")
                    arguments.append(tensor.constant)
            return _collect(node, function(node, *arguments), outputs or ())

        _register(operations, function, apply, takes_complex=takes_complex)
        return function

    return declare


def elementwise(*operations: str) -> Callable[[F], F]:
    """Declare an elementwise rule: `f(node, *values)`, all values in one layout, broadcasting like TensorFlow's.

    Inputs that are broadcasts come as what they are a broadcast of; values are of the output's shape or of size 1.
    """

    def declare(function: F) -> F:
        def apply(node: Node) -> list[Tensor]:
            rank = node.outputs[0].rank
            inputs = [tensor.narrow or tensor for tensor in node.inputs]
            layout = node.lowering.common_layout(inputs, rank)
            values = [node.lowering.broadcastable(tensor, layout, rank) for tensor in inputs]
            shapes = broadcast_dims(inputs)
            if shapes == node.outputs[0].shapes:
                return _collect(node, function(node, *values), [layout] * len(node.outputs))
            result = function(node, *values)
            narrow = [Tensor(output.dtype, shapes) for output in node.outputs]
            for tensor, value in zip(narrow, [result] if isinstance(result, ir.Value) else result, strict=True):
                tensor.values[layout] = value
            return [broadcast(node.lowering, *pair) for pair in zip(narrow, node.outputs, strict=True)]

        _register(operations, function, apply)
        return function

    return declare


def special(*operations: str) -> Callable[[F], F]:
    """Declare a rule on tensors: `f(node) -> list[Tensor]`; `node.outputs` is empty, no shape inference is made."""

    def declare(function: F) -> F:
        _register(operations, function, function, is_special=True)
        return function

    return declare


def _collect(node: Node, results: Result, layouts: Sequence[OutputKind]) -> list[Tensor]:
    items = [results] if isinstance(results, ir.Value | Tensor) else list(results)
    outputs = list(node.outputs)
    for index, item in enumerate(items):
        if isinstance(item, Tensor):
            outputs[index] = item
        else:
            kind = layouts[index] if index < len(layouts) else PLAIN
            outputs[index].values[node.image_layout if isinstance(kind, Images) else kind] = item
    return outputs


def _register(
    operations: Sequence[str],
    function: Callable[..., Any],
    apply: Callable[[Node], Any],
    *,
    is_special: bool = False,
    takes_complex: bool = False,
) -> None:
    description = (function.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    family = function.__module__.rsplit(".", 1)[-1]
    for operation in operations:
        if operation in RULES:
            raise ValueError(f"two rules for {operation}: in {RULES[operation].family} and in {family}")
        RULES[operation] = Rule(operation, family, apply, " ".join(description.split()), is_special, takes_complex)
