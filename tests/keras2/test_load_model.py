"""What tf_keras makes of rewritten Keras 2 saves: it refuses them by name, or trains them frozen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.checks.keras2 import check_kept
from graphfreeze.errors import ModelReadError, UnsupportedError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.storage import Storage
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.keras_metadata import keras_notes, read_keras_metadata
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import FreezePlan, Selection, resolve_plan

from .conftest import Saved, rewrite
from .models import Scale, inputs

REFUSED = "graphfreeze froze weights of this model: load it with tf.saved_model.load, or rewrite the original with"
PART = ("**[..., 0]",)


def notes(directory: Path) -> dict[int, Any]:
    """What the file notes, by object."""
    saved = read_keras_metadata(directory / "keras_metadata.pb")
    graph = SavedModel.load(directory).object_graph
    return {note.node: (note.message.identifier, note.read()) for note in keras_notes(graph, saved, directory)}


def by_name(variables: Any) -> dict[str, Any]:
    return {v.name.split(":")[0]: v for v in variables}


def kept_report(original: Path, rewritten: Path, plan: FreezePlan) -> dict[str, Any]:
    return check_kept(original, rewritten, SavedModel.load(original).variables, plan)


def put_back(model: Any, plan: FreezePlan) -> None:
    """Write the frozen values into the storage of frozen elements, where weight decay may have moved them."""
    stored = by_name(model.variables)
    for frozen in plan.variables:
        variable = stored[frozen.variable.name]
        variable.assign(np.where(frozen.full_mask, variable.numpy(), frozen.value))


def as_in_tensorflow_2_4(source: Path, target: Path) -> Path:
    """The same model with its notes in the object graph."""
    shutil.copytree(source, target)
    proto = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    saved = read_keras_metadata(source / "keras_metadata.pb")
    assert saved is not None
    for entry in saved.nodes:
        proto.meta_graphs[0].object_graph_def.nodes[entry.node_id].user_object.metadata = entry.metadata
    (target / "saved_model.pb").write_bytes(proto.SerializeToString(deterministic=True))
    (target / "keras_metadata.pb").unlink()
    return target


@pytest.mark.parametrize("selector", ["conv/kernel", "bn/moving_mean", "**/factor", "out/bias[0]", "Adam/m/out/bias"])
@pytest.mark.parametrize("format_of", ["2.5", "2.4"])
def test_load_model_refuses_whichever_layer_is_concerned(
    saved: Saved, tmp_path: Path, selector: str, format_of: str
) -> None:
    original = saved("image")
    if format_of == "2.4":
        original = as_in_tensorflow_2_4(original, tmp_path / "original")
    plan = rewrite(original, tmp_path / "out", (selector,), "refuse")
    assert prove(original, tmp_path / "out", plan)["keras_2"]["mode"] == "refuse"
    for options in ({}, {"compile": False}, {"custom_objects": {"Scale": Scale}}):
        with pytest.raises(ValueError, match=f"Unknown layer: '{REFUSED}"):
            tf_keras.models.load_model(str(tmp_path / "out"), **options)


def test_a_model_that_keras_revives_anyway_is_refused_too(saved: Saved, tmp_path: Path) -> None:
    plan = rewrite(saved("subclassed"), tmp_path / "out", ("**/scale[0]",), "refuse")
    evidence = prove(saved("subclassed"), tmp_path / "out", plan)["keras_2"]
    assert evidence == {"mode": "refuse", "noted": 2, "retagged": 1}
    with pytest.raises(ValueError, match=REFUSED):
        tf_keras.models.load_model(str(tmp_path / "out"))


def test_an_object_without_a_configuration_is_refused_too(saved: Saved, tmp_path: Path) -> None:
    """Keras writes this where a class has no get_config, and takes the saved functions then."""
    shutil.copytree(saved("subclassed"), tmp_path / "in")
    entries = read_keras_metadata(tmp_path / "in" / "keras_metadata.pb")
    assert entries is not None
    for node in entries.nodes:
        node.metadata = json.dumps(json.loads(node.metadata) | {"config": {"layer was saved without config": True}})
    (tmp_path / "in" / "keras_metadata.pb").write_bytes(entries.SerializeToString())
    tf_keras.models.load_model(str(tmp_path / "in"))
    plan = rewrite(tmp_path / "in", tmp_path / "out", ("**/scale[0]",), "refuse")
    assert prove(tmp_path / "in", tmp_path / "out", plan)["proven"]
    with pytest.raises(ValueError, match=REFUSED):
        tf_keras.models.load_model(str(tmp_path / "out"))


@pytest.mark.parametrize("mode", ["refuse", "keep"])
def test_only_what_reaches_a_targeted_variable_is_retagged(saved: Saved, tmp_path: Path, mode: Any) -> None:
    rewrite(saved("sequence"), tmp_path / "out", ("gru/**", "inner/kernel"), mode)
    before, after = notes(saved("sequence")), notes(tmp_path / "out")
    changed = {note["name"]: after[node] for node, (_, note) in before.items() if after[node] != before[node]}
    layers = {"gru", "gru_cell", "inner"}
    assert changed.keys() == (layers | {"net", "nested"} if mode == "refuse" else layers)
    if mode == "keep":
        assert changed["gru"][0] == "_tf_keras_layer" and changed["gru"][1]["class_name"] == "GraphFrozen>GRU"


@pytest.mark.parametrize("name", ["image", "sequence"])
def test_tensorflow_trains_frozen(saved: Saved, tmp_path: Path, name: str) -> None:
    plan = rewrite(saved(name), tmp_path / "out", PART, "refuse")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    x = tf.constant(inputs(name))
    before = {path: v.numpy() for path, v in by_name(loaded.trainable_variables).items()}
    optimizer = tf_keras.optimizers.AdamW(0.1, weight_decay=0.1)
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(loaded(x, training=True) ** 2) + sum(r() for r in loaded.regularization_losses)
        gradients = tape.gradient(loss, loaded.trainable_variables)
        optimizer.apply_gradients(zip(gradients, loaded.trainable_variables, strict=True))
    named = dict(zip(by_name(loaded.trainable_variables), gradients, strict=True))
    for frozen in plan.variables:
        mask = frozen.full_mask
        assert not named[frozen.variable.name].numpy()[~mask].any()
        moved = by_name(loaded.variables)[frozen.variable.name].numpy() != before[frozen.variable.name]
        assert moved[mask].any() or not mask.any()
    expected = loaded(x, training=False).numpy()
    put_back(loaded, plan)
    assert loaded(x, training=False).numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["image", "sequence"])
def test_the_check_passes_on_kept_models(saved: Saved, tmp_path: Path, name: str) -> None:
    plan = rewrite(saved(name), tmp_path / "out", PART, "keep")
    evidence = prove(saved(name), tmp_path / "out", plan)["keras_2"]
    assert evidence["mode"] == "keep" and evidence["retagged"] > 3
    assert kept_report(saved(name), tmp_path / "out", plan)["passed"]


def test_kept_models_compile_and_fit_under_weight_decay(saved: Saved, tmp_path: Path) -> None:
    plan = rewrite(saved("image"), tmp_path / "out", PART, "keep")
    model = tf_keras.models.load_model(str(tmp_path / "out"))
    original = tf_keras.models.load_model(str(saved("image")))
    x = inputs("image")
    y = np.zeros(model(x).shape, np.float32)
    assert by_name(model.trainable_variables).keys() == by_name(original.trainable_variables).keys()
    model(x), original(x)
    assert [float(loss) for loss in model.losses] == [float(loss) for loss in original.losses]
    assert len(model.losses) == 2
    model.compile(tf_keras.optimizers.AdamW(0.1, weight_decay=0.1), "mean_squared_error")
    history = model.fit(x, y, epochs=3, batch_size=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    stored = by_name(model.variables)
    drifted = [f for f in plan.variables if (stored[f.variable.name].numpy() != f.value)[~f.full_mask].any()]
    assert drifted, "weight decay moves the storage of frozen elements, or this test shows nothing"
    expected = model(x).numpy()
    put_back(model, plan)
    assert model(x).numpy().tobytes() == expected.tobytes()


def test_registered_classes_and_old_formats_are_kept(saved: Saved, tmp_path: Path) -> None:
    original = as_in_tensorflow_2_4(saved("image"), tmp_path / "original")
    plan = rewrite(original, tmp_path / "out", ("**/factor[0] := 7",), "keep")
    assert prove(original, tmp_path / "out", plan)["keras_2"]["mode"] == "keep"
    assert kept_report(original, tmp_path / "out", plan)["passed"]
    model = tf_keras.models.load_model(str(tmp_path / "out"), custom_objects={"Scale": Scale})
    assert [type(layer).__name__ for layer in model.layers if layer.name == "scale"] == ["GraphFrozen>tests>Scale"]


def test_constants_in_the_checkpoint_are_kept_too(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("image"))
    plan = resolve_plan([Selection("freeze", "**/kernel[0]")], model)
    write(freeze_reads(model, plan, keras2="keep", storage=Storage(total=0, each=0)), tmp_path / "out")
    proof = prove(saved("image"), tmp_path / "out", plan)
    assert proof["stored_constants"] and proof["keras_2"]["mode"] == "keep"
    assert kept_report(saved("image"), tmp_path / "out", plan)["passed"]


def test_a_lost_mask_is_found_when_it_is_tried(saved: Saved, tmp_path: Path) -> None:
    plan = rewrite(saved("averaged"), tmp_path / "out", ("embedding/embeddings[0]",), "keep")
    assert prove(saved("averaged"), tmp_path / "out", plan)["proven"]
    with pytest.raises(UnsupportedError, match="outputs of the revived model differ from those of the original"):
        kept_report(saved("averaged"), tmp_path / "out", plan)
    plan = rewrite(saved("averaged"), tmp_path / "second", ("out/kernel[0]",), "keep")
    assert kept_report(saved("averaged"), tmp_path / "second", plan)["passed"]


@pytest.mark.parametrize(
    ("selector", "message"),
    [("object:keras_api/metrics/0/total", "belongs to the metric"), ("Adam/m/out/bias", "belongs to no layer")],
)
def test_variables_outside_of_layers_cannot_be_kept(saved: Saved, tmp_path: Path, selector: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        rewrite(saved("image"), tmp_path / "out", (selector,), "keep")


def test_an_earlier_refusal_cannot_be_kept(saved: Saved, tmp_path: Path) -> None:
    rewrite(saved("image"), tmp_path / "out", ("out/bias",), "refuse")
    with pytest.raises(UnsupportedError, match="rewrite the original with --keras2 keep"):
        rewrite(tmp_path / "out", tmp_path / "again", ("out/bias",), "keep")


def test_linking_leaves_the_original_alone(saved: Saved, tmp_path: Path) -> None:
    before = (saved("image") / "keras_metadata.pb").read_bytes()
    model = SavedModel.load(saved("image"))
    rewritten = freeze_reads(model, resolve_plan([Selection("freeze", "out/bias")], model))
    write(rewritten, tmp_path / "out", link=True)
    assert (saved("image") / "keras_metadata.pb").read_bytes() == before
    assert not (saved("image") / "keras_metadata.pb").samefile(tmp_path / "out" / "keras_metadata.pb")


@pytest.mark.parametrize("damage", ["bytes", "json", "object"])
def test_corrupt_notes_are_refused_by_name(saved: Saved, tmp_path: Path, damage: str) -> None:
    shutil.copytree(saved("image"), tmp_path / "in")
    file = tmp_path / "in" / "keras_metadata.pb"
    entries = read_keras_metadata(file)
    assert entries is not None
    if damage == "json":
        entries.nodes[0].metadata = json.dumps(["no", "object"])
    elif damage == "object":
        entries.nodes[0].node_id = 10_000
    file.write_bytes(b"\x0a\xff" if damage == "bytes" else entries.SerializeToString())
    with pytest.raises(ModelReadError, match=r"keras_metadata\.pb"):
        rewrite(tmp_path / "in", tmp_path / "out", ("out/bias",), "refuse")
