"""Every optimizer of Keras 3, and those of tf_keras: all slots with an element for an element are held."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import pytest
import tf_keras

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.training.optimizers import OPTIMIZERS

from .test_updates import current_plan
from .training_models import Trained, _keras_3_variables, _tf_keras, save

TF_KERAS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion", "Adafactor")
LEGACY = ("SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl")


def _keras_3(name: str) -> Trained:
    return _keras_3_variables(getattr(keras.optimizers, name)(0.1))


def _of(module: Any, name: str) -> Trained:
    return _tf_keras(getattr(module, name)(0.1))


MAKE: dict[str, Callable[[], Trained]] = {
    **{f"Keras 3 {name}": partial(_keras_3, name) for name in OPTIMIZERS.values()},
    **{f"tf_keras {name}": partial(_of, tf_keras.optimizers, name) for name in TF_KERAS},
    **{f"legacy {name}": partial(_of, tf_keras.optimizers.legacy, name) for name in LEGACY},
}


@pytest.mark.parametrize("name", MAKE)
def test_its_slots_are_held(name: str, tmp_path: Path) -> None:
    save(MAKE[name](), tmp_path / "in")
    model = SavedModel.load(tmp_path / "in")
    plan = current_plan(model)
    rewritten = freeze_reads(model, plan)
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    held = {update.object_path for update in rewritten.updates}
    shapes = {frozen.variable.shape for frozen in plan.variables}
    left = [v for v in model.variables if v.shape in shapes and v.object_path not in held]
    # Adafactor's means over the rows of the matrix have the shape of the bias, and no element for one of its elements.
    assert [v.shape for v in left] == ([(2,)] if "Adafactor" in name else [])
