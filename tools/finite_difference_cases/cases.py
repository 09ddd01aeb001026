"""What is compared: losses, activations, layers, and whole models that are small enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np

from graphfreeze.training.endpoint import TRAINING_ENDPOINT
from graphfreeze.training.keras_endpoints import SERVING_ENDPOINT
from tools.bench_cases.catalogue import MODELS
from tools.coverage_cases.activations import activation_cases
from tools.coverage_cases.applications import application_cases
from tools.coverage_cases.case import Case
from tools.coverage_cases.composite_layers import composite_layer_cases
from tools.coverage_cases.layer_options import layer_option_cases
from tools.coverage_cases.layers import layer_cases
from tools.coverage_cases.losses import loss_cases
from tools.coverage_cases.quantised import quantised_cases
from tools.coverage_cases.sequence_options import sequence_option_cases
from tools.oracle_cases.cases import model_case

__all__ = ["DIRECTIONS", "INFERENCE", "MOST_DIRECTIONS", "NO_DERIVATIVE", "endpoint_of", "finite_difference_cases"]

INFERENCE = "inference mode"
"""The group of models that are differentiated as they predict: statistics are constants, nothing is drawn."""

MOST_DIRECTIONS = 4
DIRECTIONS: Mapping[str, int] = {"models": 3, INFERENCE: 1}
"""By group, along how many directions each parameter is moved where that is not `MOST_DIRECTIONS`."""

NO_DERIVATIVE = frozenset(
    f"quantised/{layer} int8{update}" for layer in ("Dense", "EinsumDense") for update in ("", " LoRA")
)
"""What has a gradient by definition that is not the derivative: Keras rounds what enters these layers to eight bits,
and passes the gradient through as if it had not."""

_MODELS = ("small", "mlp", "cnn", "lstm", "gru", "transformer", "bert_tiny")
_APPLICATIONS = ("MobileNetV2",)
_FEW = 2
"""Examples in a batch of a model whose every evaluation takes long. In inference mode they do not affect each other."""


def finite_difference_cases() -> list[Case]:
    """Every case."""
    applications = [
        replace(case, make=partial(_with_statistics, case.make), group=INFERENCE, batch_size=_FEW)
        for case in application_cases()
        if case.name in _APPLICATIONS
    ]
    return [
        *(model_case(MODELS[name]) for name in _MODELS),
        *applications,
        *loss_cases(),
        *activation_cases(),
        *layer_cases(),
        *composite_layer_cases(),
        *layer_option_cases(),
        *sequence_option_cases(),
        *quantised_cases(),
    ]


def _with_statistics(make: Callable[[], Any]) -> Any:
    """A model whose batch normalization has the statistics of some data, as after training.

    With those of a new model, signals die out on their way, and the gradients of the first layers are smaller than the
    rounding of the loss.
    """
    model = make()
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(np.random.default_rng(0).normal(size=(16, *model.input_shape[1:])).astype(np.float32), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return model


def endpoint_of(case: Case) -> str:
    """The endpoint whose loss is differentiated."""
    return SERVING_ENDPOINT if case.group == INFERENCE else TRAINING_ENDPOINT
