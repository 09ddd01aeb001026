"""What is compared: losses, activations, layers, and whole models that are small enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
    applications = [case for case in application_cases() if case.name in _APPLICATIONS]
    return [
        *(model_case(MODELS[name]) for name in _MODELS),
        *(replace(case, group=INFERENCE, batch_size=_FEW) for case in applications),
        *loss_cases(),
        *activation_cases(),
        *layer_cases(),
        *composite_layer_cases(),
        *layer_option_cases(),
        *sequence_option_cases(),
        *quantised_cases(),
    ]


def endpoint_of(case: Case) -> str:
    """The endpoint whose loss is differentiated."""
    return SERVING_ENDPOINT if case.group == INFERENCE else TRAINING_ENDPOINT
