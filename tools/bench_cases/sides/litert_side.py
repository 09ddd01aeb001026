"""LiteRT: the interpreter runs the converted training signature; it keeps the state."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tools.bench_cases.sides.side import CannotRunError, Side, load_batch

__all__ = ["make"]


def make(model: str, directory: Path, threads: int, variant: str) -> Side:
    """The step.

    Raises:
        CannotRunError: It could not be converted.
    """
    del model, variant
    converted = directory / "litert.tflite"
    if not converted.is_file():
        raise CannotRunError((directory / "litert.txt").read_text(encoding="utf-8"))
    train = Interpreter(str(converted), num_threads=threads).get_signature_runner("train")
    batch = {name: np.ascontiguousarray(array) for name, array in load_batch(directory).items()}
    return Side(lambda: float(train(**batch)["loss"]), {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")})
