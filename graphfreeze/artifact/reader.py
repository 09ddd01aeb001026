"""The files of an artifact as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt

from graphfreeze.artifact.consistency import check_manifest, check_reference, check_state
from graphfreeze.artifact.manifest import Manifest
from graphfreeze.artifact.manifest_json import from_json
from graphfreeze.artifact.tensors import TensorFile
from graphfreeze.artifact.writer import MANIFEST_FILE, REFERENCE_FILE, STATE_FILE, sha256_of_file
from graphfreeze.errors import ArtifactReadError

__all__ = ["Artifact", "read_artifact"]


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. Reading it reads the manifest; tensors are read when they are asked for.

    Attributes:
        directory: The directory of `manifest.json` (`OUT/training`).
        manifest: What it says about itself.
    """

    directory: Path
    manifest: Manifest

    @cached_property
    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """The initial state, in the stored layout.

        Raises:
            ArtifactReadError: The file is missing, corrupt, or contradicts the manifest.
        """
        state = TensorFile(self.directory / STATE_FILE)
        self._refuse(check_state(self.manifest, state))
        return state

    @cached_property
    def reference(self) -> Mapping[str, npt.NDArray[Any]]:
        """The reference batch with TensorFlow's loss and gradients.

        Raises:
            ArtifactReadError: The file is missing, corrupt, or contradicts the manifest.
        """
        reference = TensorFile(self.directory / REFERENCE_FILE)
        self._refuse(check_reference(self.manifest, reference))
        return reference

    @property
    def plan_directory(self) -> Path:
        """Where the freeze plan lies, when the artifact is still in the OUT of its rewrite."""
        return self.directory.parent / "plan"

    def graph_path(self, name: str) -> Path:
        """The ONNX file of a graph (`train_step`, `gradients`, `apply_gradients`, `forward`)."""
        return self.directory / self.manifest.graphs[name].file

    def verify_hashes(self) -> None:
        """Compare every file with the sha256 that the manifest has of it.

        Raises:
            ArtifactReadError: A file is missing or changed; the message names it.
        """
        for name, expected in self.manifest.files.items():
            path = self.directory / name
            try:
                found = sha256_of_file(path)
            except OSError as error:
                raise ArtifactReadError(
                    f"{path} is listed in {MANIFEST_FILE} and cannot be read: {error.strerror}. "
                    "Copy the whole directory, or run `graphfreeze rewrite` again."
                ) from error
            if found != expected:
                raise ArtifactReadError(
                    f"{path} is corrupt: its sha256 is {found[:16]}..., {MANIFEST_FILE} says {expected[:16]}.... "
                    "Copy the directory again, or run `graphfreeze rewrite` again."
                )

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise ArtifactReadError(
                f"The artifact {self.directory} contradicts its manifest: {problems[0]}. "
                "Run `graphfreeze rewrite` again.",
                {"problems": problems},
            )


def read_artifact(path: str | Path) -> Artifact:
    """Read the artifact in OUT, the output of a rewrite, or in OUT/training.

    Raises:
        ArtifactReadError: There is none, or its manifest is not valid.
    """
    path = Path(path)
    candidates = (path, path / "training")
    directory = next((candidate for candidate in candidates if (candidate / MANIFEST_FILE).is_file()), None)
    if directory is None:
        found = "which does not exist" if not path.exists() else "which holds no training/manifest.json"
        raise ArtifactReadError(
            f"Expected the OUT of `graphfreeze rewrite` with its training step, found {path}, {found}. "
            "Run `graphfreeze rewrite MODEL OUT ... --loss NAME` first."
        )
    try:
        text = (directory / MANIFEST_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactReadError(f"{directory / MANIFEST_FILE} cannot be read: {error}.") from error
    try:
        manifest = from_json(text)
    except ArtifactReadError as error:
        raise ArtifactReadError(f"The artifact {directory} cannot be read: {error}") from error
    artifact = Artifact(directory, manifest)
    artifact._refuse(check_manifest(manifest))
    return artifact
