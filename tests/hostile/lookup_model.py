"""The model that is made to do harm, and how it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze.errors import GraphfreezeError, ModelReadError

SHARD = Path("variables") / "variables.data-00000-of-00001"


class Lookup(tf.Module):
    """Two variables, a function that calls another one with them, and a table that reads an asset."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.a = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="a")
        self.b = tf.Variable([[5.0, 6.0], [7.0, 8.0]], name="b")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function
    def product(self, x: Any, v: Any, w: Any) -> Any:
        return tf.matmul(tf.matmul(x, v), w)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None], tf.string)])
    def serve(self, x: Any, words: Any) -> Any:
        return self.product(x, self.a, self.b) + tf.cast(self.table.lookup(words), tf.float32)[:, None]


def rewrite(model: Path, selector: str = "**") -> None:
    selection = graphfreeze.Selection("freeze", selector)
    graphfreeze.rewrite(model, model.parent / "out", [selection], onnx=False, checks="static")


def refused(model: Path, kind: type[GraphfreezeError] = ModelReadError, selector: str = "**") -> str:
    """What is said when the model is refused, in one line and with nothing written."""
    with pytest.raises(kind) as caught:
        rewrite(model, selector)
    assert "\n" not in str(caught.value)
    assert not (model.parent / "out").exists()
    return str(caught.value)


def change(model: Path, edit: Callable[[Any], None]) -> None:
    """Edit the meta graph on disk."""
    proto = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    edit(proto.meta_graphs[0])
    (model / "saved_model.pb").write_bytes(proto.SerializeToString())
