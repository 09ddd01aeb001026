"""The small CNN, and what the larger ones have in common."""

from __future__ import annotations

from torch import Tensor, nn

from tools.bench_cases.catalogue import Model

__all__ = ["Residual", "cnn", "same_padding"]


def cnn(model: Model) -> nn.Module:
    """Two convolutions with max pools, and a Dense."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 25, model.classes),
    )


class Residual(nn.Module):
    """A sum of what a body makes of its input, and the input or what a shortcut makes of it."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def same_padding(kernel: int, stride: int) -> nn.Module:
    """Keras' padding before a convolution with a stride of 2 on an even size; none with a stride of 1."""
    low, high = (kernel // 2 - 1, kernel // 2) if stride == 2 else (kernel // 2, kernel // 2)
    return nn.ZeroPad2d((low, high, low, high)) if stride == 2 else nn.Identity()
