"""The models that are measured. Nothing is imported here that a peer's environment lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MODELS", "Model", "draw_batch"]


@dataclass(frozen=True)
class Model:
    """A classifier.

    Attributes:
        name: How the command line calls it.
        title: What it is.
        batch_size: Examples per step.
        shape: Of one example of the input `x`.
        classes: How many there are: the last axis of the logits.
        vocabulary: Where the input is tokens, how many there are.
        freeze: What the frozen variant freezes, as on the command line.
        target: At how many times TensorFlow's speed the training step is to run.
    """

    name: str
    title: str
    batch_size: int
    shape: tuple[int, ...]
    classes: int = 10
    vocabulary: int | None = None
    freeze: str = "**kernel*[..., ::2]"
    target: float = 1.0


_ALL = (
    Model("small", "MLP 4-16-3", 4, (4,), classes=3, target=10.0),
    Model("mlp", "MLP 784-256-128-10", 64, (784,)),
    Model("cnn", "CNN: 2 convolutions, 2 max pools, Dense; 28x28", 32, (28, 28, 1)),
    Model("resnet50", "ResNet50, 64x64", 8, (64, 64, 3)),
    Model("mobilenetv2", "MobileNetV2, 64x64", 8, (64, 64, 3)),
    Model("efficientnetb0", "EfficientNetB0, 64x64", 8, (64, 64, 3)),
    Model("lstm", "LSTM of 64 units, 50 steps", 32, (50, 16)),
    Model("gru", "GRU of 64 units, 50 steps", 32, (50, 16)),
    Model("transformer", "transformer block, width 128, 4 heads, 64 tokens of 5000", 8, (64,), vocabulary=5000),
    Model("bert_tiny", "BERT-tiny: 2 layers, width 128, 64 tokens of 30522", 8, (64,), classes=2, vocabulary=30522),
)

MODELS: Mapping[str, Model] = {model.name: model for model in _ALL}


def draw_batch(model: Model) -> dict[str, npt.NDArray[np.generic]]:
    """A batch with the same numbers each time: `x` and the class numbers `y`."""
    random = np.random.default_rng(0)
    shape = (model.batch_size, *model.shape)
    if model.vocabulary is None:
        x: npt.NDArray[np.generic] = random.random(shape, dtype=np.float32)
    else:
        x = random.integers(0, model.vocabulary, shape, dtype=np.int32)
    return {"x": x, "y": random.integers(0, model.classes, model.batch_size, dtype=np.int64)}
