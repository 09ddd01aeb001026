"""What else checkpoints hold: elements of odd dtypes, strings, complex numbers, iterators; and damaged compression."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import graphfreeze
from graphfreeze.savedmodel.checkpoint_index import read_index
from graphfreeze.savedmodel.snappy import decompress

from .formats import compressed, snappy

EXPERIMENTAL = tf.dtypes.experimental


class Odd(tf.Module):
    """A weight among values that nobody freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.v = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="v")
        self.others = [
            tf.Variable(tf.cast([1.5, -2.0], EXPERIMENTAL.float8_e4m3fn), name="float8", trainable=False),
            tf.Variable(tf.cast(tf.constant([1, -3], tf.int8), EXPERIMENTAL.int4), name="int4", trainable=False),
            tf.Variable(tf.constant([np.nan, -0.0], tf.bfloat16), name="bfloat16"),
            tf.Variable([1 + 2j], name="complex"),
            tf.Variable([True, False], name="flags"),
            tf.Variable([[b"\0", b"a\0b"], [b"", b"\xff"]], name="labels", trainable=False),
            tf.Variable(np.zeros((0, 3), np.float32), name="empty"),
        ]
        self.generator = tf.random.Generator.from_seed(1)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    def serve(self, x: Any) -> Any:
        return tf.matmul(x, self.v) + self.generator.normal([2])


def contents(prefix: Path) -> dict[str, Any]:
    """Everything in a checkpoint of the model, as bytes, but the object graph."""
    reader = tf.train.load_checkpoint(str(prefix))
    found = {}
    for key, dtype in sorted(reader.get_variable_to_dtype_map().items()):
        if dtype != tf.variant and key != "_CHECKPOINTABLE_OBJECT_GRAPH":
            value = np.asarray(reader.get_tensor(key))
            found[key] = dtype, value.tolist() if dtype == tf.string else value.tobytes()
    return found


def test_everything_survives(tmp_path: Path) -> None:
    tf.saved_model.save(Odd(), str(tmp_path / "model"))
    selections = [graphfreeze.Selection("freeze", text) for text in ("v[0]", "complex", "bfloat16[0]")]
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", selections, onnx=False, checks="static")
    graphfreeze.verify(tmp_path / "model", tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    for variable in (loaded.v, loaded.others[3], loaded.others[2]):
        variable.assign(variable * 2)
    loaded.others[0].assign(tf.cast([8.0, 0.5], EXPERIMENTAL.float8_e4m3fn))
    loaded.others[1].assign(tf.cast(tf.constant([7, -8], tf.int8), EXPERIMENTAL.int4))
    loaded.others[4].assign([False, False])
    loaded.others[5].assign([[b"\0\0", b""], [b"", b"\xfe"]])
    iterator = iter(tf.data.Dataset.range(5))
    next(iterator)
    # An optimizer, a step, an iterator: a state holds more than the model.
    holder = tf.train.Checkpoint(model=loaded, iterator=iterator, step=tf.Variable(3))
    state = Path(holder.write(str(tmp_path / "state")))
    graphfreeze.fold(tmp_path / "out", tmp_path / "deploy", state=state)

    expected = {key.removeprefix("model/"): value for key, value in contents(state).items() if key.startswith("model/")}
    value = ".ATTRIBUTES/VARIABLE_VALUE"
    expected[f"v/{value}"] = tf.float32, np.array([[1, 2], [6, 8]], np.float32).tobytes()
    expected[f"others/3/{value}"] = tf.complex128, np.array([1 + 2j]).tobytes()
    assert contents(tmp_path / "deploy" / "variables" / "variables") == expected
    folded = tf.saved_model.load(str(tmp_path / "deploy"))
    assert folded.serve(tf.ones([1, 2])).shape == (1, 2)


@pytest.mark.parametrize("name", ["float8", "int4", "labels"])
def test_what_cannot_be_frozen_is_refused(tmp_path: Path, name: str) -> None:
    tf.saved_model.save(Odd(), str(tmp_path / "model"))
    with pytest.raises(graphfreeze.UnsupportedError, match=f"variable '{name}' has dtype"):
        selection = graphfreeze.Selection("freeze", name)
        graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [selection], onnx=False, checks="static")


def test_damaged_compression(tmp_path: Path) -> None:
    tf.saved_model.save(Odd(), str(tmp_path / "model"))
    prefix = tmp_path / "model" / "variables" / "variables"
    compressed(prefix)
    assert len(read_index(str(prefix)).entries) == 10
    index = Path(f"{prefix}.index")
    content = index.read_bytes()
    # The first half is within the block of entries; further behind there are bytes that nothing reads.
    rng = np.random.default_rng(0)
    for position in rng.choice(len(content) // 2, 60, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= 1 << rng.integers(8)
        index.write_bytes(damaged)
        with pytest.raises(graphfreeze.ModelReadError):
            graphfreeze.inspect(tmp_path / "model")


@given(st.binary(max_size=200), st.binary(max_size=20))
@settings(max_examples=300)
def test_decompression_says_no(text: bytes, more: bytes) -> None:
    assert decompress(snappy(text)) == text
    for content in (text, snappy(text) + more, snappy(text)[: len(more)]):
        with contextlib.suppress(ValueError):
            assert len(decompress(content)) <= 64 * len(content)
