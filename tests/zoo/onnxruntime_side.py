"""The artifact of a rewrite, trained with onnxruntime, and seen from TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphfreeze import Trainer
from graphfreeze.artifact.layout import to_tensorflow
from tests.zoo.data import Array

__all__ = ["OnnxruntimeSide"]


class OnnxruntimeSide:
    """A trainer that takes batches without names, and shows tensors in TensorFlow's layouts."""

    def __init__(self, out: Path) -> None:
        self.trainer = Trainer(out, device="cpu")
        manifest = self.trainer.artifact.manifest
        self._entries = {entry.name: entry for entry in manifest.state}
        self._names = [entry.name for entry in manifest.batch]

    def step(self, inputs: Array, labels: Array) -> float:
        """Train on a batch and return its loss."""
        return self.trainer.step(self._batch(inputs, labels))

    def gradients(self, inputs: Array, labels: Array) -> tuple[float, dict[str, Array]]:
        """Loss and gradients of a batch, with nothing updated."""
        found = self.trainer.gradients(self._batch(inputs, labels))
        return found.loss, self._in_tensorflow(found.gradients)

    def state(self) -> dict[str, Array]:
        """Every tensor of the state by name."""
        return self._in_tensorflow(self.trainer.state_dict())

    def _batch(self, inputs: Array, labels: Array) -> dict[str, Array]:
        return dict(zip(self._names, (inputs, labels), strict=True))

    def _in_tensorflow(self, stored: Mapping[str, Array]) -> dict[str, Array]:
        return {name: to_tensorflow(value, self._entries[name]) for name, value in stored.items()}
