"""A rewritten model converts to LiteRT's format, with its masks folded into the weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from .conftest import Array, Rewritten


def convert(directory: Path) -> bytes:
    content: bytes = tf.lite.TFLiteConverter.from_saved_model(str(directory)).convert()
    return content


def run(content: bytes, x: Array) -> Array:
    """The outputs of a converted model, an example at a time."""
    with warnings.catch_warnings():
        # The interpreter moves to a package of its own.
        warnings.simplefilter("ignore")
        signature = tf.lite.Interpreter(model_content=content).get_signature_runner("serving_default")
    return np.concatenate([signature(x=row[None])["output_0"] for row in x])


def serve(directory: Path, x: Array) -> Array:
    loaded = tf.saved_model.load(str(directory))
    outputs: Array = loaded.serve(x).numpy()
    return outputs


@pytest.mark.parametrize("trained", [False, True])
def test_it_converts(rewritten: Rewritten, tmp_path: Path, trained: bool) -> None:
    directory = rewritten.saved_model
    if trained:
        loaded = tf.saved_model.load(str(directory))
        for variable in loaded.trainable_variables:
            variable.assign(variable * 0.5 + 0.125)
        tf.saved_model.save(loaded, str(tmp_path / "trained"), signatures=loaded.signatures)
        directory = tmp_path / "trained"
    content = convert(directory)
    expected, before = serve(directory, rewritten.x), serve(rewritten.original, rewritten.x)
    # The converter merges the statistics of batch normalization into weights: bits differ, as for any other model.
    np.testing.assert_allclose(run(content, rewritten.x), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - before).max() > 0.01
    if not trained:
        # No mask is left.
        assert len(content) == len(convert(rewritten.original))
