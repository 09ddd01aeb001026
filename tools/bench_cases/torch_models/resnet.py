"""ResNet50 as keras.applications has it: biases in every convolution, the stride in a block's first."""

from __future__ import annotations

from torch import nn

from tools.bench_cases.catalogue import Model
from tools.bench_cases.torch_models.convolutional import Residual

__all__ = ["resnet50"]

_EPSILON = 1.001e-5


def resnet50(model: Model) -> nn.Module:
    """The network."""
    layers: list[nn.Module] = [*_normalised(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            layers += [_block(channels, width, stride if index == 0 else 1, projected=index == 0), nn.ReLU()]
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, model.classes))


def _block(channels: int, width: int, stride: int, *, projected: bool) -> nn.Module:
    body = nn.Sequential(
        *_normalised(channels, width, 1, stride),
        nn.ReLU(),
        *_normalised(width, width, 3, 1),
        nn.ReLU(),
        *_normalised(width, 4 * width, 1, 1),
    )
    return Residual(body, nn.Sequential(*_normalised(channels, 4 * width, 1, stride)) if projected else None)


def _normalised(channels: int, filters: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, stride, kernel // 2)
    return [convolution, nn.BatchNorm2d(filters, eps=_EPSILON, momentum=0.01)]
