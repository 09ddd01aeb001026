"""What is compared: the models that are measured in docs/benchmarks.md, and layers and activations on tiny models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tools.bench_cases.catalogue import MODELS, Model, draw_batch
from tools.bench_cases.keras_models import build
from tools.coverage_cases.activations import activation_cases
from tools.coverage_cases.case import Case
from tools.coverage_cases.composite_layers import composite_layer_cases
from tools.coverage_cases.layers import layer_cases
from tools.oracle_cases.prepare import MODELS_GROUP

__all__ = ["CROSS_ENTROPY", "model_case", "oracle_cases"]

CROSS_ENTROPY = "sparse_categorical_crossentropy:from_logits=true"


def oracle_cases() -> list[Case]:
    """Every case whose loss onnxruntime-training has."""
    small = [*activation_cases(), *layer_cases(), *composite_layer_cases()]
    return [*map(model_case, MODELS.values()), *(case for case in small if case.loss == "mse")]


def model_case(model: Model) -> Case:
    """A model of the benchmarks as a case."""
    make: Callable[[], Any] = partial(build, model)
    inputs = {"x": lambda rng, shape: draw_batch(model)["x"]}
    return Case(MODELS_GROUP, model.name, make, CROSS_ENTROPY, inputs=inputs, batch_size=model.batch_size)
