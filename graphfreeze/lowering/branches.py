"""An If whose predicate only run time knows: both branches become ONNX graphs with results of the same shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from graphfreeze.lowering import lists
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Layout, Tensor
from graphfreeze.lowering.tensor_list import Change, TensorList
from graphfreeze.training.graph import Graph, Operation

__all__ = ["absent", "is_absent", "lower_branches"]


def absent(samples: int) -> Tensor:
    """An optional without a value: what one branch keeps for the gradient of the other."""
    return Tensor(np.dtype(object), ((),) * samples)


def is_absent(tensor: Tensor) -> bool:
    """Whether it is an optional without a value."""
    holds = tensor.tensor_list is not None or tensor.alternatives is not None
    return tensor.dtype == object and not holds and not tensor.missing


def lower_branches(node: Node, predicate: ir.Value, then: Graph, otherwise: Graph) -> list[Tensor]:
    """The results of whichever branch runs."""
    branches = [_Branch(node, graph, predicate, which) for which, graph in enumerate((then, otherwise))]
    apart = _keep_apart(node, *branches)
    made: list[Tensor] = []
    kept: list[int] = []
    for index, (left, right) in enumerate(zip(branches[0].results, branches[1].results, strict=True)):
        missing = left.missing | right.missing or _conflict(node, left, right)
        if missing:
            made.append(Tensor(left.dtype, left.shapes, missing=missing))
        elif (is_absent(left) and is_absent(right)) or _equal(left, right):
            made.append(left)
        else:
            shown = right if is_absent(left) else left
            made.append(Tensor(shown.dtype, shown.shapes))
            kept.append(index)
    if kept:
        graphs = [branch.graph(kept, made) for branch in branches]
        values = node.emit_many("If", predicate, outputs=len(kept), then_branch=graphs[0], else_branch=graphs[1])
        for index, value in zip(kept, values, strict=True):
            value.name = node.lowering.builder.unique(f"{node.operation.name}/result")
            made[index].values[Layout.PLAIN] = value
            made[index] = branches[0].as_list(index, made[index])
    for index, (left_of, right_of) in apart.items():
        left, right = _gathered(left_of, made), _gathered(right_of, made)
        nothing = absent(len(node.lowering.samples))
        if left.missing or right.missing:
            made[index] = Tensor(nothing.dtype, nothing.shapes, missing=left.missing | right.missing)
        elif is_absent(left) or is_absent(right):
            made[index] = right if is_absent(left) else left
        else:
            made[index] = Tensor(nothing.dtype, nothing.shapes, alternatives=(predicate, left, right))
    return made[: len(node.operation.outputs)]


@dataclass(frozen=True)
class _Kept:
    """Where the result of a branch is that it keeps for its gradient, and what it depends on.

    Attributes:
        index: The result; None where it is one of two.
        predicate: What says which of the two it is: a result, or a value from outside of the branch.
        then: The one where that is true.
        otherwise: The other one.
    """

    index: int | None
    predicate: int | ir.Value | None = None
    then: _Kept | None = None
    otherwise: _Kept | None = None


def _gathered(kept: _Kept, made: Sequence[Tensor]) -> Tensor:
    """The tensor that a branch keeps, of the results of the If."""
    if kept.index is not None:
        return made[kept.index]
    assert kept.predicate is not None
    assert kept.then is not None
    assert kept.otherwise is not None
    left, right = _gathered(kept.then, made), _gathered(kept.otherwise, made)
    predicate = kept.predicate
    missing = left.missing | right.missing
    if isinstance(predicate, int):
        missing |= made[predicate].missing
        predicate = made[predicate].values.get(Layout.PLAIN, predicate)
    if missing or isinstance(predicate, int):
        return Tensor(np.dtype(object), ((),) * len(left.shapes), missing=missing)
    return Tensor(np.dtype(object), ((),) * len(left.shapes), alternatives=(predicate, left, right))


def _keep_apart(node: Node, then: _Branch, otherwise: _Branch) -> dict[int, tuple[_Kept, _Kept]]:
    """Give results of their own to what the branches keep for their gradients in one place but in different shapes.

    So does a branch with branches in it whose own keep different shapes in one place.

    Returns:
        For each such result, where it is of either branch, behind all others.
    """
    apart = {}
    for index, edge in enumerate(node.operation.outputs):
        left, right = then.results[index], otherwise.results[index]
        if edge.dtype != tf.variant or any(t.tensor_list or t.missing for t in (left, right)):
            continue
        nested = left.alternatives is not None or right.alternatives is not None
        differs = left.shapes != right.shapes or left.dtype != right.dtype
        if nested or (differs and not (is_absent(left) or is_absent(right))):
            then.results[index] = otherwise.results[index] = absent(len(node.lowering.samples))
            apart[index] = _placed(node, left, then, otherwise), _placed(node, right, otherwise, then)
    return apart


def _placed(node: Node, result: Tensor, own: _Branch, other: _Branch) -> _Kept:
    """Give a result of a branch, or each that it may be, a place behind all others."""
    if result.alternatives is not None:
        predicate, left, right = result.alternatives
        place: int | ir.Value = predicate
        if any(predicate is value for made in own.nodes for value in made.outputs):
            places = [i for i, t in enumerate(own.results) if t.values.get(Layout.PLAIN) is predicate]
            place = places[0] if places else len(own.results)
            if not places:
                shapes = ((),) * len(node.lowering.samples)
                own.results.append(Tensor(np.dtype(np.bool_), shapes, values={Layout.PLAIN: predicate}))
                other.results.append(absent(len(shapes)))
        return _Kept(None, place, _placed(node, left, own, other), _placed(node, right, own, other))
    own.results.append(result)
    other.results.append(absent(len(node.lowering.samples)))
    return _Kept(len(own.results) - 1)


def _equal(left: Tensor, right: Tensor) -> bool:
    one, two = left.constant, right.constant
    return one is not None and two is not None and one.dtype == two.dtype and one.tobytes() == two.tobytes()


def _conflict(node: Node, left: Tensor, right: Tensor) -> frozenset[Operation]:
    if is_absent(left) or is_absent(right) or (left.shapes == right.shapes and left.dtype == right.dtype):
        return frozenset()
    node.lowering.reasons[node.operation] = (
        f"its branches give different shapes ({left.shape}, {right.shape}); equal ones are covered"
    )
    return frozenset({node.operation})


class _Branch:
    """A branch after its run: its nodes, and its results as tensors. Lists are stacked."""

    def __init__(self, node: Node, graph: Graph, predicate: ir.Value, which: int) -> None:
        self.lowering = node.lowering
        self.operation = node.operation
        self.lengths: dict[int, TensorList] = {}
        copies: dict[int, Tensor] = {}
        builder = self.lowering.builder
        # Values made in a branch exist in it only: it gets copies of the tensors outside, which remember them instead.
        builder.open(hoist=False)
        try:
            arguments = [_copy(_own(tensor, predicate, which), copies) for tensor in node.inputs[1:]]
            self.results = [self._settled(i, t) for i, t in enumerate(self.lowering.run(graph, arguments))]
        finally:
            self.nodes = builder.close()

    def _settled(self, index: int, result: Tensor) -> Tensor:
        """The result with a value, made while the branch is open."""
        if result.missing or is_absent(result):
            return result
        try:
            if result.alternatives is not None:
                _, *either = result.alternatives
                settled = [self._settled(index, tensor) for tensor in either]
                missing = settled[0].missing | settled[1].missing
                if missing:
                    return Tensor(result.dtype, result.shapes, missing=missing)
                return result
            if result.tensor_list is not None:
                self.lengths[index] = result.tensor_list
                result = lists.stack(self.lowering, result.tensor_list)
            self.lowering.value(result)
        except CannotLower as reason:
            self.lowering.reasons[self.operation] = str(reason)
            return Tensor(result.dtype, result.shapes, missing=frozenset({self.operation}))
        return result

    def as_list(self, index: int, result: Tensor) -> Tensor:
        """The result of the If, as a list where the branch gave one."""
        given = self.lengths.get(index)
        if given is None:
            return result
        shape = tuple(sizes[1:] for sizes in result.shapes)
        made = TensorList(result.dtype, given.length, shape, stack=result)
        return Tensor(np.dtype(object), ((),) * len(result.shapes), tensor_list=made)

    def graph(self, kept: Sequence[int], made: Sequence[Tensor]) -> ir.Graph:
        """The branch as an ONNX graph with these results."""
        own = {id(value) for node in self.nodes for value in node.outputs}
        outputs: list[ir.Value] = []
        for index in kept:
            like, result = made[index], self.results[index]
            name = self.lowering.builder.unique(f"{self.operation.name}/branch_result")
            if is_absent(result):
                zero = self.lowering.builder.constant(np.zeros((1,) * like.rank, like.dtype))
                node = ir.node("Expand", [zero, self.lowering.shape(like.dims)], name=name)
            else:
                value = self.lowering.value(result)
                if id(value) in own and not any(value is output for output in outputs):
                    outputs.append(self._described(value, like))
                    continue
                node = ir.node("Identity", [value], name=name)
            self.nodes.append(node)
            node.outputs[0].name = name
            outputs.append(self._described(node.outputs[0], like))
        return ir.Graph([], outputs, nodes=self.nodes, name=f"{self.operation.name}/branch")

    def _described(self, value: ir.Value, like: Tensor) -> ir.Value:
        value.type = ir.TensorType(ir.DataType.from_numpy(like.dtype))
        value.shape = ir.Shape(like.shape)
        return value


def _own(tensor: Tensor, predicate: ir.Value, which: int) -> Tensor:
    """What this branch kept, of what either branch of the same If did."""
    if tensor.alternatives is None or tensor.alternatives[0] is not predicate:
        return tensor
    _, then, otherwise = tensor.alternatives
    return otherwise if which else then


def _copy(tensor: Tensor, copies: dict[int, Tensor]) -> Tensor:
    """The tensor, with its own memory of the values that hold it, and so everything that may be made of it."""
    if id(tensor) not in copies:
        made = Tensor(
            tensor.dtype,
            tensor.shapes,
            tensor.known,
            dict(tensor.values),
            tensor.missing,
            induction=tensor.induction,
            alternatives=tensor.alternatives,
        )
        copies[id(tensor)] = made
        if tensor.origin is not None:
            operation, inputs, output = tensor.origin
            made.origin = (operation, [_copy(given, copies) for given in inputs], output)
        if tensor.tensor_list is not None:
            made.tensor_list = _copy_list(tensor.tensor_list, copies)
    return copies[id(tensor)]


def _copy_list(of: TensorList, copies: dict[int, Tensor]) -> TensorList:
    made = TensorList(of.dtype, of.length, of.shape, of.declared, variable=of.variable, rows=of.rows)
    made.stack = _copy(of.stack, copies) if of.stack is not None else None
    made.item = _copy(of.item, copies) if of.item is not None else None
    if (change := of.change) is not None:
        made.change = Change(
            change.kind,
            _copy_list(change.base, copies),
            _copy(change.index, copies) if change.index is not None else None,
            _copy(change.item, copies) if change.item is not None else None,
        )
    return made
