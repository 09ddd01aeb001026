"""A While whose number of iterations is known becomes a Scan.

Each variable of the loop is, in this order: unchanged (its users take it from outside), a counter (an affine function
of the iteration, nothing at run time), a list that is filled or emptied item by item (a stack that the Scan collects or
walks along), or a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.carried_list import CarriedList
from graphfreeze.lowering.loop_body import Results, ScanBody
from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.postponed import Postponed, find_postponed
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.stacking import ItemProduct, Later, Stacking
from graphfreeze.lowering.tensor import Dim, Induction, Tensor
from graphfreeze.lowering.tensor_list import ItemShape, ListVariable, MustCarry, TensorList
from graphfreeze.training.graph import Graph, Operation

__all__ = ["lower_counted"]


@dataclass(slots=True)
class _Findings:
    """What earlier attempts found out about the variables, by index.

    Attributes:
        carried: Lists that must be states, with their items' shape where it was seen.
        missing: Variables that cannot be lowered, with the operations in the way.
        in_turn: Sums that must be added up iteration by iteration.
    """

    carried: dict[int, ItemShape | None] = field(default_factory=dict)
    missing: dict[int, frozenset[Operation]] = field(default_factory=dict)
    in_turn: set[int] = field(default_factory=set)


class _TryAgain(Exception):  # noqa: N818 - not an error: the findings have grown
    """The attempt showed something that changes how the loop must be lowered."""


def lower_counted(node: Node, trips: Dim, unchanged: set[int], steps: Mapping[int, int]) -> list[Tensor]:
    """The variables behind a loop of that many iterations."""
    findings = _Findings()
    for _ in range(3 * len(node.inputs) + 1):
        try:
            return _Attempt(node, trips, unchanged, steps, findings).run()
        except _TryAgain:
            continue
    raise CannotLower("the roles of its variables cannot be settled")


class _Attempt:
    """One run through the body."""

    def __init__(
        self, node: Node, trips: Dim, unchanged: set[int], steps: Mapping[int, int], findings: _Findings
    ) -> None:
        self.node = node
        self.lowering = node.lowering
        self.trips = trips
        self.unchanged = unchanged
        self.steps = steps
        self.findings = findings
        self.variables: dict[int, ListVariable] = {}
        self.carried: dict[int, CarriedList] = {}
        self.states: list[int] = []
        self.sums: dict[int, Postponed] = {}
        self.products: dict[int, Postponed] = {}
        for postponed in find_postponed(node.operation):
            index = postponed.variable
            if index in unchanged or index in steps or index in findings.carried or self._missing(index):
                continue
            if postponed.total is None:
                self.products[index] = postponed
            elif index not in findings.in_turn:
                self.sums[index] = postponed

    def run(self) -> list[Tensor]:
        """The variables behind the loop."""
        initial: dict[int, ir.Value] = {}
        for index, tensor in enumerate(self.node.inputs):
            if index in self.unchanged or index in self.steps or index in self.sums or self._missing(index):
                continue
            if tensor.tensor_list is None:
                initial[index] = self.lowering.value(tensor)
            elif index in self.findings.carried:
                self.carried[index] = CarriedList(self.node, tensor.tensor_list, self.findings.carried[index])
                initial[index] = self.lowering.value(self.carried[index].before)
        body = ScanBody(self.lowering, self.trips)
        try:
            arguments = [self._argument(body, index, initial) for index in range(len(self.node.inputs))]
            finishes = self._finishes(body, arguments, self._run_body(arguments))
        except MustCarry as found:
            body.abandon()
            for index, variable in self.variables.items():
                if variable is found.variable:
                    self.findings.carried[index] = found.shape
                    raise _TryAgain from found
            raise
        except BaseException:
            body.abandon()
            raise
        made = body.finish()
        return [finish(made) for finish in finishes]

    def _run_body(self, arguments: list[Tensor]) -> list[Tensor]:
        """The variables after an iteration. Notes the inputs of what is postponed."""
        graph = self.node.operation.bodies["body"]
        postponed = [*self.sums.values(), *self.products.values()]
        edges = [edge for one in postponed for edge in one.operation.inputs]
        results = self.lowering.run(Graph(graph.inputs, graph.operations, [*graph.outputs, *edges]), arguments)
        inputs = iter(results[len(graph.outputs) :])
        self.inputs = {one.variable: [next(inputs) for _ in one.operation.inputs] for one in postponed}
        return results[: len(graph.outputs)]

    def _missing(self, index: int) -> frozenset[Operation]:
        return self.node.inputs[index].missing | self.findings.missing.get(index, frozenset())

    # -- into the body

    def _argument(self, body: ScanBody, index: int, initial: Mapping[int, ir.Value]) -> Tensor:
        tensor = self.node.inputs[index]
        if index in self.unchanged or index in self.sums:
            return tensor
        if self._missing(index):
            return Tensor(tensor.dtype, tensor.shapes, missing=self._missing(index))
        if index in self.steps:
            at = Induction(self.steps[index], _start(tensor), body.iteration)
            return Tensor(tensor.dtype, tensor.shapes, induction=at)
        if index in self.carried:
            self.states.append(index)
            carried = self.carried[index]
            state = body.state(initial[index], carried.before)
            return Tensor(tensor.dtype, tensor.shapes, tensor_list=carried.list_of(state))
        if tensor.tensor_list is not None:
            return Tensor(tensor.dtype, tensor.shapes, tensor_list=self._list_argument(body, index, tensor.tensor_list))
        self.states.append(index)
        return body.state(initial[index], tensor)

    def _list_argument(self, body: ScanBody, index: int, initial: TensorList) -> TensorList:
        variable = self.variables[index] = ListVariable(initial)
        if initial.length is not None:
            last = Induction(-1, plus(initial.length, -1), body.iteration)
            shapes: tuple[tuple[int, ...], ...] = ((),) * len(self.lowering.samples)
            variable.last_index = Tensor(np.dtype(np.int32), shapes, induction=last)
        return TensorList(initial.dtype, initial.length, initial.shape, initial.declared, variable=variable)

    # -- out of the body

    def _finishes(self, body: ScanBody, arguments: list[Tensor], results: list[Tensor]) -> list[Later]:
        stacking = Stacking(self.lowering, body)
        before = len(self.findings.missing) + len(self.findings.in_turn)
        for index, result in enumerate(results):
            if index in self.unchanged or self._missing(index):
                continue
            if index in self.sums and not self._can_wait(stacking, self.sums[index], body):
                self.findings.in_turn.add(index)
            missing = result.missing or self._state(body, index, result)
            if missing:
                self.findings.missing[index] = missing
        if len(self.findings.missing) + len(self.findings.in_turn) > before:
            raise _TryAgain
        finishes = []
        for index, (argument, result) in enumerate(zip(arguments, results, strict=True)):
            try:
                finishes.append(self._finish(stacking, index, argument, result))
            except CannotLower as reason:
                self.lowering.reasons[self.node.operation] = str(reason)
                self.findings.missing[index] = frozenset({self.node.operation})
                raise _TryAgain from reason
        return finishes

    def _can_wait(self, stacking: Stacking, postponed: Postponed, body: ScanBody) -> bool:
        """Whether the inputs of the operation are such that it can run once for all iterations."""
        for index, tensor in enumerate(self.inputs[postponed.variable]):
            if tensor.missing:
                return False
            if index not in postponed.stacked:
                if not body.is_outside(tensor):
                    return False
            elif tensor.induction is not None or tensor.tensor_list is not None or stacking.is_same_everywhere(tensor):
                return False
        return True

    def _state(self, body: ScanBody, index: int, result: Tensor) -> frozenset[Operation]:
        """Note the state after an iteration; returns what is in the way."""
        if index not in self.states:
            return frozenset()
        tensor = self.node.inputs[index]
        try:
            if index in self.carried:
                if result.tensor_list is None:
                    raise CannotLower("a loop variable that is a list becomes something else")
                tensor = self.carried[index].before
                result = self.carried[index].tensor_of(result.tensor_list)
            if result.shapes != tensor.shapes:
                raise CannotLower(
                    f"the loop variable {index} changes its shape from {tensor.shape} to {result.shape}; "
                    "variables of one shape are covered"
                )
            body.set_next(self.lowering.value(result), tensor)
        except CannotLower as reason:
            self.lowering.reasons[self.node.operation] = str(reason)
            return frozenset({self.node.operation})
        return frozenset()

    def _finish(self, stacking: Stacking, index: int, argument: Tensor, result: Tensor) -> Later:
        tensor = self.node.inputs[index]
        if index in self.unchanged:
            return lambda results: tensor
        if self._missing(index):
            return lambda results: argument
        if index in self.steps:
            final = self.lowering.number(plus(_start(tensor), self.trips, self.steps[index]), tensor.dtype)
            return lambda results: final
        if index in self.sums:
            return self._total(stacking, self.sums[index])
        if index in self.states:
            return self._final_state(index)
        if result.tensor_list is None or argument.tensor_list is None:
            raise CannotLower("a loop variable that is a list becomes something else")
        product = None
        if index in self.products and self._can_wait(stacking, self.products[index], stacking.body):
            product = ItemProduct(self.products[index].operation, self.inputs[index])
        return stacking.list_after(self.variables[index], argument.tensor_list, result.tensor_list, product)

    def _final_state(self, index: int) -> Later:
        position = self.states.index(index)
        tensor, carried = self.node.inputs[index], self.carried.get(index)
        if carried is None:
            return lambda results: self._of(results.states[position], tensor)
        return lambda results: lists.as_tensor(
            self.lowering, carried.list_of(self._of(results.states[position], carried.before))
        )

    def _total(self, stacking: Stacking, postponed: Postponed) -> Later:
        initial, inputs, total = self.node.inputs[postponed.variable], self.inputs[postponed.variable], postponed.total
        assert total is not None
        # All sums take one direction, so that a gradient that several of them need is collected once.
        stacked = [self.inputs[one.variable][index] for one in self.sums.values() for index in one.stacked]
        at = stacking.direction(stacked)
        added = stacking.once(postponed.operation, inputs, postponed.stacked, at)
        body = self.node.operation.bodies["body"]
        comes_first = total.inputs[0] is body.inputs[postponed.variable]

        def finish(results: Results) -> Tensor:
            term = added(results)
            if initial.constant is not None and not initial.constant.any() and term.shapes == initial.shapes:
                return term
            return self.lowering.lower(total, [initial, term] if comes_first else [term, initial])[0]

        return finish

    def _of(self, value: ir.Value, like: Tensor) -> Tensor:
        return self.lowering.tensor(value, like.dtype, like.dims)


def _start(counter: Tensor) -> Dim:
    assert counter.number is not None
    return counter.number
