"""MobileNetV2 as keras.applications has it."""

from __future__ import annotations

from torch import nn

from tools.bench_cases.catalogue import Model
from tools.bench_cases.torch_models.convolutional import Residual, same_padding

__all__ = ["mobilenet_v2"]

# Factor of expansion, filters, blocks, stride of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(model: Model) -> nn.Module:
    """The network."""
    layers = [*_convolution(3, 32, 3, stride=2), nn.ReLU6()]
    channels = 32
    for factor, filters, blocks, first_stride in _STAGES:
        for index in range(blocks):
            layers.append(_block(channels, factor, filters, first_stride if index == 0 else 1))
            channels = filters
    layers += [*_convolution(channels, 1280, 1), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, model.classes))


def _block(channels: int, factor: int, filters: int, stride: int) -> nn.Module:
    width = channels * factor
    expansion = [*_convolution(channels, width, 1), nn.ReLU6()] if factor > 1 else []
    depthwise = [*_convolution(width, width, 3, stride=stride, groups=width), nn.ReLU6()]
    body = nn.Sequential(*expansion, *depthwise, *_convolution(width, filters, 1))
    return Residual(body) if stride == 1 and channels == filters else body


def _convolution(channels: int, filters: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups, bias=False)
    return [same_padding(kernel, stride), convolution, nn.BatchNorm2d(filters, eps=1e-3, momentum=0.001)]
