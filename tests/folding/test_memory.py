"""Folding holds a few tensors at a time, however many there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import graphfreeze

VARIABLES, ROWS, COLUMNS = 16, 1024, 2048
VARIABLE_BYTES = 4 * ROWS * COLUMNS

MEASURE = """
import json, resource, sys

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

from graphfreeze import fold
small, small_state, large, large_state, target = sys.argv[1:]
# What TensorFlow itself needs before it reads and writes anything.
fold(small, target + "/small", state=small_state)
before = peak()
fold(large, target + "/large", state=large_state)
print(json.dumps({"before": before, "peak": peak()}))
"""


def make(directory: Path, variables: int, rows: int) -> tuple[Path, Path]:
    """The OUT of a rewrite, and a trained state."""
    directory.mkdir()
    module = tf.Module()
    value = np.arange(rows * COLUMNS, dtype=np.float32).reshape(rows, COLUMNS)
    module.kernels = [tf.Variable(value + i, name=f"kernel{i}") for i in range(variables)]

    @tf.function(input_signature=[tf.TensorSpec([None, rows], tf.float32)])
    def serve(x: Any) -> Any:
        return tf.add_n([tf.matmul(x, kernel) for kernel in module.kernels])

    module.serve = serve
    tf.saved_model.save(module, str(directory / "model"))
    selections = [graphfreeze.Selection("freeze", text) for text in ("kernel*[0]", "kernel0[1] := 5")]
    graphfreeze.rewrite(directory / "model", directory / "out", selections, onnx=False, checks="static")
    for kernel in module.kernels:
        kernel.assign(kernel * 0.5)
    return directory / "out", Path(tf.train.Checkpoint(module).write(str(directory / "state")))


def test_the_peak_is_that_of_a_few_variables(tmp_path: Path) -> None:
    small, large = make(tmp_path / "one", 2, 8), make(tmp_path / "many", VARIABLES, ROWS)
    # Linux hands the peak memory of a process on to what it becomes by exec, but not to what the shell forks.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", MEASURE]
    arguments = [str(path) for path in (*small, *large, tmp_path)]
    finished = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    print(f"{(found['peak'] - found['before']) / VARIABLE_BYTES:.1f} of {VARIABLES} variables")
    # Two in a part, with a copy of TensorFlow's, and one that is being merged. All of them would be 16.
    assert found["peak"] - found["before"] < 6 * VARIABLE_BYTES

    state = tf.train.load_checkpoint(str(large[1]))
    folded = tf.train.load_checkpoint(str(tmp_path / "large" / "variables" / "variables"))
    assert folded.get_variable_to_shape_map() == state.get_variable_to_shape_map()
    for i in range(VARIABLES):
        key = f"kernels/{i}/.ATTRIBUTES/VARIABLE_VALUE"
        expected = state.get_tensor(key)
        expected[0] = expected[0] * 2
        if i == 0:
            expected[1] = 5
        assert np.array_equal(folded.get_tensor(key), expected)
