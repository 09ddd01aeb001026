"""LSTM and GRU. PyTorch has a second bias where Keras has one (LSTM)."""

from __future__ import annotations

from torch import Tensor, nn

from tools.bench_cases.catalogue import Model

__all__ = ["gru", "lstm"]

_UNITS = 64


class _LastState(nn.Module):
    """A recurrent layer and a Dense on its last output."""

    def __init__(self, layer: nn.RNNBase, classes: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(_UNITS, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.head(self.layer(x)[0][:, -1])
        return logits


def lstm(model: Model) -> nn.Module:
    """The LSTM."""
    return _LastState(nn.LSTM(model.shape[-1], _UNITS, batch_first=True), model.classes)


def gru(model: Model) -> nn.Module:
    """The GRU."""
    return _LastState(nn.GRU(model.shape[-1], _UNITS, batch_first=True), model.classes)
