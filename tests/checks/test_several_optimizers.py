"""Several optimizers in one step: each takes its own parameters, as in Keras' MultiOptimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.artifact import read_artifact
from graphfreeze.errors import UsageError

layers, optimizers = keras.layers, keras.optimizers

WORDS, LENGTH, BATCH, STEPS = 9, 5, 4, 5
NOTHING = ("fixed/kernel", "fixed/bias")
"""What does not train in Keras either."""

Array = npt.NDArray[Any]


def small_model() -> Any:
    keras.utils.set_random_seed(3)
    x = keras.Input((LENGTH,), dtype="int32", name="x")
    h = layers.Flatten()(layers.Embedding(WORDS, 3, name="words")(x))
    h = layers.LayerNormalization(name="norm")(layers.Dense(6, activation="tanh", name="hidden")(h))
    h = layers.Dense(6, trainable=False, name="fixed")(h)
    return keras.Model(x, layers.Dense(2, name="out")(h), name="net")


def data(seed: int = 5) -> dict[str, Array]:
    """Rows of the embedding appear several times in a batch, and one in none."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, WORDS - 1, (STEPS * BATCH, LENGTH)).astype(np.int32)
    return {"x": x, "y": rng.normal(size=(len(x), 2)).astype(np.float32)}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "model"
    graphfreeze.export(small_model(), path)
    return path


def rewrite(
    saved_model: Path, out: Path, optimizer: str | Sequence[str], *freeze: str, checks: Any = "none"
) -> dict[str, Any]:
    selections = [Selection("freeze", selector) for selector in (*NOTHING, *freeze)]
    return graphfreeze.rewrite(
        saved_model, out, selections, loss="mse", optimizer=optimizer, endpoint="train", checks=checks
    )


def several(default: Any, others: dict[str, Any]) -> Any:
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(default, others))


CASES: dict[str, tuple[Sequence[str], Callable[[], Any]]] = {
    "one layer": (
        ["sgd:learning_rate=0.1", "out/*=adam:learning_rate=0.02"],
        lambda: several(optimizers.SGD(0.1), {"out/.*": optimizers.Adam(0.02)}),
    ),
    "two rates": (
        ["words/*=adam:learning_rate=0.001", "adam:learning_rate=0.02"],
        lambda: several(optimizers.Adam(0.02), {"words/.*": optimizers.Adam(0.001)}),
    ),
    "rows and weight decay": (
        ["adamw:learning_rate=0.02,weight_decay=0.5,exclude_from_weight_decay=bias", "**/embeddings=rmsprop"],
        lambda: several(without_decay(), {".*embeddings": optimizers.RMSprop()}),
    ),
    "rows of two": (
        ["adagrad:learning_rate=0.1", "words/*=adam:learning_rate=0.02,global_clipnorm=0.01"],
        lambda: several(optimizers.Adagrad(0.1), {"words/.*": optimizers.Adam(0.02, global_clipnorm=0.01)}),
    ),
    "norm of some": (
        ["sgd:learning_rate=0.01", "out/*=sgd:learning_rate=0.1,global_clipnorm=0.5"],
        lambda: several(optimizers.SGD(0.01), {"out/.*": optimizers.SGD(0.1, global_clipnorm=0.5)}),
    ),
    "norm of each": (
        ["sgd:learning_rate=0.1", "hidden/*=adam:learning_rate=0.02,clipnorm=0.01"],
        lambda: several(optimizers.SGD(0.1), {"hidden/.*": optimizers.Adam(0.02, clipnorm=0.01)}),
    ),
    "dynamic scale": (
        [
            "adam:learning_rate=0.02,loss_scale=dynamic,loss_scale.dynamic_growth_steps=2",
            "out/*=sgd:learning_rate=0.1,momentum=0.9",
        ],
        lambda: optimizers.LossScaleOptimizer(
            several(optimizers.Adam(0.02), {"out/.*": optimizers.SGD(0.1, momentum=0.9)}), dynamic_growth_steps=2
        ),
    ),
    "fixed scale": (
        ["adam:learning_rate=0.02,loss_scale_factor=64", "out/*=sgd:learning_rate=0.1"],
        # A power of two changes no bit. With one, Keras' fit fails on the gradient of an embedding.
        lambda: several(optimizers.Adam(0.02), {"out/.*": optimizers.SGD(0.1)}),
    ),
    "averages": (
        ["sgd:learning_rate=0.1", "hidden/*=adam:learning_rate=0.02,use_ema=true,ema_momentum=0.5"],
        lambda: several(optimizers.SGD(0.1), {"hidden/.*": optimizers.Adam(0.02, use_ema=True, ema_momentum=0.5)}),
    ),
    "a schedule": (
        [
            "sgd:learning_rate=piecewise_constant_decay,learning_rate.boundaries=0/2,learning_rate.values=0.2/0.1/0.01",
            "out/*=muon:learning_rate=0.02",
            "norm/*=lamb:learning_rate=0.02",
        ],
        lambda: several(
            optimizers.SGD(optimizers.schedules.PiecewiseConstantDecay([0, 2], [0.2, 0.1, 0.01])),
            {"out/.*": optimizers.Muon(0.02), "norm/.*": optimizers.Lamb(0.02)},
        ),
    ),
    "no default": (
        ["**=adam:learning_rate=0.02", "**/bias=sgd:learning_rate=0.1"],
        lambda: several(optimizers.Adam(0.02), {".*bias": optimizers.SGD(0.1)}),
    ),
}


def without_decay() -> Any:
    made = optimizers.AdamW(0.02, weight_decay=0.5)
    made.exclude_from_weight_decay(var_names=["bias"])
    return made


def fit(made: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """The trained variables of the model before and after Keras' fit."""
    model, whole = small_model(), data()
    before = {v.path: v.numpy() for v in model.trainable_variables}
    model.compile(made, "mse", jit_compile=False)
    model.fit(whole["x"], whole["y"], batch_size=BATCH, shuffle=False, verbose=0)
    return before, {v.path: v.numpy() for v in model.trainable_variables}


def train(out: Path) -> Trainer:
    trainer = Trainer(out, device="cpu")
    trainer.fit(data(), epochs=1, batch_size=BATCH, shuffle=False)
    return trainer


def assert_equal(found: dict[str, Array], before: dict[str, Array], after: dict[str, Array]) -> None:
    for name, expected in after.items():
        moved = float(np.abs(expected - before[name]).max())
        assert moved > 1e-4, name
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=2e-5 * moved + 1e-7, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_steps_are_those_of_fit(case: str, saved_model: Path, tmp_path: Path) -> None:
    texts, made = CASES[case]
    rewrite(saved_model, tmp_path / "out", texts)
    assert_equal(train(tmp_path / "out").weights(averages=True), *fit(made()))


def test_a_norm_is_that_of_the_optimizers_own_parameters(saved_model: Path, tmp_path: Path) -> None:
    rewrite(saved_model, tmp_path / "out", ["sgd:learning_rate=0.1", "out/*=sgd:learning_rate=0.1,global_clipnorm=0.5"])
    trainer = Trainer(tmp_path / "out", device="cpu")
    batch = {name: array[:BATCH] for name, array in data().items()}
    gradients, start = trainer.gradients(batch).gradients, trainer.weights()
    trainer.step(batch)
    changes = {name: value - start[name] for name, value in trainer.weights().items()}
    np.testing.assert_allclose(changes["hidden/kernel"], -0.1 * gradients["hidden/kernel"], rtol=0, atol=1e-6)
    clipped = np.concatenate([changes[name].ravel() for name in ("out/kernel", "out/bias")])
    assert np.linalg.norm(clipped) == pytest.approx(0.1 * 0.5, rel=1e-5)


def test_frozen_rows_and_elements(saved_model: Path, tmp_path: Path) -> None:
    texts = ["adam:learning_rate=0.02,loss_scale=dynamic", "words/*=rmsprop:learning_rate=0.01", "out/*=adamax"]
    held: dict[str, Any] = {
        "words/embeddings": np.s_[[1, 2, 5]],
        "hidden/kernel": np.s_[3, 1:4],
        "out/kernel": np.s_[:, 0],
    }
    freeze = ("words/embeddings[[1, 2, 5]]", "hidden/kernel[3, 1:4]", "out/kernel[:, 0]")
    report = rewrite(saved_model, tmp_path / "out", texts, *freeze, checks="full")
    assert all(check["passed"] for check in report["checks"])
    states = {record["name"]: record["state"] for record in report["training"]["frozen_slices"]}
    assert states == {"words/embeddings": "trained slices", "out/kernel": "trained slices"}
    start, found = Trainer(tmp_path / "out", device="cpu").weights(), train(tmp_path / "out").weights()
    model, whole = small_model(), data()
    inner = several(optimizers.Adam(0.02), {"words/.*": optimizers.RMSprop(0.01), "out/.*": optimizers.Adamax()})
    model.compile(optimizers.LossScaleOptimizer(inner), "mse", jit_compile=False)
    for first in range(0, STEPS * BATCH, BATCH):
        model.train_on_batch(*(whole[key][first : first + BATCH] for key in ("x", "y")))
        for variable in model.trainable_variables:
            if variable.path in held:
                value, frozen = variable.numpy(), held[variable.path]
                value[frozen] = start[variable.path][frozen]
                variable.assign(value)
    for name, frozen in held.items():
        assert found[name][frozen].tobytes() == start[name][frozen].tobytes()
    assert_equal(found, start, {v.path: v.numpy() for v in model.trainable_variables})


def test_frozen_slices_cost_what_their_own_optimizer_makes_of_them(saved_model: Path, tmp_path: Path) -> None:
    freeze = ("words/embeddings[[1, 2, 5]]", "out/kernel[:, 0]")
    report = rewrite(saved_model, tmp_path / "out", ["adam", "out/*=lamb"], *freeze, checks="full")
    slices = {record["name"]: record for record in report["training"]["frozen_slices"]}
    assert slices["words/embeddings"]["state"] == "trained slices"
    assert slices["out/kernel"]["state"] == "whole"
    assert slices["out/kernel"]["reason"].startswith("what lamb does to an element")


def test_names_flat_states_and_learning_rates(saved_model: Path, tmp_path: Path) -> None:
    texts = ["adam:learning_rate=0.02", "words/*=sgd:learning_rate=0.1", "hidden/*=adam:learning_rate=0.01"]
    report = rewrite(saved_model, tmp_path / "out", texts, checks="full")
    trainer = Trainer(tmp_path / "out", device="cpu")
    entries = {entry.name: entry for entry in trainer.artifact.manifest.state}
    assert {name for name in entries if not name.startswith(("words", "norm", "hidden", "out"))} == {
        *("adam/iteration", "learning_rate", "adam/flat/momentum", "adam/flat/velocity"),
        *("adam_2/iteration", "adam_2/learning_rate", "adam_2/flat/momentum", "adam_2/flat/velocity"),
        *("sgd/iteration", "sgd/learning_rate"),
    }
    parts = entries["adam_2/flat/momentum"].parts
    assert parts is not None
    assert [part.parameter for part in parts] == ["hidden/bias", "hidden/kernel"]
    rates = {"learning_rate": 0.02, "sgd/learning_rate": 0.1, "adam_2/learning_rate": 0.01}
    assert trainer.learning_rates == pytest.approx(rates)
    assert {name for name, entry in entries.items() if entry.role == "hyperparameter"} == rates.keys()
    checked = next(check for check in report["checks"] if check["name"].startswith("single optimizer"))
    assert "adam_2/hidden/kernel/velocity" in {record["name"] for record in checked["evidence"]}
    trainer.learning_rates = {"sgd/learning_rate": 0.0, "adam_2/learning_rate": 0.0}
    assert trainer.learning_rate == pytest.approx(0.02)
    start = trainer.weights()
    trainer.step({name: array[:BATCH] for name, array in data().items()})
    still = {name for name, value in trainer.weights().items() if value.tobytes() == start[name].tobytes()}
    assert still == {"words/embeddings", "hidden/kernel", "hidden/bias", *NOTHING}
    with pytest.raises(UsageError, match=r"The optimizer adam, sgd, adam has no 'rmsprop/learning_rate' that can"):
        trainer.learning_rates = {"learning_rate": 1.0, "rmsprop/learning_rate": 1.0}
    assert trainer.learning_rate == pytest.approx(0.02)


def test_without_an_optimizer_for_all_others(saved_model: Path, tmp_path: Path) -> None:
    rewrite(saved_model, tmp_path / "out", "**=adam", checks="full")
    trainer = Trainer(tmp_path / "out", device="cpu")
    assert list(trainer.learning_rates) == ["adam/learning_rate"]
    with pytest.raises(UsageError, match="The optimizer adam has no learning rate that can be set"):
        trainer.learning_rate = 0.1


def test_a_manifest_says_what_to_trace_again(saved_model: Path, tmp_path: Path) -> None:
    texts = ["adam:learning_rate=0.02,loss_scale=dynamic", "words/*=sgd:learning_rate=0.1"]
    report = rewrite(saved_model, tmp_path / "out", texts)
    expected = [
        {"parameters": None, "name": "adam", "arguments": {"learning_rate": 0.02, "loss_scale": "dynamic"}},
        {"parameters": "words/*", "name": "sgd", "arguments": {"learning_rate": 0.1}},
    ]
    assert report["training"]["optimizers"] == expected
    assert "optimizer" not in report["training"]
    assert graphfreeze.inspect(tmp_path / "out" / "training")["optimizers"] == expected
    batch = data(6)
    np.savez(tmp_path / "data.npz", x=batch["x"], y=batch["y"])
    assert graphfreeze.validate(tmp_path / "out", device="cpu", data=tmp_path / "data.npz")["passed"]


def test_a_learning_rate_of_zero_moves_nothing(saved_model: Path, tmp_path: Path) -> None:
    report = rewrite(saved_model, tmp_path / "out", ["adam", "words/*=sgd:learning_rate=0.0"], checks="full")
    found = next(check for check in report["checks"] if check["name"] == "validation")["evidence"]["checks"]
    assert "not required: a learning rate is 0" in {check["message"] for check in found}


def test_one_optimizer_gives_the_same_files_however_it_is_given(saved_model: Path, tmp_path: Path) -> None:
    for name, optimizer in (("text", "adamw:weight_decay=0.1"), ("list", ["adamw:weight_decay=0.1"])):
        rewrite(saved_model, tmp_path / name, optimizer)
    files = sorted(path.relative_to(tmp_path / "text") for path in (tmp_path / "text").rglob("*") if path.is_file())
    for file in files:
        assert (tmp_path / "text" / file).read_bytes() == (tmp_path / "list" / file).read_bytes(), file
    entry = read_artifact(tmp_path / "text").manifest.optimizers[0]
    assert (entry.name, entry.parameters) == ("adamw", None)
    manifest = (tmp_path / "text" / "training" / "manifest.json").read_text()
    assert '"optimizer": {' in manifest
    assert '"optimizers"' not in manifest


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sgd", "hiden/*=adam"], r"'hiden/\*=adam' is for no parameter: nothing .* matches 'hiden/\*'; .*hidden/"),
        (["sgd", "hidden/kernels=adam"], "nothing that trains matches 'hidden/kernels'; the nearest: hidden/kernel"),
        (["sgd", "fixed/*=adam"], r"'fixed/\*' matches only what does not train \(fixed/bias, fixed/kernel\)"),
        (["sgd", "words/*=adam", "**/embeddings=lion"], r"'words/\*=adam' is for no parameter: later ones take all"),
        (["sgd", "**=adam"], "the optimizer 'sgd' is for no parameter: the others take all that train; leave it out"),
        (["hidden/*=adam", "out/*=sgd"], "found none for norm/beta, norm/gamma, words/embeddings: give one without"),
        ("**/bias=adam", "found none for hidden/kernel, norm/beta, norm/gamma and 2 more: give one without a pattern"),
    ],
)
def test_optimizers_and_parameters_that_do_not_fit(
    texts: str | Sequence[str], message: str, saved_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        rewrite(saved_model, tmp_path / "out", texts)
    assert not (tmp_path / "out").exists()


def test_a_keras_without_several_optimizers_is_named(
    saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(keras.optimizers, "MultiOptimizer")
    with pytest.raises(UsageError, match=f"which Keras {keras.__version__} does not have: install Keras 3.15"):
        rewrite(saved_model, tmp_path / "out", ["sgd", "out/*=adam"])
