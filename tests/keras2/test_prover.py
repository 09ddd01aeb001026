"""The prover accepts the two ways of retagging and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import ModelReadError, VerificationError
from graphfreeze.passes.keras2 import REFUSAL, TAG
from graphfreeze.prover import keras2, prove
from graphfreeze.savedmodel.keras_metadata import read_keras_metadata
from graphfreeze.selection import FreezePlan

from .conftest import Saved, rewrite
from .test_load_model import as_in_tensorflow_2_4

Damage = Callable[[Any], None]


def entry(saved: Any, name: str) -> Any:
    return next(node for node in saved.nodes if json.loads(node.metadata).get("name") == name)


def noting(name: str, **values: Any) -> Damage:
    """Change what is noted of an object."""

    def damage(saved: Any) -> None:
        found = entry(saved, name)
        metadata = json.loads(found.metadata)
        for key, value in values.items():
            if value is None:
                metadata.pop(key)
            else:
                metadata[key] = value
        found.metadata = json.dumps(metadata)

    return damage


def field(name: str, key: str, value: Any) -> Damage:
    return lambda saved: setattr(entry(saved, name), key, value)


DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "a layer that would be built anew": ("keep", noting("conv", class_name="Conv2D"), "conv"),
    "a known class": ("keep", noting("conv", class_name="Dense"), "conv"),
    "another configuration": ("keep", noting("conv", config={"filters": 4}), "conv"),
    "another dtype": ("keep", noting("conv", dtype="float16"), "conv"),
    "a layer forced to its configuration": ("keep", noting("conv", must_restore_from_config=True), "conv"),
    "1 for true": ("keep", noting("conv", trainable=1), "conv"),
    "a note more": ("keep", noting("conv", extra="x"), "conv"),
    "an untargeted layer retagged": ("keep", noting("out", class_name=TAG + "Dense"), "out"),
    "an untargeted layer changed": ("keep", noting("out", stateful=True), "no targeted variable is in"),
    "a metric changed": ("keep", noting("loss", class_name="Sum"), "loss"),
    "a network changed": ("keep", noting("net", class_name="Model"), "net"),
    "another identifier": ("keep", field("conv", "identifier", "_tf_keras_model"), "conv"),
    "another path": ("keep", field("conv", "node_path", "root.x"), "Keras entry"),
    "another object": ("keep", field("conv", "node_id", 3), "Keras entry"),
    "no JSON": ("keep", field("conv", "metadata", "{"), "JSON"),
    "a name twice": ("keep", field("conv", "metadata", '{"name": "a", "name": "b"}'), "JSON"),
    "an entry less": ("keep", lambda saved: saved.nodes.pop(), "entries"),
    "a network that is still one": ("refuse", noting("net", is_graph_network=True), "net"),
    "a class that is not looked for": ("refuse", noting("net", must_restore_from_config=False), "net"),
    "a refusal without a configuration": ("refuse", noting("net", config=None), "net"),
    "a configuration that says it is none": (
        "refuse",
        noting("net", config={"layer was saved without config": True}),
        "net",
    ),
    "another refusal": ("refuse", noting("net", class_name="Unknown"), "net"),
    "a layer that does not refuse": ("refuse", noting("conv", class_name="Conv2D"), "conv"),
    "a layer of the other mode": ("refuse", noting("conv", class_name=TAG + "Conv2D"), "conv"),
    "an untargeted layer that refuses": ("refuse", noting("out", class_name=REFUSAL), "out"),
}


@pytest.fixture(scope="module")
def frozen(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, FreezePlan]]:
    """Mode -> the image model with its convolution frozen in part, and the plan."""
    made = {}
    for mode in ("refuse", "keep"):
        out = tmp_path_factory.mktemp(mode) / "out"
        made[mode] = out, rewrite(saved("image"), out, ("conv/kernel[0]",), mode)
    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_other_note_is_caught(saved: Saved, frozen: Any, tmp_path: Path, damage: str) -> None:
    mode, change, message = DAMAGES[damage]
    source, plan = frozen[mode]
    assert prove(saved("image"), source, plan)["keras_2"]["mode"] == mode
    shutil.copytree(source, tmp_path / "out")
    file = tmp_path / "out" / "keras_metadata.pb"
    entries = read_keras_metadata(file)
    assert entries is not None
    change(entries)
    file.write_bytes(entries.SerializeToString(deterministic=True))
    with pytest.raises(VerificationError, match=message):
        prove(saved("image"), tmp_path / "out", plan)


@pytest.mark.parametrize("content", [b"\x0a\xff", b"\x0b", b"\x12\x00", b"\x0a\x02\x22\x05", b"\x0a\x02\x10\x80"])
def test_corrupt_files_are_caught(saved: Saved, frozen: Any, tmp_path: Path, content: bytes) -> None:
    rewritten, plan = frozen["keep"]
    for name, source in (("in", saved("image")), ("out", rewritten)):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / "keras_metadata.pb").write_bytes(content)
    with pytest.raises(VerificationError, match="what Keras 2 writes"):
        prove(saved("image"), tmp_path / "out", plan)
    with pytest.raises(ModelReadError, match="is corrupt"):
        prove(tmp_path / "in", rewritten, plan)


def test_missing_and_added_files_are_caught(saved: Saved, frozen: Any, tmp_path: Path) -> None:
    source, plan = frozen["keep"]
    shutil.copytree(source, tmp_path / "out")
    (tmp_path / "out" / "keras_metadata.pb").unlink()
    with pytest.raises(VerificationError, match=r"keras_metadata\.pb of the original, found none"):
        prove(saved("image"), tmp_path / "out", plan)
    shutil.copytree(saved("image"), tmp_path / "in")
    (tmp_path / "in" / "keras_metadata.pb").unlink()
    with pytest.raises(VerificationError, match=r"added file keras_metadata\.pb"):
        prove(tmp_path / "in", source, plan)


def test_notes_in_the_object_graph_are_compared_too(saved: Saved, tmp_path: Path) -> None:
    original = as_in_tensorflow_2_4(saved("image"), tmp_path / "original")
    plan = rewrite(original, tmp_path / "out", ("conv/kernel[0]",), "keep")
    file = tmp_path / "out" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    noted = [node.user_object for node in proto.meta_graphs[0].object_graph_def.nodes if node.user_object.metadata]
    convolution = next(user for user in noted if TAG in user.metadata)
    whole = convolution.metadata
    for text in (whole.replace(TAG, ""), whole.replace('"filters": 3', '"filters": 4'), ""):
        convolution.metadata = text
        file.write_bytes(proto.SerializeToString(deterministic=True))
        with pytest.raises(VerificationError):
            prove(original, tmp_path / "out", plan)
    convolution.metadata, convolution.version.producer = whole, 7
    file.write_bytes(proto.SerializeToString(deterministic=True))
    with pytest.raises(VerificationError, match=r"user_object|version"):
        prove(original, tmp_path / "out", plan)


def test_a_freeze_that_load_model_would_lose_is_not_proven(saved: Saved, tmp_path: Path) -> None:
    """A variable of a metric, and one that no layer holds, rewritten for refusal but noted as if kept."""
    for selector in ("object:keras_api/metrics/0/total", "Adam/m/out/bias"):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        plan = rewrite(saved("image"), tmp_path / "out", (selector,), "refuse")
        shutil.copyfile(saved("image") / "keras_metadata.pb", tmp_path / "out" / "keras_metadata.pb")
        with pytest.raises(VerificationError, match=r"metric|does not build it anew"):
            prove(saved("image"), tmp_path / "out", plan)


def test_both_sides_mean_the_same_names() -> None:
    assert (keras2.REFUSING_CLASS, keras2.KEEPING_PREFIX) == (REFUSAL, TAG)
