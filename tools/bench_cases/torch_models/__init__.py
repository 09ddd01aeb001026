"""The models, built in PyTorch as Keras builds them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from tools.bench_cases.catalogue import Model
from tools.bench_cases.torch_models.convolutional import cnn
from tools.bench_cases.torch_models.efficientnet import efficientnet_b0
from tools.bench_cases.torch_models.mobilenet import mobilenet_v2
from tools.bench_cases.torch_models.recurrent import gru, lstm
from tools.bench_cases.torch_models.resnet import resnet50
from tools.bench_cases.torch_models.transformers import bert_tiny, transformer

__all__ = ["build"]


def build(model: Model) -> nn.Module:
    """The model with torch's own initial weights. Its output is logits, its images are channels-first."""
    return _BUILDERS[model.name](model)


def _mlp(*units: int) -> Callable[[Model], nn.Module]:
    def make(model: Model) -> nn.Module:
        widths = [model.shape[0], *units]
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(widths[-1], model.classes))

    return make


_BUILDERS: dict[str, Callable[[Model], nn.Module]] = {
    "small": _mlp(16),
    "mlp": _mlp(256, 128),
    "cnn": cnn,
    "resnet50": resnet50,
    "mobilenetv2": mobilenet_v2,
    "efficientnetb0": efficientnet_b0,
    "lstm": lstm,
    "gru": gru,
    "transformer": transformer,
    "bert_tiny": bert_tiny,
}
