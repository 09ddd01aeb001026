"""A small artifact made by hand, with an independent account of what it should compute.

    z = flatten(image) @ kernel + bias + offset        kernel in OIHW, some of its elements frozen
    prediction = z @ projection                        frozen as a whole: a constant of the graphs
    loss = mean((prediction - y)^2)
    momentum: m' = 0.9 m - learning_rate * gradient; new = where(mask, old + m', frozen)

`moving_mean` and the uint32 `seed` are model state, `iteration` a 0-d int64, `learning_rate` a 0-d float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphfreeze.artifact.layout import to_stored
from graphfreeze.artifact.manifest import (
    BatchEntry,
    FrozenEntry,
    GraphEntry,
    LossEntry,
    Manifest,
    OptimizerEntry,
    StateEntry,
)
from graphfreeze.artifact.writer import write_artifact
from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.plan_files import save_plan
from graphfreeze.selection.variable import Variable

Arrays = dict[str, npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]

PERMUTATION = (3, 2, 0, 1)
OUTPUTS = 128
LEARNING_RATE = 0.125

_random = np.random.default_rng(7)
# In TensorFlow's layout: height, width, input channels, output channels.
KERNEL = _random.normal(size=(2, 2, 2, 3)).astype(np.float32)
MASK = np.broadcast_to(np.array([True, False, True]), (2, 2, 2, 3)).copy()
MASK[0, 0, 0, 0] = False
PROJECTION = _random.normal(size=(3, OUTPUTS)).astype(np.float32)
STATE: Arrays = {
    "conv/kernel": KERNEL,
    "conv/bias": np.array([0.5, -0.25, 0.0], np.float32),
    "conv/offset": np.array([0.125, 0.0, -1.0], np.float32),
    "conv/moving_mean": np.zeros(2, np.float32),
    "seed": np.array([3, 4_000_000_000], np.uint32),
    "momentum/conv/kernel": np.zeros_like(KERNEL),
    "momentum/conv/bias": np.zeros(3, np.float32),
    "iteration": np.array(0, np.int64),
    "learning_rate": np.array(LEARNING_RATE, np.float32),
}


def random_batch(examples: int, seed: int = 0) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(examples, 2, 2, 2)).astype(np.float32),
        "y": random.normal(size=(examples, OUTPUTS)).astype(np.float32),
    }


# -- what should come out: numpy in float64, in TensorFlow's layout


def expected_gradients(state: Mapping[str, npt.NDArray[Any]], batch: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Loss and masked gradients, in float64 and TensorFlow's layout."""
    image = batch["image"].astype(np.float64).reshape(len(batch["image"]), -1)
    kernel = state["conv/kernel"].astype(np.float64).reshape(8, 3)
    z = image @ kernel + state["conv/bias"] + state["conv/offset"]
    residual = z @ PROJECTION.astype(np.float64) - batch["y"]
    dz = (2 / residual.size) * residual @ PROJECTION.T.astype(np.float64)
    return {
        "loss": np.mean(residual**2),
        "conv/kernel": (image.T @ dz).reshape(2, 2, 2, 3) * MASK,
        "conv/bias": dz.sum(axis=0),
    }


def expected_step(state: Mapping[str, npt.NDArray[Any]], batch: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """The state after one step, in TensorFlow's layout, floating-point tensors in float64."""
    gradients = expected_gradients(state, batch)
    new: Arrays = dict(state)
    for name in ("conv/kernel", "conv/bias"):
        momentum = 0.9 * state[f"momentum/{name}"].astype(np.float64) - state["learning_rate"] * gradients[name]
        new[f"momentum/{name}"] = momentum
        new[name] = state[name] + momentum
    new["conv/kernel"] = np.where(MASK, new["conv/kernel"], KERNEL)
    new["conv/moving_mean"] = 0.9 * state["conv/moving_mean"] + 0.1 * batch["image"].mean(axis=(0, 1, 2))
    new["seed"] = state["seed"] + np.array([0, 1], np.uint32)
    new["iteration"] = state["iteration"] + 1
    return new


# -- the artifact


def build_manifest() -> Manifest:
    state = (
        StateEntry("conv/kernel", "parameter", (2, 2, 2, 3), "float32", True, trainable=True, elements=24,
                   frozen_elements=9, form="blend", object_path="variables/0", permutation=PERMUTATION),
        StateEntry("conv/bias", "parameter", (3,), "float32", True, object_path="variables/1", trainable=True,
                   elements=3, frozen_elements=0),
        StateEntry("conv/offset", "parameter", (3,), "float32", False, object_path="variables/2", trainable=False,
                   elements=3, frozen_elements=0),
        StateEntry("conv/moving_mean", "model_state", (2,), "float32", True, object_path="variables/3"),
        StateEntry("seed", "model_state", (2,), "uint32", True, object_path="variables/4"),
        StateEntry("momentum/conv/kernel", "optimizer_state", (2, 2, 2, 3), "float32", True, PERMUTATION,
                   parameter="conv/kernel"),
        StateEntry("momentum/conv/bias", "optimizer_state", (3,), "float32", True, parameter="conv/bias"),
        StateEntry("iteration", "optimizer_state", (), "int64", True),
        StateEntry("learning_rate", "hyperparameter", (), "float32", False),
    )  # fmt: skip
    graphs = {
        name: GraphEntry(
            f"{name}.onnx", tuple(i.name for i in model.graph.input), tuple(o.name for o in model.graph.output)
        )
        for name, model in build_graphs().items()
    }
    return Manifest(
        graphfreeze="0.1.0",
        versions={"tensorflow": "0", "keras": "0"},
        opset=18,
        endpoint="serve",
        forward_endpoint="serve",
        losses=(LossEntry("mean_squared_error"),),
        optimizers=(OptimizerEntry("sgd", {"learning_rate": LEARNING_RATE, "momentum": 0.9}),),
        seed=0,
        batch=(
            BatchEntry("image", "input", ("batch", 2, 2, 2), "float32"),
            BatchEntry("y", "target", ("batch", OUTPUTS), "float32"),
        ),
        state=state,
        frozen=(FrozenEntry("head/projection", "variables/5", 3 * OUTPUTS, (3, OUTPUTS), "float32"),),
        graphs=graphs,
    )


def stored(values: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Arrays named like the state, from TensorFlow's layout to the stored one."""
    manifest = build_manifest()
    return {
        name: to_stored(value, entry) if (entry := manifest.find_state(name)) else value
        for name, value in values.items()
    }


def build_reference(batch: Arrays) -> Arrays:
    """Loss and gradients from numpy; the noise is measured by moving the parameters by one unit in the last place."""
    gradients = expected_gradients(STATE, batch)
    moved = {
        name: np.nextafter(value, np.float32(np.inf)) if value.dtype == np.float32 else value
        for name, value in STATE.items()
    }
    noisy = expected_gradients(moved, batch)
    reference: Arrays = {f"batch/{name}": value for name, value in batch.items()}
    for name, value in stored(gradients).items():
        reference["loss" if name == "loss" else f"gradient/{name}"] = np.asarray(value, np.float32)
        reference[f"noise/{name}"] = np.asarray(np.abs(noisy[name] - gradients[name]).max(), np.float32)
    return reference


def write_toy(
    out: Path,
    *,
    graphs: Mapping[str, onnx.ModelProto] | None = None,
    mask: Mask = MASK,
    reference: Arrays | None = None,
    state: Arrays = STATE,
) -> Path:
    """Write OUT with its plan and its training step, and return it."""
    write_artifact(
        out / "training",
        build_manifest(),
        graphs or build_graphs(),
        stored(state),
        reference or build_reference(random_batch(6)),
    )
    write_plan(out, mask)
    return out


def write_plan(out: Path, mask: Mask = MASK) -> None:
    kernel = Variable("conv/kernel", "variables/0", KERNEL.shape, "float32", True)
    projection = Variable("head/projection", "variables/5", PROJECTION.shape, "float32", True)
    plan = FreezePlan(
        (
            FrozenVariable(kernel, mask, np.where(mask, np.float32(0), KERNEL), "blend"),
            FrozenVariable(projection, np.zeros((1, 1), np.bool_), PROJECTION, "blend"),
        )
    )
    (out / "plan").mkdir(exist_ok=True)
    save_plan(plan, out / "plan")


# -- the graphs


class _Graph:
    """Collects nodes, with as little text as ONNX allows."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def __call__(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{op_type}_{len(self.nodes)}"
        # Without a name: the writer gives one.
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
        return output

    def model(self, name: str, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, name, [_info(i) for i in inputs], [_info(o) for o in outputs], self.constants
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _info(name: str) -> onnx.ValueInfoProto:
    fixed: dict[str, tuple[np.dtype[Any], list[int | str]]] = {
        "image": (np.dtype(np.float32), ["batch", 2, 2, 2]),
        "y": (np.dtype(np.float32), ["batch", OUTPUTS]),
        "output/prediction": (np.dtype(np.float32), ["batch", OUTPUTS]),
        "loss": (np.dtype(np.float32), []),
    }
    if name in fixed:
        dtype, shape = fixed[name]
    else:
        value = STATE[name.removeprefix("new/").removeprefix("gradient/")]
        permuted = value.ndim == 4
        dtype = value.dtype
        shape = [value.shape[axis] for axis in PERMUTATION] if permuted else list(value.shape)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


def _predict(g: _Graph, prediction: str | None = None) -> tuple[str, str, str]:
    """Nodes from the image to the prediction; returns flat image, projection and prediction."""
    nchw = g("Transpose", "image", perm=[0, 3, 1, 2])
    flat = g("Reshape", nchw, g.constant([-1, 8], np.int64))
    kernel = g("Reshape", "conv/kernel", g.constant([3, 8], np.int64))
    z = g("Gemm", flat, kernel, g("Add", "conv/bias", "conv/offset"), transB=1)
    projection = g.constant(PROJECTION)
    return flat, projection, g("MatMul", z, projection, output=prediction)


def _loss_and_gradients(g: _Graph, mask: Mask, kernel_gradient: str, bias_gradient: str) -> None:
    flat, projection, prediction = _predict(g)
    residual = g("Sub", prediction, "y")
    g("ReduceMean", g("Mul", residual, residual), output="loss", keepdims=0)
    count = g("Cast", g("Size", residual), to=TensorProto.FLOAT)
    upstream = g("Div", g("Mul", residual, g.constant(2.0)), count)
    dz = g("MatMul", upstream, g("Transpose", projection, perm=[1, 0]))
    dense = g("Reshape", g("Gemm", dz, flat, transA=1), g.constant([3, 2, 2, 2], np.int64))
    g("Mul", dense, g.constant(np.transpose(mask, PERMUTATION)), output=kernel_gradient)
    g("ReduceSum", dz, g.constant([0], np.int64), output=bias_gradient, keepdims=0)


def _model_state(g: _Graph) -> None:
    mean = g("ReduceMean", "image", g.constant([0, 1, 2], np.int64), keepdims=0)
    g(
        "Add",
        g("Mul", "conv/moving_mean", g.constant(0.9)),
        g("Mul", mean, g.constant(0.1)),
        output="new/conv/moving_mean",
    )
    wide = g("Add", g("Cast", "seed", to=TensorProto.INT64), g.constant([0, 1], np.int64))
    g("Cast", wide, output="new/seed", to=TensorProto.UINT32)


def _apply(g: _Graph, mask: Mask, kernel_gradient: str, bias_gradient: str) -> None:
    for name, gradient in (("conv/kernel", kernel_gradient), ("conv/bias", bias_gradient)):
        decayed = g("Mul", f"momentum/{name}", g.constant(0.9))
        momentum = g("Sub", decayed, g("Mul", gradient, "learning_rate"), output=f"new/momentum/{name}")
        moved = g("Add", name, momentum, output="new/conv/bias" if name == "conv/bias" else None)
        if name == "conv/kernel":
            keep = g.constant(np.transpose(mask, PERMUTATION), np.bool_)
            g("Where", keep, moved, g.constant(np.transpose(KERNEL, PERMUTATION)), output="new/conv/kernel")
    g("Add", "iteration", g.constant(1, np.int64), output="new/iteration")


def build_graphs(*, gradient_mask: Mask = MASK, update_mask: Mask = MASK) -> dict[str, onnx.ModelProto]:
    model_parts = ["conv/kernel", "conv/bias", "conv/offset"]
    model_state = ["conv/moving_mean", "seed"]
    slots = ["momentum/conv/kernel", "momentum/conv/bias", "iteration"]
    new_model_state = [f"new/{name}" for name in model_state]
    new_rest = [f"new/{name}" for name in ("conv/kernel", "conv/bias", *slots)]
    gradient_names = ["gradient/conv/kernel", "gradient/conv/bias"]

    step, gradients, apply, forward = _Graph(), _Graph(), _Graph(), _Graph()
    _loss_and_gradients(step, gradient_mask, "kernel_gradient", "bias_gradient")
    _model_state(step)
    _apply(step, update_mask, "kernel_gradient", "bias_gradient")
    _loss_and_gradients(gradients, gradient_mask, "gradient/conv/kernel", "gradient/conv/bias")
    _model_state(gradients)
    _apply(apply, update_mask, "gradient/conv/kernel", "gradient/conv/bias")
    _predict(forward, "output/prediction")
    return {
        "train_step": step.model(
            "train_step",
            ["image", "y", *model_parts, *model_state, *slots, "learning_rate"],
            ["loss", *new_rest, *new_model_state],
        ),
        "gradients": gradients.model(
            "gradients", ["image", "y", *model_parts, *model_state], ["loss", *gradient_names, *new_model_state]
        ),
        "apply_gradients": apply.model(
            "apply_gradients", ["conv/kernel", "conv/bias", *gradient_names, *slots, "learning_rate"], new_rest
        ),
        "forward": forward.model("forward", ["image", *model_parts], ["output/prediction"]),
    }
