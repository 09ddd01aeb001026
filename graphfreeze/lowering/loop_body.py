"""The body of an ONNX loop while it is built: a Scan where the number of iterations is known, otherwise a Loop.

A Scan takes items of its inputs, and stacks those of its outputs, in place and in either direction; a Loop would need
a Gather per item, and joins its outputs afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.list_rows import numbered, slice_rows
from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.tensor import Dim, Induction, Layout, Tensor

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["LoopBody", "Results", "ScanBody"]


@dataclass(frozen=True, slots=True)
class Results:
    """What a loop gives: the states after the last iteration, and the stacks of what was collected."""

    states: list[ir.Value]
    stacks: list[ir.Value]


@dataclass(frozen=True, slots=True)
class _Pool:
    """Rows of which there are more after each iteration."""

    dtype: np.dtype[Any]
    dims: list[Dim]

    @classmethod
    def of(cls, item: Tensor) -> _Pool:
        return cls(item.dtype, [_OPEN, *item.dims])


_OPEN: Dim = ()
"""A dimension that changes from iteration to iteration."""


class LoopBody:
    """Collects the states of a loop. It is open, in the builder, from its making until `finish` or `abandon`.

    Attributes:
        depth: How deep its values are nested.
        iteration: The number of the iteration, int64, rank 0.
    """

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self.builder = lowering.builder
        self.iteration = self._input("iteration", np.dtype(np.int64), [])
        self.builder.open([self.iteration])
        self.depth = self.builder.depth
        self._initial: list[ir.Value] = []
        self._before: list[ir.Value] = []
        self._next: list[tuple[ir.Value, Tensor | _Pool]] = []
        self._collected: list[tuple[ir.Value, bool, Tensor]] = []
        self._outputs: list[ir.Value] = []

    def _input(self, what: str, dtype: np.dtype[Any], dims: Sequence[Dim]) -> ir.Value:
        value = ir.Value(name=self.builder.unique(f"{self.builder.scope}/{what}"))
        self._describe(value, dtype, dims)
        return value

    def _describe(self, value: ir.Value, dtype: np.dtype[Any], dims: Sequence[Dim]) -> None:
        value.type = ir.TensorType(ir.DataType.from_numpy(dtype))
        value.shape = ir.Shape([dim[0] if len(set(dim)) == 1 else None for dim in dims])

    def state(self, initial: ir.Value, like: Tensor) -> Tensor:
        """One more state: the tensor that the body gets from the iteration before."""
        value = self._input("state", like.dtype, like.dims)
        self.builder.add_input(value, self.depth)
        self._initial.append(initial)
        self._before.append(value)
        return self.lowering.tensor(value, like.dtype, like.dims)

    def append(self, rows: ir.Value, item: Tensor) -> tuple[int, int, int]:
        """Put these rows behind those of the iterations before, after the next states of all other states are set.

        Returns:
            Which of the states all the rows are, and which of the collected stacks say where those of an iteration
            start and end.
        """
        pool = _Pool.of(item)
        empty = self.builder.constant(np.zeros((0, *(dim[0] for dim in item.dims)), item.dtype))
        if any(len(set(dim)) > 1 for dim in item.dims):
            sizes = self.lowering.shape([0, *item.dims])
            empty = self.builder.emit("Expand", np.zeros((1,) * (item.rank + 1), item.dtype), sizes)
        before = self._input("pool", pool.dtype, pool.dims)
        self.builder.add_input(before, self.depth)
        self._initial.append(empty)
        self._before.append(before)
        after = self.builder.emit("Concat", before, rows, axis=0)
        self._next.append((after, pool))
        number = Tensor(np.dtype(np.int64), ((),) * len(self.lowering.samples))
        ends = []
        for value in (before, after):
            size = self.builder.emit("Shape", value, start=0, end=1)
            ends.append(self.collect(self.builder.emit("Reshape", size, self.builder.int64([])), number))
        return len(self._next) - 1, ends[0], ends[1]

    def set_next(self, value: ir.Value, like: Tensor) -> int:
        """What the next state holds after the iteration, in the order of the states; returns which one it is."""
        self._next.append((value, like))
        return len(self._next) - 1

    def _output(self, value: ir.Value, what: str, dtype: np.dtype[Any], dims: Sequence[Dim]) -> ir.Value:
        """The value as an output of the body, which must be made in it and must be no other output."""
        made = value.producer() is not None and self.builder.depth_of(value) == self.depth
        if not made or any(value is output for output in self._outputs):
            name = self.builder.unique(f"{self.builder.scope}/{what}")
            node = ir.node("Identity", [value], name=name)
            (value,) = node.outputs
            value.name = name
            self.builder.add_input(value, self.depth)
            self.builder.nodes.append(node)
        self._describe(value, dtype, dims)
        self._outputs.append(value)
        return value

    def collect(self, value: ir.Value, like: Tensor, *, backwards: bool = False) -> int:
        """Stack this value of every iteration; returns which of the collected stacks it is."""
        for index, (other, direction, _) in enumerate(self._collected):
            if other is value and direction is backwards:
                return index
        self._collected.append((value, backwards, like))
        return len(self._collected) - 1

    def abandon(self) -> None:
        """Forget the body."""
        self.builder.close()

    def finish_loop(self, condition: ir.Value, goes_on: ir.Value) -> Results:
        """Emit a Loop that runs while the condition holds.

        Args:
            condition: Whether there is a first iteration.
            goes_on: Computed in the body: whether there is another one.

        Returns:
            The states after the loop, and the stacks of what was collected, of as many rows as there were iterations.
        """
        flag = self._input("condition", np.dtype(np.bool_), [])
        outputs = [self._output(goes_on, "goes_on", np.dtype(np.bool_), [])]
        outputs += [self._output(value, "next_state", like.dtype, like.dims) for value, like in self._next]
        outputs += [self._output(value, "collected", like.dtype, like.dims) for value, _, like in self._collected]
        nodes = self.builder.close()
        graph = ir.Graph([self.iteration, flag, *self._before], outputs, nodes=nodes, name=f"{self.builder.scope}/body")
        made = self.builder.emit_many("Loop", None, condition, *self._initial, outputs=len(outputs) - 1, body=graph)
        return self._results(made)

    def _results(self, made: Sequence[ir.Value]) -> Results:
        states, stacks = list(made[: len(self._next)]), list(made[len(self._next) :])
        for value in states:
            value.name = self.builder.unique(f"{self.builder.scope}/final_state")
        for value in stacks:
            value.name = self.builder.unique(f"{self.builder.scope}/stacked")
        return Results(states, stacks)


class ScanBody(LoopBody):
    """The body of a loop whose number of iterations is known."""

    def __init__(self, lowering: Lowering, trips: Dim) -> None:
        super().__init__(lowering)
        self.trips = trips
        numbers = numbered(lowering, lowering.dim(0), 1, trips, np.dtype(np.int64))
        self._items: list[tuple[ir.Value, bool, ir.Value]] = [(lowering.value(numbers), False, self.iteration)]
        self._reads: dict[tuple[int, int, Dim], ir.Value] = {}
        self._sources: dict[ir.Value, tuple[Tensor, Induction]] = {}
        lowering.loops.append(self)

    def abandon(self) -> None:
        """Forget the body."""
        super().abandon()
        self.lowering.loops.remove(self)

    def read(self, rows: Tensor, at: Induction) -> ir.Value | None:
        """The row that the iteration needs, as an item of the Scan; None where that does not walk row by row."""
        span = self.span(at, rows.dim(0))
        if span is None:
            return None
        value = self.lowering.value(rows)
        key = (id(value), at.scale, at.offset)
        if key not in self._reads:
            walked = self._rows(value, span, rows.dim(0))
            if self.builder.depth_of(walked) >= self.depth:  # made in a branch that the body may not take
                return None
            item = self._input("item", rows.dtype, rows.dims[1:])
            self.builder.add_input(item, self.depth)
            self._items.append((walked, at.scale < 0, item))
            self._reads[key] = item
            self._sources[item] = (rows, at)
        return self._reads[key]

    def source(self, tensor: Tensor) -> tuple[Tensor, Induction] | None:
        """The rows that the tensor is an item of, and at which index, if it is one."""
        value = tensor.values.get(Layout.PLAIN)
        return None if value is None else self._sources.get(value)

    def is_outside(self, tensor: Tensor) -> bool:
        """Whether the tensor is the same in every iteration."""
        if tensor.missing or tensor.induction is not None or tensor.tensor_list is not None:
            return False
        return all(self.builder.depth_of(value) < self.depth for value in tensor.values.values())

    def span(self, at: Induction, length: Dim) -> tuple[Dim, Dim] | None:
        """First and last (exclusive) index that the iterations reach, where they walk one by one in rows so long."""
        if at.iteration is not self.iteration or abs(at.scale) != 1:
            return None
        start = at.offset if at.scale > 0 else plus(plus(at.offset, self.trips, -1), 1)
        end = plus(start, self.trips)
        reaches = self.lowering.sizes.reaches
        return (start, end) if reaches(start, 0) and reaches(length, end) else None

    def _rows(self, value: ir.Value, span: tuple[Dim, Dim], length: Dim) -> ir.Value:
        return value if span == (self.lowering.dim(0), length) else slice_rows(self.lowering, value, *span)

    def rows_of(self, item: ir.Value, at: Induction) -> ir.Value | None:
        """The rows that items read from a stack make when they are written one by one, if this is such an item."""
        if item not in self._sources:
            return None
        rows, read = self._sources[item]
        span = self.span(read, rows.dim(0))
        assert span is not None
        value = self._rows(self.lowering.value(rows), span, rows.dim(0))
        if read.scale == at.scale:
            return value
        int64 = self.builder.int64
        return self.builder.emit("Slice", value, int64([-1]), int64([-(2**31)]), int64([0]), int64([-1]))

    def last(self, value: ir.Value, like: Tensor) -> int:
        """Keep this value of the last iteration; returns which state it is: often one that there is anyway."""
        for index, (other, _) in enumerate(self._next):
            if other is value:
                return index
        zero = np.zeros((1,) * like.rank, like.dtype)
        self.state(self.builder.emit("Expand", zero, self.lowering.shape(like.dims)), like)
        return self.set_next(value, like)

    def finish(self) -> Results:
        """Emit the Scan."""
        outputs = [self._output(value, "next_state", like.dtype, like.dims) for value, like in self._next]
        outputs += [self._output(value, "collected", like.dtype, like.dims) for value, _, like in self._collected]
        nodes = self.builder.close()
        self.lowering.loops.remove(self)
        if not outputs:
            return Results([], [])
        inputs = [*self._before, *(item for _, _, item in self._items)]
        made = self.builder.emit_many(
            "Scan",
            *self._initial,
            *(rows for rows, _, _ in self._items),
            outputs=len(outputs),
            body=ir.Graph(inputs, outputs, nodes=nodes, name=f"{self.builder.scope}/body"),
            num_scan_inputs=len(self._items),
            **_directions("scan_input_directions", [backwards for _, backwards, _ in self._items]),
            **_directions("scan_output_directions", [backwards for _, backwards, _ in self._collected]),
        )
        return self._results(made)


def _directions(name: str, backwards: Sequence[bool]) -> dict[str, Any]:
    return {name: ir.AttrInt64s(name, [int(flag) for flag in backwards])}
