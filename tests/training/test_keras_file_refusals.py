"""Keras files and models that are not exported: what is never run, and what is broken."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import graphfreeze
from graphfreeze import FileError, ModelReadError, UnsupportedError, UsageError
from tests.training.models import two_outputs

# -- what is never run, and what is refused

INPUT = keras.Input((2,), name="x")


class Foreign(keras.layers.Layer):
    """A layer that a file can only name."""

    def call(self, inputs: Any) -> Any:
        return inputs


def double(x: Any) -> Any:
    return 2 * x


def with_lambda() -> Any:
    return keras.Model(INPUT, keras.layers.Lambda(lambda x: x + 1)(INPUT))


def with_lambda_activation() -> Any:
    return keras.Model(INPUT, keras.layers.Dense(1, activation=lambda x: x)(INPUT))


def with_foreign_layers() -> Any:
    return keras.Model(INPUT, Foreign()(Foreign()(INPUT)))


def with_foreign_function() -> Any:
    return keras.Model(INPUT, keras.layers.Dense(1, activation=double)(INPUT))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_lambda, "never run from a file: Lambda"),
        (with_lambda_activation, "a Python lambda"),
        (with_foreign_layers, r"not Keras' own: Foreign \(2 times\)"),
        (with_foreign_function, "not Keras' own: double"),
    ],
)
def test_code_and_foreign_classes_are_refused_by_name(
    make: Callable[[], Any], message: str, suffix: str, tmp_path: Path
) -> None:
    model = make()
    model.save(tmp_path / f"model{suffix}")
    with pytest.raises(UnsupportedError, match=message) as error:
        graphfreeze.export(tmp_path / f"model{suffix}", tmp_path / "out")
    assert "graphfreeze.export(model, SAVED_MODEL)" in str(error.value)
    assert not (tmp_path / "out").exists()
    # What the message says works: whoever has the model has decided to run it.
    graphfreeze.export(model, tmp_path / "out")


def test_what_a_model_was_compiled_with_does_not_matter(tmp_path: Path) -> None:
    """It is not built: the loss and the metric of one's own may be unknown here."""

    class OwnLoss(keras.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", OwnLoss())
    model.save(tmp_path / "model.keras")
    graphfreeze.export(tmp_path / "model.keras", tmp_path / "out")


def rewrite_config(file: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            target.writestr(name, content)
    return to


@pytest.mark.parametrize(
    ("class_name", "module", "config"),
    [
        ("function", "os", "system"),
        ("function", "builtins", "eval"),
        ("Popen", "subprocess", {"args": ["touch", "canary"]}),
        ("Model", "canary_module", {}),
        ("TFSMLayer", "keras.layers", {"filepath": "canary"}),
    ],
)
def test_a_configuration_cannot_name_what_python_could_run(
    class_name: str, module: str, config: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary_module.py").write_text("from pathlib import Path\nPath('canary').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def change(whole: dict[str, Any]) -> None:
        entry = {"class_name": class_name, "module": module, "config": config, "registered_name": None}
        whole["config"]["layers"][1]["config"]["activation"] = entry

    hostile = rewrite_config(file, tmp_path / "hostile.keras", change)
    with pytest.raises(UnsupportedError):
        graphfreeze.export(hostile, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary_module.py", "hostile.keras"]
    assert "canary_module" not in sys.modules


def not_there(path: Path, file: Path) -> None:
    pass


def junk(path: Path, file: Path) -> None:
    path.write_bytes(b"junk")


def cut(path: Path, file: Path) -> None:
    path.write_bytes(file.read_bytes()[:3000])


def without_weights(path: Path, file: Path) -> None:
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", source.read("config.json"))


def without_config(path: Path, file: Path) -> None:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("metadata.json", "{}")


def no_json(path: Path, file: Path) -> None:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", "{")


def other_weights(path: Path, file: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["units"] = 9

    rewrite_config(file, path, change)


def a_list(path: Path, file: Path) -> None:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", "[1, 2]")


@pytest.mark.parametrize(
    "damage", [not_there, junk, cut, without_weights, without_config, no_json, other_weights, a_list]
)
def test_a_broken_file_is_a_file_error(damage: Callable[[Path, Path], None], file: Path, tmp_path: Path) -> None:
    damage(tmp_path / "model.keras", file)
    with pytest.raises(ModelReadError) as error:
        graphfreeze.export(tmp_path / "model.keras", tmp_path / "out")
    assert isinstance(error.value, FileError)
    assert "model.keras" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_h5_file_of_weights_alone_is_no_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as weights:
        weights["kernel"] = np.zeros(3)
    with pytest.raises(ModelReadError, match="not its weights alone"):
        graphfreeze.export(tmp_path / "weights.h5", tmp_path / "out")


def test_what_is_no_keras_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected the path of a Keras file or a keras\.Model, found dict"):
        graphfreeze.export({}, tmp_path / "out")
    with pytest.raises(UsageError, match=r"expected a Keras file \(.keras, .h5\)"):
        graphfreeze.export(tmp_path / "model.onnx", tmp_path / "out")
    graphfreeze.export(two_outputs(), tmp_path / "saved")
    with pytest.raises(UsageError, match="a SavedModel already"):
        graphfreeze.export(tmp_path / "saved", tmp_path / "out")
