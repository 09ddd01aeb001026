"""EfficientNetB0 as keras.applications has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tools.bench_cases.catalogue import Model
from tools.bench_cases.torch_models.convolutional import Residual, same_padding

__all__ = ["efficientnet_b0"]

# Kernel, blocks, filters, factor of expansion, stride of the first.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
_DROP_CONNECT = 0.2


def efficientnet_b0(model: Model) -> nn.Module:
    """The network."""
    layers = [_Normalised(), *_convolution(3, 32, 3, stride=2), nn.SiLU()]
    channels, number, total = 32, 0, sum(stage[1] for stage in _STAGES)
    for kernel, blocks, filters, factor, first_stride in _STAGES:
        for index in range(blocks):
            stride = first_stride if index == 0 else 1
            layers.append(_block(channels, factor, filters, kernel, stride, _DROP_CONNECT * number / total))
            channels, number = filters, number + 1
    layers += [*_convolution(channels, 1280, 1), nn.SiLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, model.classes)]
    return nn.Sequential(*layers, *head)


class _Normalised(nn.Module):
    """Rescaling and normalisation, which are part of the Keras model."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("deviation", torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised images."""
        return (x / 255.0 - self.mean) / self.deviation


class _SqueezeExcite(nn.Module):
    """Weighs the channels."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        layers = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, width, 1))
        self.weights = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """The weighted channels."""
        out: Tensor = x * self.weights(x)
        return out


class _DropExamples(nn.Module):
    """Dropout of whole examples."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The examples, some of them zero."""
        kept = torch.rand(x.shape[0], 1, 1, 1) >= self.rate
        return x * kept / (1.0 - self.rate)


def _block(channels: int, factor: int, filters: int, kernel: int, stride: int, rate: float) -> nn.Module:
    width = channels * factor
    expansion = [*_convolution(channels, width, 1), nn.SiLU()] if factor > 1 else []
    depthwise = [*_convolution(width, width, kernel, stride=stride, groups=width), nn.SiLU()]
    excite = _SqueezeExcite(width, max(1, channels // 4))
    body = [*expansion, *depthwise, excite, *_convolution(width, filters, 1)]
    if stride == 1 and channels == filters:
        return Residual(nn.Sequential(*body, _DropExamples(rate)) if rate else nn.Sequential(*body))
    return nn.Sequential(*body)


def _convolution(channels: int, filters: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2 if stride == 1 else 0
    convolution = nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups, bias=False)
    return [same_padding(kernel, stride), convolution, nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)]
