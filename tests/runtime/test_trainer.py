from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from graphfreeze.errors import ArtifactReadError, DataError, OutputError, UsageError
from graphfreeze.runtime import Trainer
from tests.artifact.toy import (
    KERNEL,
    MASK,
    PROJECTION,
    STATE,
    Arrays,
    expected_gradients,
    expected_step,
    random_batch,
    stored,
)


def make_trainer(out: Path, state: Path | Arrays | None = None) -> Trainer:
    return Trainer(out, device="cpu", state=state)


def assert_close(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Equal up to the rounding of float32 in sums of 128 terms of about 1."""
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def bits(arrays: Arrays) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def test_steps_compute_what_numpy_computes(out: Path) -> None:
    """Over changing batch sizes: losses, parameters in TensorFlow's layout, model state, optimizer state."""
    trainer = make_trainer(out)
    state = STATE
    for step, examples in enumerate((5, 3, 5, 1, 4)):
        batch = random_batch(examples, step)
        expected_loss = expected_gradients(state, batch)["loss"]
        assert trainer.step(batch) == pytest.approx(expected_loss, rel=2e-6)
        state = expected_step(state, batch)
        weights = trainer.weights()
        for name in ("conv/kernel", "conv/bias", "conv/offset", "conv/moving_mean"):
            assert_close(weights[name], state[name])
        assert weights["conv/kernel"][~MASK].tobytes() == KERNEL[~MASK].tobytes()
        np.testing.assert_array_equal(weights["seed"], state["seed"])
        np.testing.assert_array_equal(weights["head/projection"], PROJECTION)
        assert "momentum/conv/bias" not in weights
        final = trainer.state_dict()
        assert_close(final["momentum/conv/kernel"], stored(state)["momentum/conv/kernel"])
    assert trainer.state_dict()["iteration"] == trainer.steps == 5


def test_steps_have_the_bits_of_running_the_graph_with_fresh_arrays(out: Path) -> None:
    trainer = make_trainer(out)
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    path = out / "training/train_step.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    state = stored(STATE)
    inputs = {i.name for i in session.get_inputs()}
    for step in range(6):
        batch = random_batch(4 + step % 2, step)
        feeds = {name: value for name, value in {**state, **batch}.items() if name in inputs}
        outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
        assert trainer.step(batch) == float(outputs["loss"])
        state |= {name.removeprefix("new/"): value for name, value in outputs.items() if name != "loss"}
    assert bits(trainer.state_dict()) == bits(state)


def test_arrays_of_the_caller_are_never_written_and_never_change(out: Path) -> None:
    start, batch = stored(STATE), random_batch(4)
    before = bits({**start, **batch})
    trainer = make_trainer(out, state=start)
    trainer.step(batch)
    kept, weights = trainer.state_dict(), trainer.weights()
    kept_bits, weight_bits = bits(kept), bits(weights)
    for _ in range(3):
        trainer.step(batch)
    assert bits({**start, **batch}) == before
    assert bits(kept) == kept_bits
    assert bits(weights) == weight_bits


def test_more_batch_shapes_than_are_kept_make_no_difference(out: Path) -> None:
    first, second = make_trainer(out), make_trainer(out)
    sizes = [*range(1, 13), 3, 1, 12]
    losses = [first.step(random_batch(size, size)) for size in sizes]
    assert losses == [second.step(random_batch(size, size)) for size in sizes]


def test_fit_goes_over_every_example_and_the_last_smaller_batch_too(out: Path) -> None:
    data = random_batch(10)
    calls: list[tuple[str, int, int]] = []
    trainer, by_hand = make_trainer(out), make_trainer(out)
    losses = trainer.fit(data, epochs=2, batch_size=4, shuffle=False, progress=lambda *call: calls.append(call))
    expected = []
    for _ in range(2):
        parts = [{name: array[i : i + 4] for name, array in data.items()} for i in (0, 4, 8)]
        expected.append(sum(by_hand.step(part) * len(part["y"]) for part in parts) / 10)
    assert losses == expected
    assert bits(trainer.state_dict()) == bits(by_hand.state_dict())
    assert calls == [("training", step, 6) for step in range(1, 7)]


def test_equal_seeds_shuffle_equally_and_epochs_differ(out: Path) -> None:
    data = random_batch(9)
    states = []
    for seed in (1, 1, 2):
        trainer = make_trainer(out)
        trainer.fit(data, epochs=2, batch_size=2, seed=seed)
        states.append(bits(trainer.state_dict()))
    assert states[0] == states[1] != states[2]
    # With a learning rate of 0 only the order matters, through the moving mean: two epochs in one order would show.
    still = make_trainer(out)
    still.learning_rate = 0
    unshuffled = make_trainer(out)
    unshuffled.learning_rate = 0
    still.fit(data, epochs=1, batch_size=2)
    unshuffled.fit(data, epochs=1, batch_size=2, shuffle=False)
    assert still.state_dict()["conv/moving_mean"].tobytes() != unshuffled.state_dict()["conv/moving_mean"].tobytes()


def test_the_learning_rate_can_be_set_between_steps(out: Path) -> None:
    trainer, batch = make_trainer(out), random_batch(4)
    assert trainer.learning_rate == 0.125
    trainer.learning_rate = 0.5
    trainer.step(batch)
    expected = expected_step({**STATE, "learning_rate": np.array(0.5, np.float32)}, batch)
    assert_close(trainer.weights()["conv/kernel"], expected["conv/kernel"])
    trainer.step(batch)
    assert trainer.learning_rate == 0.5


def test_gradients_are_numpys_and_update_nothing(out: Path) -> None:
    trainer, batch = make_trainer(out), random_batch(7, 3)
    trainer.step(batch)
    before = bits(trainer.state_dict())
    state = expected_step(STATE, batch)
    found, expected = trainer.gradients(batch), expected_gradients(state, batch)
    assert bits(trainer.state_dict()) == before
    assert found.loss == pytest.approx(expected["loss"], rel=2e-6)
    assert set(found.gradients) == {"conv/kernel", "conv/bias"}
    for name, gradient in found.gradients.items():
        assert_close(gradient, stored(expected)[name])
    assert set(found.model_state) == {"conv/moving_mean", "seed"}
    np.testing.assert_array_equal(found.model_state["seed"], STATE["seed"] + np.array([0, 2], np.uint32))


def test_predictions_follow_the_training(out: Path) -> None:
    trainer, batch = make_trainer(out), random_batch(3)
    trainer.step(batch)
    found = trainer.predict({"image": batch["image"].astype(np.float64)})
    weights = trainer.weights()
    z = batch["image"].reshape(3, 8) @ weights["conv/kernel"].reshape(8, 3)
    z += weights["conv/bias"] + weights["conv/offset"]
    np.testing.assert_allclose(found["prediction"], z @ PROJECTION, rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match=r"expects the inputs \['image'\], found \['x'\]"):
        trainer.predict({"x": batch["image"]})
    with pytest.raises(DataError, match="image has the shape"):
        trainer.predict({"image": batch["image"][0]})


def test_a_saved_state_continues_bit_by_bit(out: Path, tmp_path: Path) -> None:
    trainer, batch = make_trainer(out), random_batch(4)
    trainer.step(batch)
    trainer.save(tmp_path / "state.safetensors")
    at_save = bits(trainer.state_dict())
    trainer.step(batch)
    after = bits(trainer.state_dict())
    loaded = make_trainer(out)
    loaded.step(random_batch(2, 9))
    loaded.load(tmp_path / "state.safetensors")
    assert bits(loaded.state_dict()) == at_save
    loaded.step(batch)
    started = make_trainer(out, state=tmp_path / "state.safetensors")
    started.step(batch)
    assert bits(loaded.state_dict()) == bits(started.state_dict()) == after
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["state.safetensors"]


def test_a_state_that_cannot_be_written_leaves_nothing(out: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(OutputError):
        make_trainer(out).save(tmp_path / "directory")


def test_a_state_of_another_artifact_is_refused_and_changes_nothing(out: Path, tmp_path: Path) -> None:
    trainer = make_trainer(out)
    before = bits(trainer.state_dict())
    kernel = stored(STATE)["conv/kernel"].copy()
    kernel[1] += 1
    np.savez(tmp_path / "no.safetensors")
    for state, message in (
        ({**stored(STATE), "conv/kernel": kernel}, "8 frozen elements of conv/kernel differ"),
        ({**stored(STATE), "seed": np.zeros(3, np.uint32)}, r"seed is uint32\[3\]"),
        (tmp_path / "missing.safetensors", "is missing"),
        (tmp_path / "no.safetensors.npz", "not a readable safetensors file"),
    ):
        with pytest.raises(ArtifactReadError, match=message):
            make_trainer(out, state=state)
    with pytest.raises(ArtifactReadError):
        trainer.load(tmp_path / "missing.safetensors")
    assert bits(trainer.state_dict()) == before


def test_a_batch_that_does_not_fit_is_refused_and_changes_nothing(out: Path) -> None:
    trainer = make_trainer(out)
    before = bits(trainer.state_dict())
    batch = random_batch(4)
    for wrong, message in (
        ({"image": batch["image"]}, "lacks y"),
        ({**batch, "y": batch["y"][:3]}, "'batch' is 4 in image and 3 in y"),
        ({**batch, "y": batch["y"][:, :5]}, r"expected \[batch, 128\]"),
    ):
        with pytest.raises(DataError, match=message):
            trainer.step(wrong)
    assert bits(trainer.state_dict()) == before
    assert trainer.steps == 0


def test_wrong_sizes_are_refused(out: Path) -> None:
    for sizes, message in (((0, 4), "epochs must be 1 or more"), ((1, 0), "batch_size must be 1 or more")):
        with pytest.raises(UsageError, match=message):
            make_trainer(out).fit(random_batch(4), epochs=sizes[0], batch_size=sizes[1])


@pytest.mark.parametrize(("side", "message"), [("inputs", "takes .*, manifest"), ("outputs", "lacks the output 'new/")])
def test_a_graph_that_is_not_what_the_manifest_says_is_named(out: Path, side: str, message: str) -> None:
    path = out / "training" / "train_step.onnx"
    model = onnx.load(path, load_external_data=False)
    if side == "inputs":
        unused = onnx.helper.make_tensor_value_info("unused", onnx.TensorProto.FLOAT, ())
        model.graph.input.append(unused)
    else:
        index = next(i for i, output in enumerate(model.graph.output) if output.name.startswith("new/"))
        del model.graph.output[index]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactReadError, match=rf"train_step\.onnx {message}"):
        make_trainer(out)


def test_a_graph_that_onnxruntime_cannot_load_is_named(out: Path) -> None:
    (out / "training" / "train_step.onnx").write_bytes(b"\x08")
    with pytest.raises(ArtifactReadError, match=r"cannot load .*train_step\.onnx"):
        make_trainer(out)
