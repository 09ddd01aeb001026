"""A While that runs for as long as data say becomes a Loop: every variable that changes is a state.

Lists are the exception where the body appends an item at each iteration, as loops do for their gradients, which the
Loop stacks; or removes one, as those gradients do, which is read from such a stack. Items may be the lists of a loop in
the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.carried_list import CarriedList
from graphfreeze.lowering.kept_lists import keep_list
from graphfreeze.lowering.loop_body import LoopBody, Results
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.lowering.tensor_list import ChangeKind, ItemShape, ListVariable, MustCarry, TensorList
from graphfreeze.training.graph import Operation

__all__ = ["lower_conditional"]


def lower_conditional(node: Node, unchanged: set[int]) -> list[Tensor]:
    """The variables behind the loop.

    Raises:
        CannotLower: Its condition or a variable cannot be lowered.
    """
    carried: dict[int, ItemShape | None] = {}
    missing: dict[int, frozenset[Operation]] = {}
    for _ in range(2 * len(node.inputs) + 1):
        found = _Attempt(node, unchanged, carried, missing).run()
        if found is not None:
            return found
    raise CannotLower("the roles of its variables cannot be settled")


class _Attempt:
    """One run through the condition and the body."""

    def __init__(
        self,
        node: Node,
        unchanged: set[int],
        carried: dict[int, ItemShape | None],
        missing: dict[int, frozenset[Operation]],
    ) -> None:
        self.node = node
        self.lowering = node.lowering
        self.unchanged = unchanged
        self.carried = carried
        self.missing = missing
        self.lists: dict[int, CarriedList] = {}
        self.variables: dict[int, ListVariable] = {}
        self.grown: dict[int, Callable[[Results], TensorList]] = {}
        self.emptied: set[int] = set()

    def run(self) -> list[Tensor] | None:
        """The variables behind the loop, or None where the attempt found more lists or missing variables."""
        node, cond = self.node, self.node.operation.bodies["cond"]
        starts = {index: self._start(index) for index in range(len(node.inputs)) if self._is_state(index)}
        condition = self._flag(self.lowering.run(cond, node.inputs))
        body = LoopBody(self.lowering)
        try:
            arguments = [self._argument(body, index, starts) for index in range(len(node.inputs))]
            results = self.lowering.run(node.operation.bodies["body"], arguments)
            if self._missing_grows(results):
                body.abandon()
                return None
            for index, start in starts.items():
                body.set_next(self._after(index, start, results[index]), start)
            goes_on = self._flag(self.lowering.run(cond, results))
            self._settle_lists(body, arguments, results)
        except MustCarry as found:
            body.abandon()
            for index, variable in self.variables.items():
                if variable is found.variable:
                    self.carried[index] = found.shape
                    return None
            raise
        except BaseException:
            body.abandon()
            raise
        made = body.finish_loop(condition, goes_on)
        finals = dict(zip(starts, made.states, strict=False))  # behind them are the lists of loops in the loop
        return [
            self._final_list(index, made)
            if index in self.grown or index in self.emptied
            else self._final(index, finals.get(index), starts.get(index))
            for index in range(len(node.inputs))
        ]

    def _is_state(self, index: int) -> bool:
        if index in self.unchanged or index in self.missing or self.node.inputs[index].missing:
            return False
        return self.node.inputs[index].tensor_list is None or index in self.carried

    def _start(self, index: int) -> Tensor:
        tensor = self.node.inputs[index]
        if tensor.tensor_list is not None:
            self.lists[index] = CarriedList(self.node, tensor.tensor_list, self.carried[index])
            tensor = self.lists[index].before
        self.lowering.value(tensor)
        return tensor

    def _flag(self, results: Sequence[Tensor]) -> ir.Value:
        (flag,) = results
        if flag.missing:
            raise CannotLower("its condition depends on operations that cannot be lowered: " + _names(flag.missing))
        return self.lowering.value(flag)

    def _argument(self, body: LoopBody, index: int, starts: dict[int, Tensor]) -> Tensor:
        tensor = self.node.inputs[index]
        if index in self.unchanged or tensor.missing:
            return tensor
        if index in self.missing:
            return Tensor(tensor.dtype, tensor.shapes, missing=self.missing[index])
        if index in starts:
            state = body.state(self.lowering.value(starts[index]), starts[index])
            if index not in self.lists:
                return state
            return Tensor(tensor.dtype, tensor.shapes, tensor_list=self.lists[index].list_of(state))
        assert tensor.tensor_list is not None
        variable = self.variables[index] = ListVariable(tensor.tensor_list)
        first = tensor.tensor_list
        if first.length is None:
            variable.last_index = self._last_index(body, first)
        argument = TensorList(first.dtype, first.length, first.shape, first.declared, variable=variable)
        return Tensor(tensor.dtype, tensor.shapes, tensor_list=argument)

    def _missing_grows(self, results: Sequence[Tensor]) -> bool:
        before = len(self.missing)
        for index, result in enumerate(results):
            if result.missing and index not in self.unchanged and not self.node.inputs[index].missing:
                self.missing.setdefault(index, result.missing)
        return len(self.missing) > before

    def _after(self, index: int, start: Tensor, result: Tensor) -> ir.Value:
        if index in self.lists:
            if result.tensor_list is None:
                raise CannotLower("a loop variable that is a list becomes something else")
            result = self.lists[index].tensor_of(result.tensor_list)
        if result.shapes != start.shapes:
            raise CannotLower(
                f"the loop variable {index} changes its shape from {start.shape} to {result.shape}; "
                "variables of one shape are covered"
            )
        return self.lowering.value(result)

    def _last_index(self, body: LoopBody, of: TensorList) -> Tensor:
        """Which item TensorListPopBack takes: each iteration has removed one."""
        emit, iteration = self.lowering.builder.emit, body.iteration
        if of.rows is None:
            return self.lowering.tensor(iteration, np.int64, [])
        last = emit("Sub", emit("Shape", of.rows, start=0, end=1), np.array([1], np.int64))
        last = emit("Reshape", last, self.lowering.builder.int64([]))
        return self.lowering.tensor(emit("Sub", last, iteration), np.int64, [])

    def _settle_lists(self, body: LoopBody, arguments: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Find out how the lists that are no states come out of the loop.

        Raises:
            MustCarry: One is changed in another way than by an item at its end.
        """
        for index, variable in self.variables.items():
            made, argument = results[index].tensor_list, arguments[index].tensor_list
            if made is None or made is argument:
                continue
            change = made.change
            if change is None or change.base is not argument:
                raise MustCarry(variable, lists.item_shape(made))
            if change.kind is ChangeKind.POP and variable.initial.length is None:
                self.emptied.add(index)
            elif (
                change.kind is ChangeKind.PUSH and change.item is not None and not any(variable.initial.length or (1,))
            ):
                self.grown[index] = self._collect(body, change.item, variable.initial)
            else:
                raise MustCarry(variable, lists.item_shape(made))

    def _collect(self, body: LoopBody, item: Tensor, outer: TensorList) -> Callable[[Results], TensorList]:
        """Let the Loop stack the item, where it is not the same at every iteration; makes the list of what it gives."""
        if item.tensor_list is not None:
            return keep_list(self.lowering, body, item.tensor_list, outer)
        if item.known is not None or self.lowering.builder.depth_of(self.lowering.value(item)) < body.depth:
            return lambda made: TensorList(item.dtype, None, item.shapes, outer.declared, item=item)
        which = body.collect(self.lowering.value(item), item)
        return lambda made: TensorList(item.dtype, None, item.shapes, outer.declared, rows=made.stacks[which])

    def _final_list(self, index: int, made: Results) -> Tensor:
        initial = self.variables[index].initial
        if index in self.emptied:
            final = TensorList(initial.dtype, self.lowering.dim(0), initial.shape, initial.declared)
        else:
            final = self.grown[index](made)
        return Tensor(np.dtype(object), self.node.inputs[index].shapes, tensor_list=final)

    def _final(self, index: int, value: ir.Value | None, start: Tensor | None) -> Tensor:
        tensor = self.node.inputs[index]
        if value is None or start is None:
            missing = tensor.missing | self.missing.get(index, frozenset())
            return Tensor(tensor.dtype, tensor.shapes, missing=missing) if missing else tensor
        final = self.lowering.tensor(value, start.dtype, start.dims)
        if index in self.lists:
            return Tensor(np.dtype(object), tensor.shapes, tensor_list=self.lists[index].list_of(final))
        return final


def _names(operations: frozenset[Operation]) -> str:
    return ", ".join(sorted({operation.type for operation in operations}))
