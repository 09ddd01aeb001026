"""Keras 2 saves: what `tf_keras.models.load_model` makes of a rewritten model.

It builds layers anew from their configuration, with reads that nobody masked. So the configuration is taken from it:
either loading fails with a message that says what to do, or layers come back with the functions that were saved with
them, in which the reads are masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from graphfreeze.errors import UnsupportedError
from graphfreeze.savedmodel.keras_metadata import KerasNote, keras_notes, objects_reaching
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["REFUSAL", "TAG", "Keras2Mode", "retag"]

Keras2Mode = Literal["refuse", "keep"]

REFUSAL = (
    "graphfreeze froze weights of this model: load it with tf.saved_model.load, "
    "or rewrite the original with --keras2 keep"
)
"""A class name that does not exist. Keras says so: Unknown layer: '...'."""

TAG = "GraphFrozen>"
"""Before a class name: a class that does not exist, so that Keras falls back on the saved functions."""


def retag(
    graph: Any, saved: Any | None, targets: Mapping[int, FrozenVariable], mode: Keras2Mode, directory: Path
) -> list[str]:
    """Change what Keras 2 notes of each layer that reaches a targeted variable, and of nothing else.

    Args:
        graph: The `SavedObjectGraph`, which may hold notes. It is changed.
        saved: The `SavedMetadata` of `keras_metadata.pb`, if there is one. It is changed.
        targets: Object node -> targeted variable.
        mode: `refuse`: loading fails. `keep`: layers come back with their saved functions.
        directory: The model's directory, for messages.

    Returns:
        The names of the retagged layers and models, as Keras has them.

    Raises:
        UnsupportedError: With `keep`: a targeted variable belongs to a metric, or to no layer, or the model is the
            result of a rewrite that refuses.
        ModelReadError: The notes are corrupt.
    """
    all_notes = keras_notes(graph, saved, directory)
    reaching = objects_reaching(graph, targets)
    if mode == "refuse":
        # The root too, should a variable hang on no object that Keras knows: something has to fail.
        reaching |= {0} if targets else set()
        return [_refuse(note) for note in all_notes if note.node in reaching]
    notes = [note for note in all_notes if note.node in reaching]
    kept = {note.node: name for note in notes if (name := _keep(note)) is not None}
    for node, frozen in targets.items():
        if all_notes and kept.keys().isdisjoint(objects_reaching(graph, [node])):
            raise UnsupportedError(
                f"{frozen.variable.name} ({frozen.variable.object_path}) belongs to no layer of {directory}, so that "
                "--keras2 keep cannot keep it frozen. Leave it out of the selection, or use --keras2 refuse."
            )
    return list(kept.values())


def _refuse(note: KerasNote) -> str:
    metadata = note.read()
    name = str(metadata.get("name", ""))
    # Keras looks for the class, and fails, only where there is a configuration that must be used (one that says that it
    # is none does not count); a graph network it would build without looking for its class.
    metadata["class_name"] = REFUSAL
    metadata["must_restore_from_config"] = True
    if metadata.get("is_graph_network") is True:
        metadata["is_graph_network"] = False
    metadata["config"] = {}
    note.write(metadata)
    return name


def _keep(note: KerasNote) -> str | None:
    """Tag the class; returns the layer's name, or None where there is nothing to tag."""
    metadata = note.read()
    class_name = str(metadata.get("class_name", ""))
    name = str(metadata.get("name", ""))
    if class_name == REFUSAL:
        raise UnsupportedError(
            f"{note.origin} is of a model that was rewritten with --keras2 refuse, which does not know its layers any "
            "more: rewrite the original with --keras2 keep."
        )
    if note.message.identifier == "_tf_keras_metric":
        raise UnsupportedError(
            f"a targeted variable belongs to the metric {name!r}, which tf_keras always builds anew: leave it out of "
            "the selection, or use --keras2 refuse."
        )
    if class_name in ("Functional", "Sequential") or (
        class_name == "Model" and metadata.get("is_graph_network") is True
    ):
        # Put together from its layers, which are tagged themselves where they reach the variable.
        return None
    if not class_name.startswith(TAG):
        metadata["class_name"] = TAG + class_name
        note.write(metadata)
    if note.message.identifier == "_tf_keras_rnn_layer":
        # Keras has no way to bring back a recurrent layer with its saved functions, but for its being one.
        note.message.identifier = "_tf_keras_layer"
    return name
