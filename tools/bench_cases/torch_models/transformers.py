"""The transformer block and BERT-tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tools.bench_cases.catalogue import Model

__all__ = ["bert_tiny", "transformer"]

_WIDTH = 128


class _Encoder(nn.Module):
    """Tokens, positions, encoder layers, and logits of the first state or of the mean."""

    def __init__(self, model: Model, *, heads: int, blocks: int, bert: bool) -> None:
        super().__init__()
        assert model.vocabulary is not None
        self.tokens = nn.Embedding(model.vocabulary, _WIDTH)
        self.positions = nn.Embedding(model.shape[0], _WIDTH)
        activation = "gelu" if bert else "relu"
        self.normalise = nn.LayerNorm(_WIDTH, 1e-12) if bert else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(_WIDTH, heads, 4 * _WIDTH, 0.0, activation, 1e-5, batch_first=True)
                for _ in range(blocks)
            )
        )
        self.pooler = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Tanh()) if bert else None
        self.head = nn.Linear(_WIDTH, model.classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1])[None])
        h = self.blocks(self.normalise(h))
        logits: Tensor = self.head(h.mean(1) if self.pooler is None else self.pooler(h[:, 0]))
        return logits


def transformer(model: Model) -> nn.Module:
    """One block, with the mean over the tokens."""
    return _Encoder(model, heads=4, blocks=1, bert=False)


def bert_tiny(model: Model) -> nn.Module:
    """Two blocks, with BERT's pooler on the first token."""
    return _Encoder(model, heads=2, blocks=2, bert=True)
