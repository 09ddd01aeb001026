"""Models are exported once a session, and rewritten, traced or lowered once for each way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import FreezePlan, Selection, resolve_plan
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.losses import parse_loss
from graphfreeze.training.trace import trace_step
from graphfreeze.training.traced_step import TracedStep

from .models import MODELS, Sample

__all__ = ["Exported"]


@dataclass
class Exported:
    """An exported model.

    Attributes:
        sample: How it was made.
        path: Its SavedModel.
        scratch: Makes a new directory.
    """

    sample: Sample
    path: Path
    scratch: Callable[[], Path]

    @cached_property
    def model(self) -> SavedModel:
        return SavedModel.load(self.path)

    def plan(self, *selectors: str) -> FreezePlan:
        """The plan that freezes these selectors, or else those of the sample."""
        chosen = [Selection("freeze", text) for text in selectors or (self.sample.selector,)]
        return resolve_plan(chosen, self.model, form="auto", only_in=())

    def rewrite(self, plan: FreezePlan) -> Path:
        """The SavedModel rewritten by a plan."""
        path = self.scratch() / "rewritten"
        write(freeze_reads(self.model, plan), path)
        return path

    def trace(self, optimizer: str = "adam:learning_rate=0.01") -> TracedStep:
        """The training step of the model rewritten by its own plan."""
        plan = self.plan()
        return trace_step(
            self.rewrite(plan),
            self.model.variables,
            plan,
            losses=[parse_loss(self.sample.loss)],
            optimizers=parse_optimizers(optimizer),
            endpoint=self.sample.endpoint,
        )

    def batch(self, size: int = 8) -> dict[str, npt.NDArray[Any]]:
        """A batch of random numbers, with classes below 3."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(size, *self.sample.input_shape)).astype(np.float32)
        return {"x": x, "y": rng.integers(0, 3, size)}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Model name -> the exported model. Not to be changed."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            path = MODELS[name].export(tmp_path_factory.mktemp(name) / "model")
            made[name] = Exported(MODELS[name], path, lambda: tmp_path_factory.mktemp(f"{name}_rewritten"))
        return made[name]

    return get
