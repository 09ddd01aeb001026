"""The frozen elements of an artifact, from the plan beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.layout import to_stored
from graphfreeze.artifact.manifest import StateEntry
from graphfreeze.artifact.reader import Artifact
from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection.plan import FrozenVariable
from graphfreeze.selection.plan_files import load_plan

__all__ = ["FrozenElements", "FrozenParameter", "differing_bits", "read_frozen_elements"]


@dataclass(frozen=True)
class FrozenParameter:
    """A parameter (or a model state) of which some elements are frozen.

    Attributes:
        entry: The parameter.
        frozen: bool, True = frozen, in the stored layout and shape (a read-only view).
        value: In the stored layout: the frozen values where `frozen`.
    """

    entry: StateEntry
    frozen: npt.NDArray[np.bool_]
    value: npt.NDArray[Any]

    def changed(self, stored: npt.NDArray[Any]) -> int:
        """How many frozen elements of the parameter's tensor no longer have the bits they were frozen at."""
        return int(np.count_nonzero(differing_bits(stored, self.value) & self.frozen))


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
        """How many elements of the state are frozen (those of constants cannot change)."""
        return sum(int(np.count_nonzero(parameter.frozen)) for parameter in self.partly.values())

    def changed(self, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, int]:
        """Per parameter, how many frozen elements lost their bits; parameters that kept all are left out."""
        counts = {name: parameter.changed(state[name]) for name, parameter in self.partly.items()}
        return {name: count for name, count in counts.items() if count}


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
        frozen = np.broadcast_to(to_stored(~variable.mask, entry), entry.stored_shape)
        partly[entry.name] = FrozenParameter(entry, frozen, to_stored(variable.value, entry))
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
