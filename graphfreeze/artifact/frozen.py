"""The frozen elements of an artifact, from the plan beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.layout import contiguous, to_stored, to_tensorflow
from graphfreeze.artifact.manifest import StateEntry
from graphfreeze.artifact.reader import Artifact
from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection.plan import FrozenVariable
from graphfreeze.selection.plan_files import load_plan
from graphfreeze.selection.slices import TrainedSlices, trained_along

__all__ = ["FrozenElements", "FrozenParameter", "differing_bits", "read_frozen_elements"]


@dataclass(frozen=True)
class FrozenParameter:
    """A parameter (or a model state) of which some elements are frozen.

    Attributes:
        entry: The parameter.
        frozen: bool, True = frozen, in the stored order of the axes, all slices included (a read-only view).
        value: In the same order and shape: the frozen values where `frozen`.
        slices: The slices that are stored, where not all are.
    """

    entry: StateEntry
    frozen: npt.NDArray[np.bool_]
    value: npt.NDArray[Any]
    slices: TrainedSlices | None = None

    @property
    def stored_frozen(self) -> npt.NDArray[np.bool_]:
        """`frozen` for the elements that are stored."""
        return self.cut(self.frozen)

    def changed(self, stored: npt.NDArray[Any]) -> int:
        """How many frozen elements of the parameter's tensor no longer have the bits they were frozen at."""
        return int(np.count_nonzero(differing_bits(stored, self.cut(self.value)) & self.stored_frozen))

    def cut(self, whole: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What is stored of an array that has all slices, in the stored order of the axes."""
        return whole if self.slices is None else self.slices.cut(whole, self._axis)

    def whole(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The parameter with all its slices, in the stored order of the axes."""
        return stored if self.slices is None else self.slices.put(stored, self.value, self._axis)

    def whole_gradient(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Its gradient with all slices: those that are not stored have none, which is a gradient of zero."""
        if self.slices is None:
            return stored
        return self.slices.put(stored, np.zeros(self.entry.whole_stored_shape, stored.dtype), self._axis)

    @property
    def _axis(self) -> int | None:
        if self.slices is None or self.entry.permutation is None:
            return None
        return self.entry.permutation.index(self.slices.axis)


@dataclass(frozen=True)
class FrozenElements:
    """All that is frozen.

    Attributes:
        partly: The parameters of which some elements are frozen, by name.
        wholly: The values of the variables that are frozen as a whole, by name, in TensorFlow's layout.
    """

    partly: Mapping[str, FrozenParameter]
    wholly: Mapping[str, npt.NDArray[Any]]

    @property
    def elements(self) -> int:
        """How many elements of these parameters are frozen, in the state or in the graphs."""
        return sum(int(np.count_nonzero(parameter.frozen)) for parameter in self.partly.values())

    def changed(self, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
        """Per parameter, how many frozen elements lost their bits; parameters that kept all are left out."""
        counts = {name: parameter.changed(state[name]) for name, parameter in self.partly.items()}
        return {name: count for name, count in counts.items() if count}

    def to_tensorflow(self, stored: npt.NDArray[Any], entry: StateEntry) -> npt.NDArray[Any]:
        """A stored parameter or model state as TensorFlow has it: all its slices, in TensorFlow's layout."""
        parameter = self.partly.get(entry.name)
        return to_tensorflow(stored if parameter is None else parameter.whole(stored), entry)

    def to_stored(self, value: npt.NDArray[Any], entry: StateEntry) -> npt.NDArray[Any]:
        """Undo `to_tensorflow`: what the state holds of a value in TensorFlow's layout."""
        parameter = self.partly.get(entry.name)
        stored = to_stored(value, entry)
        return stored if parameter is None else contiguous(parameter.cut(stored))


def read_frozen_elements(artifact: Artifact) -> FrozenElements | None:
    """Read masks and frozen values from OUT/plan; None where the artifact was taken out of its OUT.

    An artifact in which nothing is frozen needs no plan.

    Raises:
        ArtifactReadError: The plan is corrupt, or says something else than the manifest.
    """
    manifest = artifact.manifest
    masked = [entry for entry in manifest.state if entry.frozen_elements]
    if not masked and not manifest.frozen:
        return FrozenElements({}, {})
    if not artifact.plan_directory.is_dir():
        return None
    plan = load_plan(artifact.plan_directory)

    def find(name: str, object_path: str | None) -> FrozenVariable:
        found = plan.find(object_path or "")
        if found is None:
            raise _contradiction(artifact, f"{name} is frozen in the manifest and not in the plan")
        return found

    partly = {}
    for entry in masked:
        variable = find(entry.name, entry.object_path)
        if (variable.variable.shape, variable.variable.dtype) != (entry.shape, entry.dtype):
            raise _contradiction(artifact, f"{entry.name} has another shape or dtype in the plan")
        if variable.frozen_elements != entry.frozen_elements:
            raise _contradiction(
                artifact,
                f"{entry.name} has {variable.frozen_elements} frozen elements in the plan, {entry.frozen_elements} in "
                "the manifest",
            )
        mask, described = variable.mask, entry.trained_slices
        slices = None if described is None else trained_along(mask, described.axis)
        if described is not None and (slices is None or len(slices) != described.count):
            raise _contradiction(artifact, f"other slices of {entry.name} train in the plan")
        frozen = np.broadcast_to(to_stored(~mask, entry), entry.whole_stored_shape)
        partly[entry.name] = FrozenParameter(entry, frozen, to_stored(variable.value, entry), slices)
    wholly = {entry.name: find(entry.name, entry.object_path).value for entry in manifest.frozen}
    return FrozenElements(partly, wholly)


def _contradiction(artifact: Artifact, what: str) -> ArtifactReadError:
    return ArtifactReadError(
        f"{artifact.plan_directory} does not belong to {artifact.directory}: {what}. "
        "Both must come from one `graphfreeze rewrite`."
    )


def differing_bits(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Element by element, whether the bits differ: unlike `!=` this tells -0.0 from 0.0 and NaN is equal to itself."""
    if first.shape != second.shape or first.dtype != second.dtype:
        raise ValueError(
            f"expected equal shapes and dtypes, found {first.dtype}{first.shape}, {second.dtype}{second.shape}"
        )

    unsigned = np.dtype(f"u{first.dtype.itemsize}") if first.dtype.itemsize in (1, 2, 4, 8) else None
    if unsigned is None:  # complex128: its two halves
        halves = (np.ascontiguousarray(array).view(np.uint64).reshape(*array.shape, -1) for array in (first, second))
        return np.asarray(np.any(np.not_equal(*halves), axis=-1))
    # ascontiguousarray makes rank 0 rank 1, hence the last reshape.
    bits = (np.ascontiguousarray(array).view(unsigned) for array in (first, second))
    return np.asarray(np.not_equal(*bits)).reshape(first.shape)
