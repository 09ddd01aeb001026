from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graphfreeze.artifact.tensors import TensorFile
from graphfreeze.errors import ArtifactReadError, DataError, OutputError, ValidationError
from graphfreeze.runtime import Trainer, train
from tests.artifact.toy import MASK, STATE, build_graphs, expected_gradients, random_batch, stored, write_toy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Data that the model can learn: its targets are predictions of another kernel."""
    batch = random_batch(40)
    np.savez(tmp_path / "data.npz", image=batch["image"].astype(np.float64), y=batch["y"] * 0.25)
    return tmp_path / "data.npz"


def test_training_saves_the_state_and_reports_it(out: Path, data: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    report = train(out, data, epochs=3, batch_size=16, device="cpu", progress=lambda *call: calls.append(call))
    assert json.loads(json.dumps(report)) == report
    assert report["schema_version"] == 1
    assert (report["device"], report["device_reason"]) == ("cpu", "requested")
    assert (report["examples"], report["epochs"], report["batch_size"], report["steps"]) == (40, 3, 16, 9)
    assert report["casts"] == ["image: float64 -> float32"]
    assert len(report["losses"]) == 3
    assert report["last_loss"] < report["first_loss"]
    assert (report["frozen_elements"], report["frozen_elements_changed"]) == (9 + 384, 0)
    assert report["state"] == str(out / "training" / "trained.safetensors")
    assert calls[-1] == ("training", 9, 9)

    trained = TensorFile(out / "training" / "trained.safetensors")
    assert set(trained) == set(STATE)
    frozen = ~MASK.transpose(3, 2, 0, 1)
    before = stored(STATE)["conv/kernel"]
    assert trained["conv/kernel"][frozen].tobytes() == before[frozen].tobytes()
    assert (trained["conv/kernel"][~frozen] != before[~frozen]).all()
    assert trained["iteration"] == 9

    weights = Trainer(out, device="cpu", state=out / "training" / "trained.safetensors").weights()
    with np.load(data) as arrays:
        whole = {"image": arrays["image"].astype(np.float32), "y": arrays["y"]}
    assert expected_gradients(weights, whole)["loss"] < expected_gradients(STATE, whole)["loss"]


def test_the_same_arguments_give_the_same_bytes(out: Path, data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(out, data, epochs=2, batch_size=7, device="cpu", seed=3, save=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ["out/training/state.safetensors", "out/training/manifest.json", "data.npz"])
def test_what_is_read_is_never_overwritten(out: Path, data: Path, name: str) -> None:
    before = (out.parent / name).read_bytes()
    with pytest.raises(OutputError, match="is also an input"):
        train(out, data, epochs=1, batch_size=8, device="cpu", save=out.parent / name)
    assert (out.parent / name).read_bytes() == before


def test_a_corrupt_artifact_does_not_train(out: Path, data: Path) -> None:
    path = out / "training" / "constants.bin"
    content = bytearray(path.read_bytes())
    content[17] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(ArtifactReadError, match=r"constants\.bin is corrupt"):
        train(out, data, epochs=1, batch_size=8, device="cpu")


def test_a_step_that_moves_a_frozen_element_is_caught_and_nothing_is_saved(tmp_path: Path, data: Path) -> None:
    everything = np.ones_like(MASK)
    out = write_toy(tmp_path / "out", graphs=build_graphs(gradient_mask=everything, update_mask=everything))
    with pytest.raises(ValidationError, match="9 frozen elements of conv/kernel changed") as caught:
        train(out, data, epochs=1, batch_size=8, device="cpu")
    assert caught.value.details["changed"] == {"conv/kernel": 9}
    assert not (out / "training" / "trained.safetensors").exists()


def test_without_the_plan_the_report_says_that_frozen_elements_were_not_checked(out: Path, data: Path) -> None:
    (out / "plan").rename(out / "elsewhere")
    report = train(out / "training", data, epochs=1, batch_size=8, device="cpu")
    assert (report["frozen_elements"], report["frozen_elements_changed"]) == (9 + 384, None)


def test_data_that_do_not_fit_say_what_is_expected(out: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"lacks image, y\. Expected: image float32\[batch, 2, 2, 2\], y float32"):
        train(out, tmp_path / "data.npz", epochs=1, batch_size=8)


def test_training_that_diverges_saves_nothing(out: Path, tmp_path: Path) -> None:
    batch = random_batch(8)
    batch["image"][3] = np.nan
    np.savez(tmp_path / "data.npz", image=batch["image"], y=batch["y"])
    with pytest.raises(ValidationError, match="the loss is nan in epoch 1: training diverged, and nothing was saved"):
        train(out, tmp_path / "data.npz", epochs=2, batch_size=4, device="cpu")
    assert not (out / "training" / "trained.safetensors").exists()
