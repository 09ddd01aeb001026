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
        self._insertions = insertions
        self.put_together: Edge | None = None
        self._tables: dict[str, Edge] = {}
        self._positions: dict[int, Edge] = {}

    # -- reading

    def replace(self, operation: Operation) -> Edge | None:
        """What an operation that reads the variable may be replaced by; None where it is to read the whole."""
        if operation.type != "GatherV2" or operation.inputs[0] is not self.whole:
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
        position = self.position(indices)
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

    def position(self, indices: Edge) -> Edge:
        """Where each of these slices is kept: its number among the trained ones, or how many these are."""
        key = id(indices)
        if key not in self._positions:
            producer = indices.producer
            place = self._insertions.first() if producer is None else self._insertions.behind(producer)
            name = f"{self.name}/position"
            if "position" not in self._tables:
                places = np.full(self.slices.size, len(self.slices), np.int32)
                places[self.slices.indices] = np.arange(len(self.slices))
                self._tables["position"] = self._insertions.first().constant(places, name)
            self._positions[key] = place.gather(self._tables["position"], indices, 0, name)
        return self._positions[key]

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
            mixed = place.concat([trained, *frozen], axis, whole, name)
            return place.gather(mixed, place.constant(order, name), axis, name)
        blocks = iter(place.split(trained, [stop - start for trains, start, stop in runs if trains], axis, name))
        constants = iter(frozen)
        return place.concat([next(blocks if trains else constants) for trains, _, _ in runs], axis, whole, name)
