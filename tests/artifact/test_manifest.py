from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from graphfreeze.artifact.consistency import check_manifest
from graphfreeze.artifact.manifest import LossEntry, OptimizerEntry
from graphfreeze.artifact.manifest_json import from_json, to_json
from graphfreeze.errors import ArtifactReadError
from tests.artifact.toy import build_manifest

LOSS = {"output": "a", "name": "mse", "arguments": {}, "weight": 1}
DOCUMENT: dict[str, Any] = json.loads(to_json(build_manifest()))


def test_what_is_written_is_read_back() -> None:
    assert from_json(to_json(build_manifest())) == build_manifest()


def test_losses_of_several_outputs_are_written_and_read_back() -> None:
    several = (LossEntry("huber", {"delta": 0.5}, "a", 0.3), LossEntry("mean_squared_error", {}, "b/c"))
    manifest = dataclasses.replace(build_manifest(), losses=several)
    assert from_json(to_json(manifest)) == manifest
    assert json.loads(to_json(manifest))["losses"] == [
        {"output": "a", "name": "huber", "arguments": {"delta": 0.5}, "weight": 0.3},
        {"output": "b/c", "name": "mean_squared_error", "arguments": {}, "weight": 1.0},
    ]
    assert manifest.output_losses == ("loss/a", "loss/b/c")
    weighted = dataclasses.replace(build_manifest(), losses=(LossEntry("huber", weight=2.0),))
    assert from_json(to_json(weighted)) == weighted
    assert weighted.output_losses == ()


def test_optimizers_of_several_parts_are_written_and_read_back() -> None:
    several = (OptimizerEntry("adam", {"learning_rate": 0.5}), OptimizerEntry("sgd", {}, "conv/*"))
    manifest = dataclasses.replace(build_manifest(), optimizers=several)
    assert from_json(to_json(manifest)) == manifest
    document = json.loads(to_json(manifest))
    assert "optimizer" not in document
    assert document["optimizers"] == [
        {"parameters": None, "name": "adam", "arguments": {"learning_rate": 0.5}},
        {"parameters": "conv/*", "name": "sgd", "arguments": {}},
    ]
    of_some = dataclasses.replace(manifest, optimizers=several[1:])
    assert from_json(to_json(of_some)) == of_some
    for wrong, message in (
        ([], "'optimizers' should be a list of at least one optimizer, found"),
        ([{"parameters": 3, "name": "sgd", "arguments": {}}], r"optimizers\[0\]: 'parameters' should be a string"),
        ([{"name": "sgd", "arguments": {}}], r"optimizers\[0\] lacks the key 'parameters'"),
    ):
        with pytest.raises(ArtifactReadError, match=message):
            from_json(json.dumps(document | {"optimizers": wrong}))


def test_the_loss_of_each_output_is_an_output_of_the_step() -> None:
    manifest = dataclasses.replace(build_manifest(), losses=(LossEntry("huber", output="a"),))
    assert check_manifest(build_manifest()) == []
    assert check_manifest(manifest) == [
        "train_step.onnx lacks the output loss/a",
        "gradients.onnx lacks the output loss/a",
    ]


def test_equal_manifests_give_equal_text_whatever_the_order_of_mappings() -> None:
    text = to_json(build_manifest())
    document = json.loads(text)
    document["versions"] = dict(reversed(document["versions"].items()))
    assert to_json(from_json(json.dumps(document))) == text


def test_keys_are_those_of_the_documented_format() -> None:
    """The example in docs/architecture.md has the same keys at every level."""
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    documented = json.loads(block[1])
    assert set(documented) == set(DOCUMENT)
    assert set(documented["batch"][0]) == set(DOCUMENT["batch"][0])
    assert set(documented["frozen"][0]) == set(DOCUMENT["frozen"][0])
    assert set(documented["graphs"]) == set(DOCUMENT["graphs"])
    assert set(documented["graphs"]["train_step"]) == set(DOCUMENT["graphs"]["train_step"])
    ours = {entry["role"]: entry for entry in reversed(DOCUMENT["state"])}
    for entry in documented["state"]:
        assert set(entry) == set(ours[entry["role"]])


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    target: Any = document
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target[key]
    if value is DELETED:
        del target[last]
    else:
        target[last] = value


DELETED = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "schema_version 2; this version of graphfreeze reads 1"),
        ("schema_version", DELETED, "schema_version None"),
        ("opset", DELETED, "lacks the key 'opset'"),
        ("opset", "18", "'opset' should be an integer, found '18'"),
        ("opset", True, "'opset' should be an integer, found True"),
        ("author", "x", "unknown key 'author'"),
        ("batch.0.shape", ["batch", 2.5], "a list of integers and names"),
        ("batch.0.role", "label", "one of input, target, sample_weight"),
        ("state.0.permutation", [0, 1, 2, 2], "a permutation of 4 axes"),
        ("state.0.permutation", DELETED, "lacks the key 'permutation'"),
        ("state.0.frozen_elements", DELETED, "lacks the key 'frozen_elements'"),
        ("state.0.trained_slices", {"axis": 4, "count": 1}, "'trained_slices' should be some slices along an axis of"),
        ("state.0.trained_slices", {"axis": 0, "count": 0}, "'trained_slices' should be some slices along an axis of"),
        ("state.0.trained_slices", {"axis": 3, "count": 9}, "'trained_slices' should be some slices along an axis of"),
        ("state.0.trained_slices", {"axis": 0}, r"state\[0\]: trained_slices lacks the key 'count'"),
        ("state.8.parts", [{"parameter": "a", "elements": 2}], "'parts' should be parts that together have the shape"),
        ("state.8.parts", [{"parameter": "a"}], r"state\[8\]: parts\[0\] lacks the key 'elements'"),
        ("state.8.parts", [{"parameter": "a", "elements": 3, "x": 1}], "has the unknown key 'x'"),
        ("state.1.trainable", 1, "'trainable' should be true or false"),
        ("state.1.momentum", 1, r"state\[1\] has the unknown key 'momentum'"),
        ("graphs.forward", DELETED, "lacks the key 'forward'"),
        ("graphs.forward.file", "../forward.onnx", "a file name without a directory"),
        ("graphs.forward.file", "..", "a file name without a directory"),
        ("graphs.forward.inputs", "image", "a list of strings"),
        ("files", {"a": 1}, "an object of strings"),
        ("loss", "mse", "'loss' should be an object"),
        ("loss", DELETED, "lacks the key 'loss'"),
        ("losses", [], "'losses' should be a list of at least one loss"),
        ("losses", [{"output": "a", "name": "mse", "arguments": {}}], r"losses\[0\] lacks the key 'weight'"),
        ("losses", [LOSS | {"weight": "1"}], r"losses\[0\]: 'weight' should be a number"),
        ("losses", [LOSS | {"scale": 1}], r"losses\[0\] has the unknown key 'scale'"),
        ("losses", [LOSS], "unknown key 'loss'"),
    ],
)
def test_anything_else_is_refused_by_name(path: str, value: Any, message: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    _set(document, path, value)
    with pytest.raises(ArtifactReadError, match=message):
        from_json(json.dumps(document))


def test_of_what_is_found_a_part_is_shown() -> None:
    with pytest.raises(ArtifactReadError, match=r"'state' should be a list of objects, found \[\{") as caught:
        from_json(json.dumps(DOCUMENT | {"state": [*DOCUMENT["state"], 3]}))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ArtifactReadError, match=r"manifest\.json"):
        from_json(text)
