"""PyTorch, eager: the same architecture with random weights, cross-entropy and Adam."""

from __future__ import annotations

from pathlib import Path

import torch

from tools.bench_cases.catalogue import MODELS
from tools.bench_cases.sides.side import LEARNING_RATE, Side, load_batch
from tools.bench_cases.torch_models import build

__all__ = ["make"]


def make(model: str, directory: Path, threads: int, variant: str) -> Side:
    """The step of the model written in torch."""
    del variant
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(threads)
    torch.manual_seed(0)
    network = build(MODELS[model]).train()
    batch = load_batch(directory)
    x, y = torch.from_numpy(batch["x"]), torch.from_numpy(batch["y"])
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2).contiguous()
    loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, eps=1e-7)

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_function(network(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return Side(step, {"torch": torch.__version__}, sum(p.numel() for p in network.parameters()))
