"""Steps that compute in float16 or bfloat16 inside of float32: right ones are accepted, wrong ones are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import graphfreeze
from graphfreeze.artifact import read_artifact
from graphfreeze.artifact.frozen import read_frozen_elements
from graphfreeze.artifact.layout import to_tensorflow
from graphfreeze.checks.float64 import check_step_in_float64
from graphfreeze.checks.reference import compute_reference, run_gradients
from graphfreeze.errors import ValidationError
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.validation.gradients import compare_gradients
from graphfreeze.validation.tolerance import compare, scale_of

from .conftest import Exported
from .functional import replace_rule, scaled

PRECISIONS = ("float16", "bfloat16")
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Rewritten:
    """A model, what rewriting it with all checks gives, and the gradients of the artifact for its reference batch."""

    precision: str
    model: Exported
    out: Path
    batch: Arrays
    gradients: Arrays


@pytest.fixture(scope="module", params=PRECISIONS)
def rewritten(
    request: pytest.FixtureRequest, exported: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Rewritten:
    model = exported(f"mixed_{request.param}")
    out = tmp_path_factory.mktemp(request.param) / "out"
    selection = graphfreeze.Selection("freeze", model.sample.selector)
    graphfreeze.rewrite(model.path, out, [selection], loss=model.sample.loss, checks="full")
    artifact = read_artifact(out)
    batch = {n.removeprefix("batch/"): a for n, a in artifact.reference.items() if n.startswith("batch/")}
    outputs = GraphRunner(artifact, "gradients", choose_device("cpu"))({**artifact.state, **batch})
    gradients = {name: array for name, array in outputs.items() if name.startswith("gradient/")}
    return Rewritten(request.param, model, out, batch, gradients)


def test_the_reference_knows_the_precision(rewritten: Rewritten) -> None:
    artifact = read_artifact(rewritten.out)
    for entry in artifact.manifest.trainable_parameters:
        assert artifact.reference[f"roundoff/{entry.name}"] == ROUNDOFF[rewritten.precision]
        assert artifact.reference[f"calm_noise/{entry.name}"] <= artifact.reference[f"noise/{entry.name}"]
    assert graphfreeze.validate(rewritten.out)["passed"]


def test_a_wrong_factor_is_caught(rewritten: Rewritten) -> None:
    # One unit of bfloat16 is up to 0.8 %: a factor of 1.01 shows in float64 only, below.
    factor = {"float16": 1.01, "bfloat16": 1.1}[rewritten.precision]
    artifact = read_artifact(rewritten.out)
    frozen = read_frozen_elements(artifact)
    assert frozen is not None
    for changed in rewritten.gradients:
        wrong = {n: (a * factor).astype(a.dtype) if n == changed else a for n, a in rewritten.gradients.items()}
        found = compare_gradients(artifact.manifest, frozen, wrong, artifact.reference)
        accepted = {f"gradient/{item.name}": item.comparison.accepted for item in found}
        assert accepted == {name: name != changed for name in wrong}


def test_a_dropped_term_is_caught(rewritten: Rewritten) -> None:
    """The terms of one example of the batch."""
    step = rewritten.model.trace()
    reference = compute_reference(step, rewritten.batch, seed=0)
    largest = max(map(scale_of, reference.gradients.values()))
    artifact = read_artifact(rewritten.out)
    entries = {entry.name: entry for entry in artifact.manifest.state}
    _, others = run_gradients(step, {name: array[1:] for name, array in rewritten.batch.items()})
    for name, gradient in reference.gradients.items():
        ours = to_tensorflow(rewritten.gradients[f"gradient/{name}"], entries[name])
        dropped = gradient - others[name] * (7 / 8)
        for g, accepted in ((ours, True), ((ours - dropped).astype(gradient.dtype), False)):
            noise, coarse = reference.noise[name], reference.coarse[name]
            assert compare(g, gradient, largest=largest, noise=noise, coarse=coarse).accepted == accepted


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_noise_is_that_of_the_precision(exported: Callable[[str], Exported], precision: str) -> None:
    model = exported(f"mixed_{precision}")
    found = compute_reference(model.trace(), model.batch(), seed=0)
    assert found.coarse.keys() == found.gradients.keys()
    for name, coarse in found.coarse.items():
        assert 0.1 < coarse.noise / scale_of(found.gradients[name]) / ROUNDOFF[precision] < 30
        assert 0 < coarse.slope_noise < 8 * ROUNDOFF[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_factor_in_one_rule_is_caught_in_float64(
    exported: Callable[[str], Exported], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = exported(f"mixed_{precision}")
    step, batch = model.trace(), model.batch()
    assert all(check["passed"] for check in check_step_in_float64(step, batch))
    replace_rule(monkeypatch, "BiasAddGrad", scaled(1.01))
    with pytest.raises(ValidationError, match="/bias'"):
        check_step_in_float64(step, batch)


def test_a_tensor_of_few_elements_is_known_no_better_than_its_dtype(tmp_path: Path) -> None:
    """Moved numbers hardly move this bias gradient, which TensorFlow has rounded to float16 all the same."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), dtype="int32", name="x")
    half = keras.DTypePolicy("mixed_float16")
    h = keras.layers.Embedding(9, 4, dtype=half, name="e")(x)
    h = keras.layers.GlobalAveragePooling1D(dtype=half)(h)
    h = keras.layers.Dense(5, activation="tanh", dtype=half, name="d")(h)
    graphfreeze.export(keras.Model(x, keras.layers.Dense(3, dtype="float32", name="o")(h)), tmp_path / "model")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.integers(0, 9, (4, 6)).astype(np.int32), y=rng.integers(0, 3, 4))
    report = graphfreeze.rewrite(
        tmp_path / "model",
        tmp_path / "out",
        [graphfreeze.Selection("freeze", "o/bias[0]")],
        loss="sparse_categorical_crossentropy:from_logits=true",
        optimizer="adam",
        endpoint="train",
        data=tmp_path / "data.npz",
    )
    records = {record["name"]: record for record in report["checks"][-1]["evidence"]["parameters"]}
    assert records["d/bias"]["rule"] == "noise"
    assert records["d/bias"]["error"] > 1e-4 * records["d/bias"]["scale"]
