"""A state to start or continue from, checked against the artifact that it should belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from graphfreeze.artifact.consistency import check_state
from graphfreeze.artifact.frozen import FrozenElements
from graphfreeze.artifact.reader import Artifact
from graphfreeze.artifact.tensors import TensorFile
from graphfreeze.errors import ArtifactReadError

__all__ = ["StateSource", "read_state"]

StateSource = str | Path | Mapping[str, npt.NDArray[Any]]
"""A state file, or arrays by name in the stored layout."""


def read_state(
    artifact: Artifact, frozen: FrozenElements | None, source: StateSource
) -> Mapping[str, npt.NDArray[Any]]:
    """Read a state.

    Args:
        artifact: What the state should belong to.
        frozen: Its frozen elements, where they are known: the state must have their bits.
        source: The state.

    Raises:
        ArtifactReadError: It is missing, corrupt, or of another artifact.
    """
    values = TensorFile(Path(source)) if isinstance(source, str | Path) else source
    where = str(source) if isinstance(source, str | Path) else "The given state"
    if problems := check_state(artifact.manifest, values):
        raise ArtifactReadError(f"{where} is not a state of {artifact.directory}: {problems[0]}.")
    changed = {} if frozen is None else frozen.changed(values)
    for name, count in changed.items():
        raise ArtifactReadError(
            f"{where} is not a state of {artifact.directory}: {count} frozen elements of {name} differ from the plan."
        )
    return values
