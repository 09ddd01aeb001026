"""onnxsim: its training loop around the forward graph, simplified, with a loss of operators that it differentiates."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import onnxsim
from onnx import helper, numpy_helper
from onnxsim import compile_training

from tools.bench_cases.sides.side import LEARNING_RATE, Side, load_batch

__all__ = ["make"]

_LOSS = "loss"
_TARGET = "target"


def make(model: str, directory: Path, threads: int, variant: str) -> Side:
    """The step: state stays in onnxruntime's tensors, the labels are one-hot."""
    del model, variant
    _limit_threads(threads)
    forward: Any = onnx.load(directory / "forward.onnx")
    trainable = json.loads((directory / "trainable.json").read_text(encoding="utf-8"))
    _keep(forward, trainable)
    simplified, _ = onnxsim.simplify(forward)
    classes = _add_loss(simplified)
    kept = {tensor.name: tensor for tensor in simplified.graph.initializer}
    loop = compile_training.compile_training_loop(
        simplified, _LOSS, [name for name in trainable if name in kept], optimizer="adam"
    )
    batch = load_batch(directory)
    feeds = {"x": np.ascontiguousarray(batch["x"]), _TARGET: np.eye(classes, dtype=np.float32)[batch["y"]]}
    return Side(
        lambda: float(loop(feeds, LEARNING_RATE)),
        {"onnxsim": importlib.metadata.version("onnxsim")},
        sum(int(np.prod(kept[name].dims)) for name in trainable if name in kept),
    )


def _keep(model: Any, trainable: list[str]) -> None:
    """Make weights that are all zero not quite so: simplification removes an addition of zeros."""
    for tensor in model.graph.initializer:
        if tensor.name in trainable and not np.any(value := numpy_helper.to_array(tensor)):
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, 1e-8), tensor.name))


def _add_loss(model: Any) -> int:
    """Append the mean cross-entropy; returns how many classes there are."""
    logits = model.graph.output[0]
    batch_size, classes = (size.dim_value for size in logits.type.tensor_type.shape.dim)
    initializers: Mapping[str, npt.NDArray[Any]] = {
        "loss/axes": np.array([0, 1], np.int64),
        "loss/scale": np.array(-1.0 / batch_size, np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in initializers.items())
    nodes: list[tuple[str, list[str], str, Any]] = [
        ("Softmax", [logits.name], "loss/probabilities", {"axis": 1}),
        ("Log", ["loss/probabilities"], "loss/logarithms", {}),
        ("Mul", ["loss/logarithms", _TARGET], "loss/chosen", {}),
        ("ReduceSum", ["loss/chosen", "loss/axes"], "loss/sum", {"keepdims": 0}),
        ("Mul", ["loss/sum", "loss/scale"], _LOSS, {}),
    ]
    model.graph.node.extend(helper.make_node(kind, ins, [out], **attributes) for kind, ins, out, attributes in nodes)
    floats = onnx.TensorProto.FLOAT
    model.graph.input.append(helper.make_tensor_value_info(_TARGET, floats, [batch_size, classes]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(_LOSS, floats, []))
    return int(classes)


def _limit_threads(threads: int) -> None:
    """Sessions are made inside of onnxsim, which has no option for their threads."""
    make_session = onnxruntime.InferenceSession

    def limited(model: Any, sess_options: Any = None, *arguments: Any, **options: Any) -> Any:
        sess_options = sess_options or onnxruntime.SessionOptions()
        sess_options.intra_op_num_threads = threads
        return make_session(model, sess_options, *arguments, **options)

    onnxruntime.InferenceSession = limited
