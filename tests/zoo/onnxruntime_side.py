"""The artifact of a rewrite, trained with onnxruntime, and seen from TensorFlow."""

from __future__ import annotations

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
        assert self.trainer.frozen is not None
        self._frozen = self.trainer.frozen
        self._names = [entry.name for entry in manifest.batch]

    def step(self, inputs: Array, labels: Array) -> float:
        """Train on a batch and return its loss."""
        return self.trainer.step(self._batch(inputs, labels))

    def gradients(self, inputs: Array, labels: Array) -> tuple[float, dict[str, Array]]:
        """Loss and gradients of a batch, with nothing updated."""
        found = self.trainer.gradients(self._batch(inputs, labels))
        return found.loss, {name: self._whole_gradient(name, value) for name, value in found.gradients.items()}

    def state(self) -> dict[str, Array]:
        """Every tensor of the state by name; of parameters all slices, also those that are constants of the graphs."""
        return {
            name: self._frozen.to_tensorflow(value, self._entries[name])
            for name, value in self.trainer.state_dict().items()
        }

    def _batch(self, inputs: Array, labels: Array) -> dict[str, Array]:
        return dict(zip(self._names, (inputs, labels), strict=True))

    def _whole_gradient(self, name: str, stored: Array) -> Array:
        part = self._frozen.partly.get(name)
        return to_tensorflow(stored if part is None else part.whole_gradient(stored), self._entries[name])
