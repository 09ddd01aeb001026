"""Lowers a named functional graph to an ONNX model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

import graphfreeze.lowering.rules  # noqa: F401 - fills the table of rules
from graphfreeze.errors import UnsupportedError, UnsupportedOperationError
from graphfreeze.lowering.bfloat16 import round_to_bfloat16
from graphfreeze.lowering.dilations import recover_dilations
from graphfreeze.lowering.engine import Lowering
from graphfreeze.lowering.folding import Folding
from graphfreeze.lowering.picked import count_picked
from graphfreeze.lowering.pooled_activations import cut_before_pooling
from graphfreeze.lowering.pruning import prune
from graphfreeze.lowering.quotients import NewQuotient
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.shapes import ShapeInference, numpy_dtype
from graphfreeze.lowering.sizes import BATCH, LENGTH, PICKED, Sizes
from graphfreeze.lowering.tensor import Dim, Layout, Tensor
from graphfreeze.training.gradient_names import rows_of
from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation

__all__ = ["Lowerer", "filter_permutation"]

IR_VERSION = 10


def filter_permutation(rank: int) -> list[int]:
    """How a convolution kernel is stored: `stored = numpy.transpose(tensorflow_value, permutation)`."""
    return Layout.FILTER.permutation(rank)


@dataclass
class Lowerer:
    """Lowers the graphs of one training step; what they have in common is inferred and folded once.

    Attributes:
        opset: The version of the default ONNX domain.
        filters: Names of the states that are kept in the FILTER layout.
        constants: The value of each input that is a constant of the model (the wholly frozen variables).
    """

    opset: int = 18
    filters: Collection[str] = ()
    constants: Mapping[str, npt.NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        self._shapes = ShapeInference()
        self._folding = Folding()

    def lower(self, named: NamedGraph, name: str, *, native_noise: bool = False) -> ir.Model:
        """The ONNX model with the named graph's inputs and outputs; unused inputs that are states are left out.

        Args:
            named: The graph.
            name: What the ONNX graph is called.
            native_noise: Whether random floats come from the runtime's own generator, other ones in each run.

        Raises:
            UnsupportedOperationError: Operations have no rule, or a rule meets a case it does not cover: all of them.
            UnsupportedError: More is unknown of an input's shape than the batch and the length of its sequences.
        """
        graph = recover_dilations(round_to_bfloat16(cut_before_pooling(named.graph)))
        by_rows = _by_rows(named.inputs)
        sizes = _sizes(graph.inputs, named.inputs).with_picked(len(by_rows) + count_picked(graph))
        try:
            return self._lower_at(sizes, named, graph, name, native_noise)
        except UnsupportedOperationError:
            # A table of positions may have fewer rows than the samples are long.
            for shorter in sizes.shorter:
                with suppress(UnsupportedOperationError, CannotLower):
                    return self._lower_at(shorter, named, graph, name, native_noise)
            raise

    def _lower_at(self, first: Sizes, named: NamedGraph, graph: Graph, name: str, native_noise: bool) -> ir.Model:
        """Lower at samples of these sizes, and of the quotients that the graph makes of them."""
        sizes = first
        while True:
            try:
                return self._lower(named, graph, sizes, name, native_noise)
            except NewQuotient as found:
                others = [quotient for quotient in sizes.quotients if quotient != found.quotient]
                sizes = first.with_quotients([*others, found.quotient])

    def _lower(self, named: NamedGraph, graph: Graph, sizes: Sizes, name: str, native_noise: bool) -> ir.Model:
        lowering = Lowering(
            sizes,
            self.opset,
            shape_inference=self._shapes,
            folding=self._folding,
            native_noise=native_noise,
        )
        values: list[ir.Value] = []
        counts = {name: f"{PICKED}{index}" for index, name in enumerate(_by_rows(named.inputs))}
        arguments = [
            self._argument(lowering, edge, label, counts.get(rows_of(label) or "", BATCH), values)
            for edge, label in zip(graph.inputs, named.inputs, strict=True)
        ]
        results = lowering.run(graph, arguments)
        outputs = self._outputs(lowering, results, named.outputs)
        nodes = prune(lowering.builder.nodes, outputs)
        used = _used(nodes)
        inputs = [value for value in values if id(value) in used or not _is_state(value)]
        initializers = [value for value in lowering.builder.constants.values() if id(value) in used]
        _rename_constants(initializers)
        made = ir.Graph(
            inputs, outputs, nodes=nodes, initializers=initializers, opset_imports={"": self.opset}, name=name
        )
        return ir.Model(made, ir_version=IR_VERSION, producer_name="graphfreeze")

    def _argument(self, lowering: Lowering, edge: Edge, label: str, first: str, values: list[ir.Value]) -> Tensor:
        """An input; `first` is what the size of its first axis is called where it is unknown."""
        if self.constants is not None and label in self.constants:
            return lowering.constant(self.constants[label])
        if edge.shape is None or sum(size is None for size in edge.shape[1:]) > 1:
            raise UnsupportedError(
                f"the shape of the input {label!r} is {edge.shape}: the first axis (the batch) and one other (the "
                "length of sequences, the same for all inputs) may be unknown; export the model with fixed sizes for "
                "the other axes"
            )
        names = [None if size is not None else LENGTH if axis else first for axis, size in enumerate(edge.shape)]
        dims = [
            size or 0 if name is None else lowering.sizes.samples[name]
            for name, size in zip(names, edge.shape, strict=True)
        ]
        layout = Layout.FILTER if label.removeprefix("gradient/") in self.filters else Layout.PLAIN
        order = layout.permutation(len(dims))
        dtype = numpy_dtype(edge.dtype)
        sizes: list[Any] = [names[axis] or edge.shape[axis] for axis in order]
        value = ir.Value(name=label, type=ir.TensorType(ir.DataType.from_numpy(dtype)), shape=ir.Shape(sizes))
        value.metadata_props["role"] = "batch" if None in edge.shape else "state"
        values.append(value)
        for axis, name in enumerate(names):
            if name is not None:
                lowering.axes.setdefault(name, (value, axis))
        return lowering.tensor(value, dtype, dims, layout)

    def _outputs(self, lowering: Lowering, results: Sequence[Tensor], names: Sequence[str]) -> list[ir.Value]:
        missing: frozenset[Operation] = frozenset().union(*(tensor.missing for tensor in results))
        if missing:
            raise _unsupported(missing, lowering.reasons)
        outputs: list[ir.Value] = []
        for tensor, label in zip(results, names, strict=True):
            plain = label.removeprefix("new/").removeprefix("gradient/")
            layout = Layout.FILTER if plain in self.filters else Layout.PLAIN
            lowering.builder.scope = label
            value = lowering.value(tensor, layout)
            if value.producer() is None or any(value is other for other in outputs):
                node = ir.node("Identity", [value], name=lowering.builder.unique(f"{label}/Identity"))
                lowering.builder.nodes.append(node)
                value = node.outputs[0]
            order = layout.permutation(tensor.rank)
            value.name = label
            value.type = ir.TensorType(ir.DataType.from_numpy(tensor.dtype))
            value.shape = ir.Shape([_named_size(lowering, tensor.dim(axis)) for axis in order])
            outputs.append(value)
        return outputs


def _named_size(lowering: Lowering, dim: Dim) -> int | str | None:
    if len(set(dim)) == 1:
        return dim[0]
    return lowering.sizes.name(dim)


def _by_rows(labels: Sequence[str]) -> list[str]:
    """The parameters whose gradients are given by rows. How many rows there are is a size of its own."""
    return sorted({name for name in map(rows_of, labels) if name is not None})


def _sizes(inputs: Sequence[Edge], labels: Sequence[str]) -> Sizes:
    shapes = [edge.shape or (None,) for edge, label in zip(inputs, labels, strict=True) if rows_of(label) is None]
    if any(None in shape[1:] for shape in shapes):
        return Sizes.of_sequences()
    return Sizes.of_batch() if any(None in shape for shape in shapes) else Sizes.fixed()


def _is_state(value: ir.Value) -> bool:
    return value.metadata_props.pop("role", "state") == "state"


def _used(nodes: Sequence[ir.Node]) -> set[int]:
    used: set[int] = set()
    for node in nodes:
        used.update(id(value) for value in node.inputs if value is not None)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                body = attribute.as_graph()
                used |= _used(list(body)) | {id(value) for value in body.outputs}
    return used


def _rename_constants(initializers: Sequence[ir.Value]) -> None:
    """Number the constants without gaps, so that equal graphs have equal bytes."""
    for index, value in enumerate(initializers):
        value.name = f"constant_{index}"
        if value.const_value is not None:
            value.const_value.name = value.name


def _unsupported(missing: Collection[Operation], reasons: Mapping[Operation, str]) -> UnsupportedOperationError:
    counts: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str], list[str]] = {}
    for operation in sorted(missing, key=lambda o: (o.type, o.name)):
        key = (operation.type, reasons.get(operation, "no lowering rule"))
        counts[key] += 1
        places.setdefault(key, []).append(operation.name)
    lines = [
        f"  {op_type} ({count}x, {reason}): {', '.join(places[op_type, reason][:3])}"
        f"{', ...' if len(places[op_type, reason]) > 3 else ''}"
        for (op_type, reason), count in sorted(counts.items())
    ]
    details = [
        {"operation": op_type, "reason": reason, "count": count, "nodes": places[op_type, reason]}
        for (op_type, reason), count in sorted(counts.items())
    ]
    return UnsupportedOperationError(
        "these operations of the training step cannot be expressed in ONNX yet:\n"
        + "\n".join(lines)
        + "\nThe SavedModel alone can be rewritten with --no-onnx. docs/operators.md lists what is supported.",
        {"operations": details},
    )
