"""Interprets a functional graph at several batch sizes at once and emits ONNX for what is left to run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.all_iterations import lower_for_all_iterations
from graphfreeze.lowering.bounds import bounded
from graphfreeze.lowering.builder import Builder
from graphfreeze.lowering.complex_numbers import lower_by_parts
from graphfreeze.lowering.decided import is_decided
from graphfreeze.lowering.folding import Folding
from graphfreeze.lowering.induction import fold_induction
from graphfreeze.lowering.list_arithmetic import lower_list_arithmetic
from graphfreeze.lowering.loop_body import ScanBody
from graphfreeze.lowering.picked import lower_picked
from graphfreeze.lowering.polynomials import emit_polynomial, emit_shape
from graphfreeze.lowering.repeated import lower_repeated, note_repeated
from graphfreeze.lowering.rule import RULES, CannotLower, Node
from graphfreeze.lowering.shape_numbers import Number
from graphfreeze.lowering.shapes import ShapeInference, numpy_dtype
from graphfreeze.lowering.sizes import BATCH, LENGTH, Sizes
from graphfreeze.lowering.strides import note_strided_sizes
from graphfreeze.lowering.tensor import Dim, Layout, Tensor
from graphfreeze.lowering.windows import lower_window
from graphfreeze.training.graph import Graph, Operation

__all__ = ["Lowering"]


class Lowering:
    """The state of lowering one graph.

    Attributes:
        sizes: The sizes that only run time knows.
        samples: The sample batch sizes; one where nothing follows the batch.
        builder: What collects the nodes.
        axes: For each size that an array gives at run time, the array and the axis.
        numbers: For each size that a computed number gives, the number as an int64 vector of length 1.
        number_sizes: The names of the sizes by the numbers that give them.
        tensors: What is known of each tensor of the graph, by the identity of its edge.
        reasons: Why an operation that has a rule could not be lowered.
        loops: The loops with a known number of iterations whose bodies are being lowered, outermost first.
        native_noise: Whether random floats come from the runtime's own generator.
        native_draws: The values that do, by what is drawn.
    """

    def __init__(
        self,
        sizes: Sizes,
        opset: int,
        *,
        shape_inference: ShapeInference | None = None,
        folding: Folding | None = None,
        native_noise: bool = False,
    ) -> None:
        self.sizes = sizes
        self.samples = sizes.samples[BATCH]
        self.builder = Builder(opset)
        self.axes: dict[str, tuple[ir.Value, int]] = {}
        self.numbers: dict[str, ir.Value] = {}
        self.number_sizes: dict[Number, str] = {}
        self.tensors: dict[int, Tensor] = {}
        self.reasons: dict[Operation, str] = {}
        self.loops: list[ScanBody] = []
        self.native_noise = native_noise
        self.native_draws: dict[Any, ir.Value] = {}
        self._dims: dict[ir.Value, list[Dim]] = {}
        self.shape_inference = shape_inference or ShapeInference()
        self.folding = folding or Folding()

    # -- interpretation

    def run(self, graph: Graph, arguments: Sequence[Tensor]) -> list[Tensor]:
        """The graph's output tensors for these input tensors."""
        tensors = self.tensors
        tensors.update(zip(map(id, graph.inputs), arguments, strict=True))
        for operation in graph.operations:
            inputs = [tensors[id(edge)] for edge in operation.inputs]
            made = self.lower(operation, inputs)
            note_repeated(operation, inputs, made)
            tensors.update(zip(map(id, operation.outputs), made, strict=True))
        return [tensors[id(edge)] for edge in graph.outputs]

    def lower(self, operation: Operation, inputs: list[Tensor]) -> list[Tensor]:
        """The outputs of one operation: known, emitted, or missing with everything that is in the way."""
        if operation.type == "Const":
            return [self.constant(tensor_util.MakeNdarray(operation.attributes["value"].tensor))]
        found = RULES.get(operation.type)
        missing = frozenset().union(*(tensor.missing for tensor in inputs))
        outputs: list[Tensor] = []
        try:
            if not missing:
                note_strided_sizes(self.sizes, operation, inputs)
            made = fold_induction(operation, inputs) or bounded(operation, inputs)
            made = made or lower_list_arithmetic(self, operation, inputs) or lower_repeated(self, operation, inputs)
            made = made or lower_for_all_iterations(self, operation, inputs)
            if made:
                return made
            if found is not None and found.is_special:
                return self._apply(operation, inputs, [])
            try:
                outputs = self.shape_inference.infer(operation, inputs)
            except CannotLower:
                evaluated = self.folding.evaluate(operation, inputs) or lower_window(self, operation, inputs)
                evaluated = evaluated or lower_picked(self, operation, inputs)
                if evaluated is None:
                    raise
                return evaluated
            if not inputs:
                outputs = [Tensor(o.dtype, o.shapes * len(self.samples)) for o in outputs]
            if self.folding.can_fold(operation, inputs, outputs) and self.folding.fold(operation, inputs, outputs):
                if is_decided(operation, inputs, outputs[0], self.sizes):
                    return outputs
                outputs = self.shape_inference.infer(operation, inputs)
            if found is None:
                return self.missing(operation, missing | {operation}, outputs)
            if missing:
                return self.missing(operation, missing, outputs)
            return self._apply(operation, inputs, outputs)
        except CannotLower as reason:
            if missing:
                return self.missing(operation, missing, outputs)
            self.reasons[operation] = str(reason)
            return self.missing(operation, frozenset({operation}), outputs)
        except ValueError:
            # Where the shape of a missing tensor is made up, others need not fit it.
            if missing:
                return self.missing(operation, missing, outputs)
            raise

    def _apply(self, operation: Operation, inputs: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
        found = RULES[operation.type]
        if not (found.is_special or found.takes_complex) and any(t.dtype.kind == "c" for t in (*inputs, *outputs)):
            return lower_by_parts(self, operation, inputs, outputs)
        outer, self.builder.scope = self.builder.scope, operation.name
        try:
            made: list[Tensor] = found.apply(Node(self, operation, inputs, outputs))
        finally:
            self.builder.scope = outer
        for tensor in made:
            for layout, value in tensor.values.items():
                self._dims[value] = [tensor.dim(axis) for axis in layout.permutation(tensor.rank)]
        return made

    def missing(
        self, operation: Operation, missing: frozenset[Operation], outputs: list[Tensor] | None = None
    ) -> list[Tensor]:
        """The operation's outputs, where those operations are in the way of lowering it."""
        if not outputs:
            samples = len(self.samples)
            outputs = [
                Tensor(numpy_dtype(edge.dtype), (tuple(size or 1 for size in edge.shape or ()),) * samples)
                for edge in operation.outputs
            ]
        for output in outputs:
            output.missing = missing
        return outputs

    # -- making tensors

    def constant(self, array: npt.ArrayLike) -> Tensor:
        """A tensor with a value that is known and the same at every batch size."""
        array = np.asarray(array)
        return Tensor(array.dtype, (array.shape,) * len(self.samples), (array,) * len(self.samples))

    def known(self, arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
        """A tensor with a known value for each sample batch size."""
        return Tensor(arrays[0].dtype, tuple(array.shape for array in arrays), tuple(arrays))

    def tensor(self, value: ir.Value, dtype: Any, dims: Sequence[Dim | int], layout: Layout = Layout.PLAIN) -> Tensor:
        """A tensor that an ONNX value holds; `dims` are in TensorFlow's order."""
        columns = [self.dim(dim) for dim in dims]
        shapes = tuple(tuple(column[sample] for column in columns) for sample in range(len(self.samples)))
        return Tensor(np.dtype(dtype), shapes, values={layout: value})

    def number(self, number: Dim | int, dtype: Any) -> Tensor:
        """A whole number that is known at every sample."""
        return self.known([np.array(one, dtype) for one in self.dim(number)])

    def dim(self, dim: Dim | int) -> Dim:
        """A number at every sample."""
        return (int(dim),) * len(self.samples) if isinstance(dim, int | np.integer) else dim

    # -- ONNX values of tensors

    def value(self, tensor: Tensor, layout: Layout = Layout.PLAIN) -> ir.Value:
        """The ONNX value that holds the tensor in that layout, made on first use.

        Raises:
            CannotLower: The tensor has no value: it is a list, or follows the batch in a way that has no formula.
        """
        if layout not in tensor.values:
            tensor.values[layout] = self._make_value(tensor, layout)
        return tensor.values[layout]

    def _make_value(self, tensor: Tensor, layout: Layout) -> ir.Value:
        constant = tensor.constant
        if constant is not None:
            return self.builder.constant(constant.transpose(layout.permutation(tensor.rank)))
        if layout is not Layout.PLAIN or tensor.values:
            source = next(iter(tensor.values), Layout.PLAIN)
            return self._relayout(self.value(tensor, source), tensor.dims, source, layout)
        if tensor.induction is not None:
            scaled = self.builder.emit("Mul", tensor.induction.iteration, np.int64(tensor.induction.scale))
            offset = self.value(self.number(tensor.induction.offset, np.int64))
            return self.builder.cast(self.builder.emit("Add", scaled, offset), tensor.dtype)
        if tensor.known is not None:
            computed = emit_polynomial(self, tensor.known)
            if computed is not None:
                value = computed if tensor.rank else self.builder.emit("Reshape", computed, self.builder.int64([]))
                return value if tensor.dtype == np.int64 else self.builder.cast(value, tensor.dtype)
            remade = self.remade(tensor)
            if remade is not None:
                return self.value(remade)
        if tensor.known is not None and tensor.dtype.kind == "i":
            raise CannotLower(
                "a size is no polynomial of the batch, the length of sequences and what strides leave of that (half "
                "the batch, say); export the model with fixed sizes"
            )
        what = "a list" if tensor.tensor_list is not None else f"{tensor.dtype} of shape {tensor.shape}"
        raise CannotLower(f"an input ({what}) has no value at run time")

    def remade(self, tensor: Tensor) -> Tensor | None:
        """A known tensor as its operation makes it at run time, or None where there is no rule for that."""
        if tensor.origin is None or tensor.origin[0].type not in RULES:
            return None
        operation, inputs, index = tensor.origin
        return self._apply(operation, inputs, self.shape_inference.infer(operation, inputs))[index]

    def size(self, name: str) -> ir.Value:
        """A size at run time, int64 of shape [1]."""
        if name in self.numbers:
            return self.numbers[name]
        for quotient in self.sizes.quotients:
            if quotient.name == name:
                return quotient.emit(self.builder, self.size(LENGTH))
        if name not in self.axes:
            raise CannotLower(f"nothing gives the size of the {name}")
        value, axis = self.axes[name]
        outer, self.builder.scope = self.builder.scope, f"{name}_size"
        size = self.builder.emit("Shape", value, start=axis, end=axis + 1)
        self.builder.scope = outer
        return size

    def shape(self, dims: Sequence[Dim | int]) -> ir.Value:
        """Dimensions as an int64 vector: a constant where they are static."""
        columns = [self.dim(dim) for dim in dims]
        if not all(self.sizes.follows(column) for column in columns):
            found = emit_shape(self, columns)
            if found is not None:
                return found
        vectors = [np.array([c[sample] for c in columns], np.int64) for sample in range(len(self.samples))]
        return self.value(self.known(vectors))

    def reshape(self, value: ir.Value, dims: Sequence[Dim | int]) -> ir.Value:
        """Reshape, if need be; one dimension that follows the batch is left to ONNX (-1), several are computed."""
        columns = [self.dim(dim) for dim in dims]
        following = [axis for axis, dim in enumerate(columns) if len(set(dim)) > 1]
        producer = value.producer()
        if producer is not None and producer.op_type == "Reshape" and producer.inputs[0] is not None:
            value = producer.inputs[0]
        if self._dims.get(value) == columns:
            return value
        if len(following) > 1:
            return self.builder.emit("Reshape", value, self.shape(columns))
        sizes = [-1 if axis in following else dim[0] for axis, dim in enumerate(columns)]
        return self.builder.emit("Reshape", value, self.builder.int64(sizes))

    # -- layouts

    def _relayout(self, value: ir.Value, dims: Sequence[Dim], source: Layout, target: Layout) -> ir.Value:
        """Change the layout: a Reshape where only axes of size 1 move, otherwise a Transpose."""
        rank = len(dims)
        origin, goal = source.permutation(rank), target.permutation(rank)
        if origin == goal:
            return value
        long = [axis for axis in range(rank) if set(dims[axis]) != {1}]
        if [axis for axis in origin if axis in long] == [axis for axis in goal if axis in long]:
            return self.reshape(value, [dims[axis] for axis in goal])
        return self.builder.transpose(value, [origin.index(axis) for axis in goal])

    def common_layout(self, tensors: Sequence[Tensor], rank: int) -> Layout:
        """The layout that costs an elementwise operation on these tensors the fewest transposes."""
        for tensor in tensors:
            if tensor.rank != rank or rank < 3 or Layout.PLAIN in tensor.values or not tensor.values:
                continue
            layout = next(iter(tensor.values))
            others = [t for t in tensors if t is not tensor]
            if all(t.rank in (0, 1, rank) or t.constant is not None for t in others):
                return layout
        return Layout.PLAIN

    def broadcastable(self, tensor: Tensor, layout: Layout, rank: int) -> ir.Value:
        """The tensor in a layout for `rank` axes, padded with axes of size 1 where broadcasting needs it."""
        if tensor.rank == rank:
            return self.value(tensor, layout)
        if layout is Layout.PLAIN and (tensor.rank or rank < 2):
            return self.value(tensor)
        dims = [self.dim(1)] * (rank - tensor.rank) + tensor.dims
        constant = tensor.constant
        if constant is not None:
            padded = constant.reshape((1,) * (rank - tensor.rank) + constant.shape)
            return self.builder.constant(padded.transpose(layout.permutation(rank)))
        return self._relayout(self.reshape(self.value(tensor), dims), dims, Layout.PLAIN, layout)
