"""What reads a variable whole gets it put together; what gathers from it gathers from its two parts.

The state of a variable whose frozen elements are whole slices is its trained slices alone. The frozen ones are a
constant of the graph. A lookup finds for each index where the row is kept, and takes it from there: nothing that a step
computes is as large as the table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.selection.slices import TrainedSlices
from graphfreeze.training.graph import Edge, Operation
from graphfreeze.training.insertions import Insertions, Place, constant_of

__all__ = ["SlicedVariable"]

_MOST_RUNS = 8
"""Up to so many blocks of slices are put one after the other; more are gathered in one go."""


class SlicedVariable:
    """A variable of the functional graph, kept as its trained slices.

    Args:
        name: The input's name.
        whole: The input, of the variable's own shape; something else must take its place in every operation.
        slices: Which slices train.
        frozen_value: The variable's value where it is frozen; whatever stands elsewhere is not read.
        insertions: Where new operations go.

    Attributes:
        state: The input that replaces it.
        positions: Where each slice is kept.
        put_together: The whole variable, once something has read it.
    """

    def __init__(
        self,
        name: str,
        whole: Edge,
        slices: TrainedSlices,
        frozen_value: npt.NDArray[np.generic],
        insertions: Insertions,
    ) -> None:
        assert whole.shape is not None
        self.name = name
        self.whole = whole
        self.slices = slices
        self.shape: tuple[int, ...] = tuple(size or 0 for size in whole.shape)
        self.state = Edge(whole.name, whole.dtype, slices.shape(self.shape))
        self._value = frozen_value
        self.positions = Positions(name, slices, insertions)
        self.put_together: Edge | None = None
        self._insertions = insertions
        self._tables: dict[str, Edge] = {}

    # -- reading

    def replace(self, operation: Operation) -> Edge | None:
        """What may stand for an operation whose first input is the variable; None where it is to read the whole."""
        if operation.type != "GatherV2":
            return None
        axis = constant_of(operation.inputs[2])
        batch = operation.attributes.get("batch_dims")
        indices = operation.inputs[1]
        if axis is None or int(axis) < 0 or (batch is not None and batch.i) or indices.shape is None:
            return None
        place = self._insertions.before(operation)
        if int(axis) == self.slices.axis:
            return self._look_up(operation, indices, place)
        parts = [place.gather(part, indices, int(axis), operation.name) for part in self._parts()]
        along = self.slices.axis + (len(indices.shape) - 1 if int(axis) < self.slices.axis else 0)
        return self._join(parts[0], parts[1:], along, place, operation.name)

    def read(self) -> Edge:
        """The whole variable, put together before everything else in the graph."""
        if self.put_together is None:
            place = self._insertions.first()
            state, *frozen = self._parts()
            axis, name = self.slices.axis, f"{self.name}/whole"
            if axis == 0 and len(self.slices.runs) > _MOST_RUNS and len(self.shape) < 4:
                rows = place.constant(self.slices.indices.astype(np.int32)[:, None], name)
                inputs, types = [self.table(), rows, state], {"T": self.whole.dtype, "Tindices": tf.int32}
                self.put_together = place.emit("TensorScatterUpdate", name, inputs, self.shape, **types)
            else:
                self.put_together = self._join(state, frozen, axis, place, name)
        return self.put_together

    def _look_up(self, operation: Operation, indices: Edge, place: Place) -> Edge:
        name, axis = operation.name, self.slices.axis
        position = self.positions.of(indices)
        # A slice that is not in the state is taken from the table; what is gathered for it meanwhile does not matter.
        last = place.constant(np.int32(len(self.slices) - 1), name)
        near = place.emit("Minimum", name, [position, last], indices.shape, T=tf.int32)
        picked = place.gather(self.state, near, axis, name)
        fixed = place.gather(self.table(), indices, axis, name)
        trains = place.emit("LessEqual", name, [position, last], indices.shape, T=tf.int32)
        for _ in range(len(self.shape) - axis - 1):
            end = place.constant(np.int32(-1), name)
            shape = (*(trains.shape or ()), 1)
            trains = place.emit("ExpandDims", name, [trains, end], shape, T=tf.bool, Tdim=tf.int32)
        return place.emit("SelectV2", name, [trains, picked, fixed], picked.shape, T=self.whole.dtype)

    def converted(self, operation: Operation) -> SlicedVariable:
        """The variable in another dtype: what a Cast makes of it, in two parts as well."""
        whole = Edge(operation.name, operation.outputs[0].dtype, self.shape)
        value = self._value.astype(whole.dtype.as_numpy_dtype)
        made = SlicedVariable(self.name, whole, self.slices, value, self._insertions)
        made.state = self._insertions.first().again(operation, [self.state], self.state.shape)
        made.positions = self.positions
        return made

    # -- the constant part

    def table(self) -> Edge:
        """A constant of the variable's shape with the frozen values."""
        if "table" not in self._tables:
            self._tables["table"] = self._insertions.first().constant(self._value, f"{self.name}/frozen")
        return self._tables["table"]

    def _parts(self) -> list[Edge]:
        """The state, then the frozen slices: each block by itself, or all of them where they are too many."""
        place, axis = self._insertions.first(), self.slices.axis
        runs = self.slices.runs
        if len(runs) > _MOST_RUNS:
            chosen = [self.slices.frozen]
        else:
            chosen = [np.arange(start, stop) for trains, start, stop in runs if not trains]
        for number, indices in enumerate(chosen):
            if f"part {number}" not in self._tables:
                part = np.take(self._value, indices, axis=axis)
                self._tables[f"part {number}"] = place.constant(part, f"{self.name}/frozen")
        return [self.state, *(self._tables[f"part {number}"] for number in range(len(chosen)))]

    def _join(self, trained: Edge, frozen: list[Edge], axis: int, place: Place, name: str) -> Edge:
        """Slices of both kinds in their order along an axis."""
        shape = trained.shape
        whole = None if shape is None else (*shape[:axis], self.slices.size, *shape[axis + 1 :])
        runs = self.slices.runs
        if len(runs) > _MOST_RUNS:
            order = np.argsort(np.concatenate([self.slices.indices, self.slices.frozen])).astype(np.int32)
            parts, rank = [trained, *frozen], len(shape or ())
            # Numbers are gathered one by one, rows by the row. Filters have their last axis first already.
            turned = axis == rank - 1 and 1 < rank < 4
            if turned:
                parts = [place.transpose(part, [axis, *range(axis)], name) for part in parts]
            at = 0 if turned else axis
            mixed = place.gather(place.concat(parts, at, None, name), place.constant(order, name), at, name)
            result = place.transpose(mixed, [*range(1, rank), 0], name) if turned else mixed
            result.shape = whole
            return result
        blocks = iter(place.split(trained, [stop - start for trains, start, stop in runs if trains], axis, name))
        constants = iter(frozen)
        return place.concat([next(blocks if trains else constants) for trains, _, _ in runs], axis, whole, name)


class Positions:
    """Looks up where slices are kept.

    Args:
        name: The variable's name.
        slices: Which slices train.
        insertions: Where new operations go.
    """

    def __init__(self, name: str, slices: TrainedSlices, insertions: Insertions) -> None:
        self._name = f"{name}/position"
        self._slices = slices
        self._insertions = insertions
        self._table: Edge | None = None
        self._found: dict[int, Edge] = {}

    def of(self, indices: Edge) -> Edge:
        """For each index the slice's number among the trained ones, or how many these are (int32)."""
        key = id(indices)
        if key not in self._found:
            if self._table is None:
                places = np.full(self._slices.size, len(self._slices), np.int32)
                places[self._slices.indices] = np.arange(len(self._slices))
                self._table = self._insertions.first().constant(places, self._name)
            producer = indices.producer
            place = self._insertions.first() if producer is None else self._insertions.behind(producer)
            self._found[key] = place.gather(self._table, indices, 0, self._name)
        return self._found[key]
