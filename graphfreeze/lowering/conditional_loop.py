"""A While that runs for as long as data say becomes a Loop: every variable that changes is a state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.carried_list import CarriedList
from graphfreeze.lowering.loop_body import LoopBody
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.lowering.tensor_list import ItemShape, ListVariable, MustCarry, TensorList
from graphfreeze.training.graph import Operation

__all__ = ["lower_conditional"]


def lower_conditional(node: Node, unchanged: set[int]) -> list[Tensor]:
    """The variables behind the loop.

    Raises:
        CannotLower: A list grows in it, which is how the gradient of such a loop begins.
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
            self._check_lists(arguments, results)
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
        finals = dict(zip(starts, body.finish_loop(condition, goes_on), strict=True))
        return [self._final(index, finals.get(index), starts.get(index)) for index in range(len(node.inputs))]

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

    def _check_lists(self, arguments: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        for index, variable in self.variables.items():
            made = results[index].tensor_list
            if made is not None and made is not arguments[index].tensor_list:
                raise MustCarry(variable, lists.item_shape(made))

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
