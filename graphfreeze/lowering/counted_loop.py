"""A While whose number of iterations is known becomes a Scan.

Each variable of the loop is, in this order: unchanged (its users take it from outside), a counter (an affine function
of the iteration, nothing at run time), a list that is filled or emptied item by item (a stack that the Scan collects or
walks along), or a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.carried_list import CarriedList
from graphfreeze.lowering.loop_body import ScanBody
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Dim, Induction, Tensor
from graphfreeze.lowering.tensor_list import ChangeKind, ItemShape, ListVariable, MustCarry, TensorList
from graphfreeze.training.graph import Operation

__all__ = ["lower_counted"]

Finish = Callable[[list[ir.Value], list[ir.Value]], Tensor]
"""Makes a variable's value behind the loop from the final states and the collected stacks."""


@dataclass(slots=True)
class _Findings:
    """What earlier attempts found out about the variables, by index.

    Attributes:
        carried: Lists that must be states, with their items' shape where it was seen.
        missing: Variables that cannot be lowered, with the operations in the way.
    """

    carried: dict[int, ItemShape | None] = field(default_factory=dict)
    missing: dict[int, frozenset[Operation]] = field(default_factory=dict)


class _TryAgain(Exception):  # noqa: N818 - not an error: the findings have grown
    """The attempt showed something that changes how the loop must be lowered."""


def lower_counted(node: Node, trips: int, unchanged: set[int], steps: Mapping[int, int]) -> list[Tensor]:
    """The variables behind a loop of that many iterations."""
    findings = _Findings()
    for _ in range(2 * len(node.inputs) + 1):
        try:
            return _Attempt(node, trips, unchanged, steps, findings).run()
        except _TryAgain:
            continue
    raise CannotLower("the roles of its variables cannot be settled")


def _no_rows(finals: list[ir.Value], stacks: list[ir.Value]) -> Tensor:
    raise CannotLower("a loop fills only a part of a list of lists")


class _Attempt:
    """One run through the body."""

    def __init__(
        self, node: Node, trips: int, unchanged: set[int], steps: Mapping[int, int], findings: _Findings
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
        self.after: list[tuple[ir.Value, Tensor]] = []

    def run(self) -> list[Tensor]:
        """The variables behind the loop."""
        initial: dict[int, ir.Value] = {}
        for index, tensor in enumerate(self.node.inputs):
            if index in self.unchanged or index in self.steps or self._missing(index):
                continue
            if tensor.tensor_list is None:
                initial[index] = self.lowering.value(tensor)
            elif index in self.findings.carried:
                self.carried[index] = CarriedList(self.node, tensor.tensor_list, self.findings.carried[index])
                initial[index] = self.lowering.value(self.carried[index].before)
        body = ScanBody(self.lowering, self.trips)
        try:
            arguments = [self._argument(body, index, initial) for index in range(len(self.node.inputs))]
            results = self.lowering.run(self.node.operation.bodies["body"], arguments)
            finishes = self._finishes(body, arguments, results)
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
        finals, stacks = body.finish(self.after)
        return [finish(finals, stacks) for finish in finishes]

    def _missing(self, index: int) -> frozenset[Operation]:
        return self.node.inputs[index].missing | self.findings.missing.get(index, frozenset())

    # -- into the body

    def _argument(self, body: ScanBody, index: int, initial: Mapping[int, ir.Value]) -> Tensor:
        tensor = self.node.inputs[index]
        if index in self.unchanged:
            return tensor
        if self._missing(index):
            return Tensor(tensor.dtype, tensor.shapes, missing=self._missing(index))
        if index in self.steps:
            start = int(np.asarray(tensor.constant))
            return Tensor(tensor.dtype, tensor.shapes, induction=Induction(self.steps[index], start, body.iteration))
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
            last = Induction(-1, initial.length - 1, body.iteration)
            shapes: tuple[tuple[int, ...], ...] = ((),) * len(self.lowering.samples)
            variable.last_index = Tensor(np.dtype(np.int32), shapes, induction=last)
        return TensorList(initial.dtype, initial.length, initial.shape, initial.declared, variable=variable)

    # -- out of the body

    def _finishes(self, body: ScanBody, arguments: list[Tensor], results: list[Tensor]) -> list[Finish]:
        grown = False
        for index, result in enumerate(results):
            if index in self.unchanged or self._missing(index):
                continue
            missing = result.missing or self._state(index, result)
            if missing:
                self.findings.missing[index] = missing
                grown = True
        if grown:
            raise _TryAgain
        self._positions = {id(value): position for position, (value, _) in enumerate(self.after)}
        finishes = []
        for index, (argument, result) in enumerate(zip(arguments, results, strict=True)):
            try:
                finishes.append(self._finish(body, index, argument, result))
            except CannotLower as reason:
                self.lowering.reasons[self.node.operation] = str(reason)
                self.findings.missing[index] = frozenset({self.node.operation})
                raise _TryAgain from reason
        return finishes

    def _state(self, index: int, result: Tensor) -> frozenset[Operation]:
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
            self.after.append((self.lowering.value(result), tensor))
        except CannotLower as reason:
            self.lowering.reasons[self.node.operation] = str(reason)
            return frozenset({self.node.operation})
        return frozenset()

    def _finish(self, body: ScanBody, index: int, argument: Tensor, result: Tensor) -> Finish:
        tensor = self.node.inputs[index]
        if index in self.unchanged:
            return lambda finals, stacks: tensor
        if self._missing(index):
            return lambda finals, stacks: argument
        if index in self.steps:
            start = np.asarray(tensor.constant)
            final = self.lowering.constant((start + self.steps[index] * self.trips).astype(start.dtype))
            return lambda finals, stacks: final
        if index in self.states:
            position = self.states.index(index)
            if index in self.carried:
                carried = self.carried[index]
                return lambda finals, stacks: lists.as_tensor(
                    self.lowering, carried.list_of(self._of(finals[position], carried.before))
                )
            return lambda finals, stacks: self._of(finals[position], tensor)
        if result.tensor_list is None or argument.tensor_list is None:
            raise CannotLower("a loop variable that is a list becomes something else")
        made = self._finish_list(body, self.variables[index], argument.tensor_list, result.tensor_list)
        return lambda finals, stacks: lists.as_tensor(self.lowering, made(finals, stacks))

    def _of(self, value: ir.Value, like: Tensor) -> Tensor:
        return self.lowering.tensor(value, like.dtype, like.dims)

    # -- lists

    def _finish_list(
        self, body: ScanBody, variable: ListVariable, argument: TensorList, result: TensorList
    ) -> Callable[[list[ir.Value], list[ir.Value]], TensorList]:
        initial, change = variable.initial, result.change
        if result is argument:
            return lambda finals, stacks: initial
        if result.is_unset and not variable.reads:
            return lambda finals, stacks: result
        must_carry = MustCarry(variable, lists.item_shape(result))
        if change is None or change.base is not argument:
            raise must_carry
        if change.kind is ChangeKind.POP and not variable.reads and initial.length is not None:
            length = initial.length - self.trips
            if length < 0:
                raise CannotLower("a list is emptied before the loop ends")
            return lambda finals, stacks: lists.resize(initial, length)
        item = change.item
        if item is None:
            raise must_carry
        if change.kind is ChangeKind.PUSH:
            if initial.length is None or variable.reads:
                raise must_carry
            at = Induction(1, initial.length, body.iteration)
            length = initial.length + self.trips
            index = Tensor(np.dtype(np.int32), item.shapes, induction=at)
        elif change.index is not None and initial.length is not None:
            index, length = change.index, initial.length
        else:
            raise must_carry
        if any(lists.same_index(read, index) is not True for read in variable.reads):
            raise must_carry
        if change.kind is ChangeKind.SET and index.constant is not None and not variable.reads:
            last = self._last(body, item)
            return lambda finals, stacks: lists.set_item(initial, index, last(finals, stacks))
        span = None if index.induction is None else body.span(index.induction)
        if index.induction is None or span is None or span[0] < 0 or span[1] > length:
            raise must_carry
        inner, item = self._without_inner(body, item)
        rows = self._rows(body, item, index.induction)
        adds = change.kind is ChangeKind.ADD and not initial.is_unset

        def finish(finals: list[ir.Value], stacks: list[ir.Value]) -> TensorList:
            if repeats and (span[0], span[1]) == (0, length) and not adds:
                return TensorList(item.dtype, length, item.shapes, initial.declared, item=item)
            made = rows(finals, stacks)
            if adds:
                made = lists.place(self.lowering, lists.unset_like(initial), made, span[0], length)
                added = TensorList(made.dtype, length, item.shapes, stack=made)
                return lists.add_lists(self.lowering, [initial, added])
            shape = item.shapes
            if inner is not None and (span[0], span[1]) != (0, length):
                raise CannotLower("a loop fills only a part of a list of lists")
            placed = lists.place(self.lowering, initial, made, span[0], length)
            return TensorList(item.dtype, length, shape, initial.declared, stack=placed, inner=inner)

        repeats = self._is_same_everywhere(body, item)
        return finish

    def _without_inner(self, body: ScanBody, item: Tensor) -> tuple[TensorList | None, Tensor]:
        """For an item that is a list itself: what such lists have in common, and the item's own items as a stack."""
        if item.tensor_list is None:
            return None, item
        inner = lists.settled(self.lowering, item.tensor_list)
        settled = lists.as_tensor(self.lowering, inner)
        if self._is_same_everywhere(body, settled):
            return None, settled
        return inner, lists.stack(self.lowering, inner)

    def _is_same_everywhere(self, body: ScanBody, item: Tensor) -> bool:
        """Whether the item does not change from iteration to iteration."""
        if item.known is not None:
            return True
        if item.induction is not None:
            return False
        if item.tensor_list is not None:
            parts = [part for part in (item.tensor_list.item, item.tensor_list.stack) if part is not None]
            return item.tensor_list.change is None and all(self._is_same_everywhere(body, part) for part in parts)
        return self.lowering.builder.depth_of(self.lowering.value(item)) < body.depth

    def _rows(self, body: ScanBody, item: Tensor, at: Induction) -> Callable[[list[ir.Value], list[ir.Value]], Tensor]:
        """The items of all iterations along a new first axis, in the list's order."""
        if item.tensor_list is not None:
            return _no_rows
        if item.induction is not None and item.induction.iteration is body.iteration:
            numbers = item.induction.offset + item.induction.scale * np.arange(self.trips)
            known = self.lowering.constant(numbers[:: at.scale].astype(item.dtype))
            return lambda finals, stacks: known
        if self._is_same_everywhere(body, item):
            return lambda finals, stacks: lists.repeated(self.lowering, item, self.trips)
        value = self.lowering.value(item)
        dims: list[Dim | int] = [self.trips, *item.dims]
        rows = body.rows_of(value, at)
        if rows is not None:
            source = rows
            return lambda finals, stacks: self.lowering.tensor(source, item.dtype, dims)
        which = body.collect(value, item, backwards=at.scale < 0)
        return lambda finals, stacks: self.lowering.tensor(stacks[which], item.dtype, dims)

    def _last(self, body: ScanBody, item: Tensor) -> Callable[[list[ir.Value], list[ir.Value]], Tensor]:
        """The item of the last iteration: often a state anyway, otherwise one more state that nothing reads."""
        if item.induction is not None and item.induction.iteration is body.iteration:
            number = item.induction.offset + item.induction.scale * (self.trips - 1)
            known = self.lowering.constant(np.asarray(number, item.dtype))
            return lambda finals, stacks: known
        if self._is_same_everywhere(body, item):
            return lambda finals, stacks: item
        value = self.lowering.value(item)
        if id(value) not in self._positions:
            zero = np.zeros((1,) * item.rank, item.dtype)
            body.state(self.lowering.builder.emit("Expand", zero, self.lowering.shape(item.dims)), item)
            self._positions[id(value)] = len(self.after)
            self.after.append((value, item))
        position = self._positions[id(value)]
        return lambda finals, stacks: self._of(finals[position], item)
