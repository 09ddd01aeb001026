from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graphfreeze.artifact.frozen import differing_bits, read_frozen_elements
from graphfreeze.artifact.inspect import inspect_artifact
from graphfreeze.artifact.layout import to_stored, to_tensorflow
from graphfreeze.artifact.manifest import SlicesEntry
from graphfreeze.artifact.reader import Artifact, read_artifact
from graphfreeze.artifact.tensors import TensorFile
from graphfreeze.errors import ArtifactReadError
from tests.artifact.toy import KERNEL, LEARNING_RATE, MASK, PROJECTION, STATE, build_manifest, stored, write_plan

FILES = [
    "train_step.onnx",
    "gradients.onnx",
    "apply_gradients.onnx",
    "forward.onnx",
    "constants.bin",
    "state.safetensors",
    "reference.safetensors",
]


def test_out_and_its_training_directory_are_both_understood(out: Path) -> None:
    assert read_artifact(out).directory == read_artifact(str(out / "training")).directory == out / "training"


def test_an_intact_artifact_has_the_hashes_of_its_manifest(out: Path) -> None:
    artifact = read_artifact(out)
    assert sorted(artifact.manifest.files) == sorted(FILES)
    artifact.verify_hashes()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_found(out: Path, name: str) -> None:
    content = bytearray((out / "training" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / "training" / name).write_bytes(content)
    with pytest.raises(ArtifactReadError, match=f"{name} is corrupt"):
        read_artifact(out).verify_hashes()


def test_a_missing_file_is_named(out: Path) -> None:
    (out / "training" / "forward.onnx").unlink()
    with pytest.raises(ArtifactReadError, match=r"forward\.onnx is listed in manifest\.json and cannot be read"):
        read_artifact(out).verify_hashes()


def test_what_is_no_artifact_is_refused_in_one_line(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "nothing", "does not exist"), (tmp_path, "holds no training/manifest.json")):
        with pytest.raises(ArtifactReadError, match=found) as caught:
            read_artifact(path)
        assert "\n" not in str(caught.value)


def test_a_corrupt_manifest_is_refused(out: Path) -> None:
    path = out / "training" / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactReadError, match=r"manifest\.json is not valid JSON"):
        read_artifact(out)


def test_a_manifest_whose_graph_takes_the_unknown_is_refused(out: Path) -> None:
    path = out / "training" / "manifest.json"
    document = json.loads(path.read_text())
    document["graphs"]["train_step"]["inputs"].append("secret")
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactReadError, match=r"train_step\.onnx has the unknown input secret"):
        read_artifact(out)


@pytest.mark.parametrize("graph", ["gradients", "forward"])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_manifest_that_lists_a_tensor_twice_is_refused(out: Path, graph: str, side: str) -> None:
    path = out / "training" / "manifest.json"
    document = json.loads(path.read_text())
    names = document["graphs"][graph][side]
    names.append(names[0])
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactReadError, match=rf"{graph}\.onnx lists {names[0]} twice"):
        read_artifact(out)


def test_a_state_of_another_shape_is_refused(out: Path) -> None:
    path = out / "training" / "manifest.json"
    document = json.loads(path.read_text())
    document["state"][1]["shape"] = [4]
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactReadError, match=r"conv/bias is float32\[3\], the manifest says float32\[4\]"):
        _ = read_artifact(out).state


def test_bytes_that_are_no_bools_are_refused(tmp_path: Path) -> None:
    save_file({"on": np.array([1, 0, 2], np.uint8).view(np.bool_)}, tmp_path / "state.safetensors")
    with pytest.raises(ArtifactReadError, match=r"state\.safetensors: the tensor on holds the byte 2, expected bools"):
        _ = TensorFile(tmp_path / "state.safetensors")["on"]


def test_layouts_are_inverse() -> None:
    entry = build_manifest().state[0]
    back = to_tensorflow(to_stored(KERNEL, entry), entry)
    assert to_stored(KERNEL, entry).shape == entry.stored_shape == (3, 2, 2, 2)
    assert to_stored(KERNEL, entry)[2, 1, 0, 1] == KERNEL[0, 1, 1, 2]
    np.testing.assert_array_equal(back, KERNEL)


def test_frozen_elements_are_in_the_stored_layout(out: Path) -> None:
    frozen = read_frozen_elements(read_artifact(out))
    assert frozen is not None
    assert frozen.elements == 9
    np.testing.assert_array_equal(frozen.partly["conv/kernel"].frozen, ~MASK.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(frozen.wholly["head/projection"], PROJECTION)


def test_changed_frozen_elements_are_counted(out: Path) -> None:
    frozen = read_frozen_elements(read_artifact(out))
    assert frozen is not None
    kernel = KERNEL.copy()
    kernel[MASK] += 1
    assert frozen.changed(stored({**STATE, "conv/kernel": kernel})) == {}
    kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], np.float32(9))
    kernel[1, 1, 1, 1] = np.nan
    assert frozen.changed(stored({**STATE, "conv/kernel": kernel})) == {"conv/kernel": 2}


def test_a_plan_that_freezes_another_number_of_elements_is_refused(out: Path) -> None:
    mask = MASK.copy()
    mask[1, 1, 1, 1] = True
    write_plan(out, mask)
    with pytest.raises(ArtifactReadError, match="conv/kernel has 8 frozen elements in the plan, 9 in the manifest"):
        read_frozen_elements(read_artifact(out))


def sliced(out: Path, count: int) -> Artifact:
    """The artifact whose kernel is stored as some of its filters."""
    artifact = read_artifact(out)
    entry = dataclasses.replace(artifact.manifest.state[0], trained_slices=SlicesEntry(3, count))
    manifest = dataclasses.replace(artifact.manifest, state=(entry, *artifact.manifest.state[1:]))
    return dataclasses.replace(artifact, manifest=manifest)


def test_slices_that_are_not_stored_come_from_the_plan(out: Path) -> None:
    """Of the three filters, the second is frozen as a whole, and one element of the first."""
    artifact = sliced(out, 2)
    entry, frozen = artifact.manifest.state[0], read_frozen_elements(artifact)
    assert frozen is not None
    assert (entry.stored_shape, entry.whole_stored_shape) == ((2, 2, 2, 2), (3, 2, 2, 2))
    kept = KERNEL[..., [0, 2]].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(frozen.to_stored(KERNEL, entry), kept)
    np.testing.assert_array_equal(frozen.to_tensorflow(kept, entry), KERNEL)
    moved = frozen.to_tensorflow(kept + 1, entry)
    np.testing.assert_array_equal(moved[..., 1], KERNEL[..., 1])
    np.testing.assert_array_equal(moved[..., [0, 2]], KERNEL[..., [0, 2]] + 1)
    part = frozen.partly["conv/kernel"]
    assert frozen.elements == 9
    assert np.count_nonzero(part.stored_frozen) == part.changed(kept + 1) == 1
    gradient = part.whole_gradient(kept)
    assert not gradient[1].any() and np.array_equal(gradient[[0, 2]], kept)


def test_a_plan_that_trains_other_slices_is_refused(out: Path) -> None:
    with pytest.raises(ArtifactReadError, match="other slices of conv/kernel train in the plan"):
        read_frozen_elements(sliced(out, 1))


def test_without_the_plan_what_is_frozen_is_unknown(out: Path) -> None:
    (out / "plan").rename(out / "elsewhere")
    assert read_frozen_elements(read_artifact(out)) is None


@pytest.mark.parametrize(
    ("first", "second", "different"),
    [
        ([0.0, np.nan, 1.0], [-0.0, np.nan, 1.0], [True, False, False]),
        (np.array(1, np.int64), np.array(1, np.int64), False),
        (np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2), bool)),
    ],
)
def test_bits_differ_where_they_differ(first: object, second: object, different: object) -> None:
    np.testing.assert_array_equal(differing_bits(np.asarray(first), np.asarray(second)), different)


def test_the_summary_is_ready_for_json(out: Path) -> None:
    summary = json.loads(json.dumps(inspect_artifact(out)))
    assert summary["kind"] == "artifact"
    assert summary["elements"] == 24 + 3 + 3 + 384
    assert summary["frozen_elements"] == 9 + 384
    assert summary["hyperparameters"] == {"learning_rate": LEARNING_RATE}
    assert summary["files"]["constants.bin"] == PROJECTION.nbytes
    assert [entry["name"] for entry in summary["batch"]] == ["image", "y"]
