"""The loss of connectionist temporal classification, with its gradient."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from graphfreeze.errors import UsageError
from graphfreeze.training.losses import parse_loss, sample_targets, target_spec
from tests.lowering.conversion import Argument, check, gradients


def labels(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """As many as there is time for, or fewer, with repetitions; zeros behind them."""
    return np.where(np.arange(shape[1]) < rng.integers(1, 4, (shape[0], 1)), rng.integers(1, 5, shape), 0)


def test_loss_and_gradient() -> None:
    loss = keras.losses.CTC(reduction="none")
    arguments = {"y": Argument((None, 4), "int32", labels), "x": Argument((None, 7, 5), "float32")}
    check(gradients(lambda y, x: loss(y, x)), arguments, precisions=["float32"], tolerance={"float32": 1e-5})


def test_targets() -> None:
    configured = parse_loss("ctc:labels=4").loss
    assert target_spec(configured, (None, 7, 5), "float32") == ((None, 4), "int32")
    assert target_spec(parse_loss("ctc").loss, (None, 7, 5), "float32") == ((None, 7), "int32")
    drawn = sample_targets(configured, np.random.default_rng(0), (3, 4), 5)
    assert drawn.shape == (3, 4) and (drawn[:, 0] > 0).all() and (drawn[:, -1] == 0).all()
    for text, shape in (("ctc", (None, 5)), ("ctc", (None, None, 5)), ("ctc:labels=0", (None, 7, 5))):
        with pytest.raises(UsageError, match="the loss 'ctc' needs"):
            target_spec(parse_loss(text).loss, shape, "float32")
