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
from graphfreeze.artifact.tensors import TensorFile
from graphfreeze.errors import ArtifactReadError

__all__ = ["FrozenElements", "FrozenParameter", "differing_bits", "read_frozen_elements"]


@dataclass(frozen=True)
class FrozenParameter:
    """A parameter of which some elements are frozen.

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
    masked = [entry for entry in manifest.parameters if entry.frozen_elements]
    if not masked and not manifest.frozen:
        return FrozenElements({}, {})
    if not artifact.masks_path.is_file():
        return None
    tensors = TensorFile(artifact.masks_path)

    def read(kind: str, object_path: str | None) -> npt.NDArray[Any]:
        name = f"{kind}/{object_path}"
        if name not in tensors:
            raise ArtifactReadError(
                f"{artifact.masks_path} lacks {name}, which {artifact.directory / 'manifest.json'} says is frozen. "
                "Both must come from one `graphfreeze rewrite`."
            )
        return tensors[name]

    partly = {}
    for entry in masked:
        mask, value = read("mask", entry.object_path), read("value", entry.object_path)
        try:
            frozen = np.broadcast_to(~to_stored(mask.astype(np.bool_), entry), entry.stored_shape)
            value = np.broadcast_to(to_stored(value, entry), entry.stored_shape)
        except ValueError as error:
            raise ArtifactReadError(
                f"{artifact.masks_path}: the mask of {entry.name} does not fit: {error}."
            ) from error
        count = int(np.count_nonzero(frozen))
        if count != entry.frozen_elements or value.dtype.name != entry.dtype:
            raise ArtifactReadError(
                f"{artifact.masks_path} freezes {count} elements of {entry.name} at {value.dtype.name} values, "
                f"the manifest says {entry.frozen_elements} of {entry.dtype}. "
                "Both must come from one `graphfreeze rewrite`."
            )
        partly[entry.name] = FrozenParameter(entry, frozen, value)
    wholly = {entry.name: read("value", entry.object_path) for entry in manifest.frozen}
    return FrozenElements(partly, wholly)


def differing_bits(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Element by element, whether the bits differ: unlike `!=` this tells -0.0 from 0.0 and NaN is equal to itself."""
    if first.shape != second.shape or first.dtype != second.dtype:
        raise ValueError(
            f"expected equal shapes and dtypes, found {first.dtype}{first.shape}, {second.dtype}{second.shape}"
        )

    def octets(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        return np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, array.dtype.itemsize)

    different: npt.NDArray[np.bool_] = (octets(first) != octets(second)).any(axis=1).reshape(first.shape)
    return different
