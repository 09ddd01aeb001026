from __future__ import annotations

import dataclasses
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from graphfreeze.errors import SpecError
from graphfreeze.selection import Selection, Spec, load_spec, resolve_plan
from graphfreeze.selection.spec import spec_schema
from tests.selection.table_source import TableSource, frozen_positions, only

WHOLE = """
schema_version = 1
selectors = [
    {freeze = "**"},
    {train = "x[[0, 1], [0, 1]]"},
]
form = "select"
only_in = ["serve"]
loss = "mean_squared_error"
sample_weight = true
optimizer = "adamw:learning_rate=1e-3,weight_decay=0.01"
endpoint = "serve"
forward_endpoint = "serving_default"
no_onnx = false
opset = 18
data = "batch.npz"
seed = 7
checks = "static"
device = "cpu"
noise = "native"
keras2 = "keep"
link = true
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "freeze.toml"
    path.write_text(text)
    return path


def test_a_whole_specification(tmp_path: Path) -> None:
    assert load_spec(write(tmp_path, WHOLE)) == Spec(
        selections=(Selection("freeze", "**", tmp_path), Selection("train", "x[[0, 1], [0, 1]]", tmp_path)),
        form="select",
        only_in=("serve",),
        loss="mean_squared_error",
        sample_weight=True,
        optimizer="adamw:learning_rate=1e-3,weight_decay=0.01",
        endpoint="serve",
        forward_endpoint="serving_default",
        no_onnx=False,
        opset=18,
        data=tmp_path / "batch.npz",
        seed=7,
        checks="static",
        device="cpu",
        noise="native",
        keras2="keep",
        link=True,
    )


def test_an_empty_specification_leaves_everything_open(tmp_path: Path) -> None:
    assert load_spec(write(tmp_path, "")) == Spec()


def test_selectors_may_be_tables(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, '[[selectors]]\nfreeze = "a"\n[[selectors]]\ntrain = "b"\n'))
    assert [(selection.kind, selection.text) for selection in spec.selections] == [("freeze", "a"), ("train", "b")]


def test_paths_start_from_the_directory_of_the_specification(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([True, False]))
    spec = load_spec(write(tmp_path, 'selectors = [{freeze = "x @ mask.npy"}]'))
    plan = resolve_plan(spec.selections, TableSource({"x": np.ones(2, np.float32)}))
    assert frozen_positions(only(plan)) == [(0,)]


def test_several_optimizers_are_an_array(tmp_path: Path) -> None:
    assert load_spec(write(tmp_path, "optimizer = ['sgd', 'a/*=adam']")).optimizer == ("sgd", "a/*=adam")


def test_several_losses_are_an_array(tmp_path: Path) -> None:
    assert load_spec(write(tmp_path, "loss = ['a=mse', 'b=mae:weight=2']")).loss == ("a=mse", "b=mae:weight=2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimzer = 'sgd'", "freeze.toml: unknown key 'optimzer'; the nearest: optimizer"),
        ("selectors = [{freese = 'x'}]", r"unknown key 'selectors\[0\].freese'; the nearest: freeze"),
        ("selectors = [{freeze = 'x', train = 'y'}]", r"selectors\[0\] is .*, expected exactly one of freeze, train"),
        ("selectors = [{}]", r"selectors\[0\] is \{\}, expected exactly one of freeze, train"),
        ("selectors = ['x']", r"selectors\[0\] is 'x', expected an object"),
        ("selectors = 'x'", "selectors is 'x', expected an array"),
        ("selectors = [{freeze = 3}]", r"selectors\[0\].freeze is 3, expected a string"),
        ("form = 'blended'", "form is 'blended', expected one of auto, blend, select; the nearest: blend"),
        ("form = 1", "form is 1, expected a string"),
        ("seed = 'x'", "seed is 'x', expected an integer"),
        ("seed = true", "seed is True, expected an integer"),
        ("seed = -1", "seed: -1 is less than the minimum of 0"),
        ("opset = 18.5", "opset is 18.5, expected an integer"),
        ("link = 'yes'", "link is 'yes', expected a boolean"),
        ("only_in = 'serve'", "only_in is 'serve', expected an array"),
        ("loss = 2024-01-01", "loss is .*, expected a string or an array"),
        ("loss = ['a=mse', 3]", r"loss\[1\] is 3, expected a string"),
        ("loss = []", "loss: "),
        ("optimizer = [3]", r"optimizer\[0\] is 3, expected a string"),
        ("optimizer = []", "optimizer: "),
        ("schema_version = 2", "schema_version is 2, this version of graphfreeze reads 1"),
        ("form = = 1", "freeze.toml is not TOML: Invalid value .at line 1, column 8"),
        ("form = 'auto'\nform = 'auto'", "is not TOML"),
    ],
)
def test_wrong_specifications_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(write(tmp_path, text))
    assert caught.value.exit_code == 2


def test_files_that_are_no_specification(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load_spec(tmp_path / "missing.toml")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="is not TOML"):
        load_spec(path)


def test_the_schema_is_valid_and_describes_every_option() -> None:
    jsonschema.Draft202012Validator.check_schema(spec_schema())
    options = {field.name for field in dataclasses.fields(Spec)} - {"selections"}
    assert set(spec_schema()["properties"]) == options | {"schema_version", "selectors"}
    assert all(entry["description"] for entry in spec_schema()["properties"].values())


def test_integers_may_be_written_with_a_point(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "opset = 18.0"))
    assert spec.opset == 18 and isinstance(spec.opset, int)
