"""The models of the zoo: how each is built, what of it is frozen, and the data that it takes."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.zoo import architectures
from tests.zoo.data import Array, Inputs, images, vectors, words

__all__ = ["ADAMW", "LOSS", "ZOO", "ZooModel"]

LOSS = "sparse_categorical_crossentropy:from_logits=true"
SGD = "sgd:learning_rate=0.01,momentum=0.9,global_clipnorm=1.0"
ADAM = "adam:learning_rate=0.001"
ADAMW = "adamw:learning_rate=0.001,weight_decay=0.01"


@dataclass(frozen=True)
class ZooModel:
    """A model, what is frozen of it, and how it trains.

    Attributes:
        build: Makes the Keras model.
        freeze: For each selector the names that it matches, as a pattern of `fnmatch`, and which elements of a value it
            names: what the selector means, said a second time by other means.
        inputs: Makes an input batch of a size.
        classes: How many scores the model returns.
        optimizers: The optimizers to train with, as on the command line; the first is that of the artifact.
        training_mode: Whether it is the endpoint `train`, with layers in training mode, that trains.
        prepare: Changes the model before it is exported.
    """

    build: Callable[[], Any]
    freeze: Mapping[str, tuple[str, Callable[[Array], Array]]]
    inputs: Inputs
    classes: int
    optimizers: tuple[str, ...] = (ADAMW, ADAM, SGD)
    training_mode: bool = False
    prepare: Callable[[Any], None] = field(default=lambda model: None)

    @property
    def endpoint(self) -> str:
        return "train" if self.training_mode else "serve"

    def export(self, path: Path) -> None:
        """Export it as its author would."""
        keras.utils.set_random_seed(0)
        model = self.build()
        self.prepare(model)
        if not self.training_mode:
            model.export(path, verbose=False)
            return
        archive = keras.export.ExportArchive()
        archive.track(model)
        spec = [tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype, name=model.inputs[0].name)]
        archive.add_endpoint("serve", lambda x: model(x, training=False), spec)
        archive.add_endpoint("train", lambda x: model(x, training=True), spec)
        archive.write_out(str(path), verbose=False)

    def batch(self, size: int, seed: int = 0) -> tuple[Array, Array]:
        """Inputs and labels."""
        random = np.random.default_rng(seed)
        return self.inputs(random, size), random.integers(0, self.classes, size)

    def frozen_elements(self, name: str, value: Array) -> Array:
        """Which elements of the variable of that name and value are frozen."""
        frozen = np.zeros(value.shape, np.bool_)
        for pattern, elements in self.freeze.values():
            if fnmatch.fnmatchcase(name, pattern):
                frozen |= elements(value)
        return frozen


def _whole(value: Array) -> Array:
    return np.ones(value.shape, np.bool_)


def _first_outputs(count: int) -> Callable[[Array], Array]:
    return lambda value: np.broadcast_to(np.arange(value.shape[-1]) < count, value.shape)


def _first_input(value: Array) -> Array:
    return np.broadcast_to(np.arange(value.shape[-2])[:, None] == 0, value.shape)


def _tap(row: int, column: int) -> Callable[[Array], Array]:
    def elements(value: Array) -> Array:
        frozen = np.zeros(value.shape, np.bool_)
        frozen[row, column] = True
        return frozen

    return elements


def _negative(value: Array) -> Array:
    return np.asarray(value < 0)


def _rows(*rows: int) -> Callable[[Array], Array]:
    return lambda value: np.broadcast_to(
        np.isin(np.arange(len(value)), rows).reshape(-1, *[1] * (value.ndim - 1)), value.shape
    )


def _zeros(value: Array) -> Array:
    return np.asarray(value == 0)


ZOO: dict[str, ZooModel] = {
    "mobilenet_v2": ZooModel(
        architectures.application("MobileNetV2", alpha=0.35),
        {
            "Conv1/kernel[..., 0:8]": ("Conv1/kernel", _first_outputs(8)),
            "block_*_depthwise/kernel[0, 1]": ("block_*_depthwise/kernel", _tap(0, 1)),
            "block_?_project/kernel": ("block_?_project/kernel", _whole),
        },
        images(64, 64),
        10,
        prepare=architectures.fit_statistics,
    ),
    "resnet50": ZooModel(
        architectures.application("ResNet50"),
        {
            "conv1_conv/kernel[..., 0:16]": ("conv1_conv/kernel", _first_outputs(16)),
            "conv?_block1_*_conv/kernel": ("conv?_block1_*_conv/kernel", _whole),
            "conv5_block3_?_conv/kernel where w < 0": ("conv5_block3_?_conv/kernel", _negative),
        },
        images(64, 64),
        10,
        prepare=architectures.weaken_branches,
    ),
    "efficientnet_b0": ZooModel(
        architectures.application("EfficientNetB0"),
        {
            "stem_conv/kernel[:, :, 0]": ("stem_conv/kernel", _first_input),
            "block??_se_reduce/kernel": ("block??_se_reduce/kernel", _whole),
            "block??_expand_conv/kernel where abs(w) < 0.05": (
                "block??_expand_conv/kernel",
                lambda w: np.abs(w) < 0.05,
            ),
        },
        images(64, 64, scale=255.0),
        10,
        prepare=architectures.fit_statistics,
    ),
    "lstm": ZooModel(
        architectures.text_classifier(keras.layers.LSTM, mask_zero=False),
        {"**/lstm_cell/kernel": ("*/lstm_cell/kernel", _whole)},
        words(100, 12),
        4,
    ),
    "gru": ZooModel(
        architectures.text_classifier(keras.layers.GRU, mask_zero=True),
        {"**/gru_cell/kernel": ("*/gru_cell/kernel", _whole)},
        words(100, 12),
        4,
    ),
    "transformer": ZooModel(
        architectures.transformer,
        {"**/words/embeddings[[0, 3, 17]]": ("words/embeddings", _rows(0, 3, 17))},
        words(50, 10),
        4,
    ),
    "pruned": ZooModel(
        architectures.dense,
        {"** where w == 0": ("*", _zeros)},
        vectors(20),
        4,
        prepare=architectures.prune,
    ),
    "sequences": ZooModel(
        architectures.sequences,
        {
            "both_ways/**/kernel where w < 0": ("both_ways/*/kernel", _negative),
            "simple/**/recurrent_kernel": ("simple/*/recurrent_kernel", _whole),
            "gru_both_ways/forward_gru/gru_cell/bias": ("gru_both_ways/forward_gru/gru_cell/bias", _whole),
            "valid_*/kernel[..., 0:2]": ("valid_*/kernel", _first_outputs(2)),
            "separable/*_kernel[0]": ("separable/*_kernel", _rows(0)),
        },
        words(40, 12),
        4,
    ),
    "convolutions": ZooModel(
        architectures.convolutions,
        {
            "*/kernel where w < 0": ("*/kernel", _negative),
            "*/depthwise_kernel[0, 1]": ("*/depthwise_kernel", _tap(0, 1)),
            "separable_same/pointwise_kernel": ("separable_same/pointwise_kernel", _whole),
        },
        images(11, 9, 4),
        4,
    ),
    "training_mode": ZooModel(
        architectures.training_mode,
        {
            "net/conv/kernel[..., 0:3]": ("net/conv/kernel", _first_outputs(3)),
            "net/norm/*": ("net/norm/[bg]*", _whole),
            "net/norm_2/gamma[0:2]": ("net/norm_2/gamma", _first_outputs(2)),
        },
        images(12, 12),
        4,
        training_mode=True,
    ),
}
