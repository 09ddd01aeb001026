"""Steps that draw their noise on the device: compared at noise that is given, and their draws by distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from graphfreeze.artifact.reader import Artifact
from graphfreeze.runtime.device import Device
from graphfreeze.validation.check import Check, conclude

__all__ = ["NativeNoise", "check_distribution", "find_native_noise"]

Tensors = dict[str, npt.NDArray[Any]]

_RANDOM = {"RandomUniformLike": "uniform", "RandomNormalLike": "normal"}
_SUFFIX = "/noise"
_BEYOND_TWO = math.erf(math.sqrt(2))
_ONCE_IN_A_MILLION = 2.7
"""By how much a distribution function of n draws is off, times the root of n: more once in a million draws."""


@dataclass(frozen=True)
class NativeNoise:
    """What the training step of an artifact draws on the device.

    Attributes:
        artifact: The artifact.
        device: Where to run.
        kinds: The name of each draw, and its distribution: `uniform`, `normal` or `truncated normal`.
    """

    artifact: Artifact
    device: Device
    kinds: Mapping[str, str]

    def draw_twice(self, values: Mapping[str, npt.NDArray[Any]]) -> tuple[Tensors, Tensors]:
        """What the training step draws in two runs of one session: a new session may begin where another did."""
        model = self._model("train_step")
        del model.graph.output[:]
        first, second = self._run(model, values, list(self.kinds), 2)
        return first, second

    def at_given_noise(self, values: Mapping[str, npt.NDArray[Any]]) -> tuple[Tensors, Tensors]:
        """The results of `gradients`, and of `train_step` at the noise that `gradients` drew."""
        gradients = self._model("gradients")
        names = [output.name for output in gradients.graph.output]
        drawn = [name for name in self.kinds if any(name in node.output for node in gradients.graph.node)]
        (by_gradients,) = self._run(gradients, values, [*names, *drawn])
        step = self._model("train_step")
        names = [output.name for output in step.graph.output]
        kept = [node for node in step.graph.node if not set(node.output) & set(drawn)]
        del step.graph.node[:]
        step.graph.node.extend(kept)
        given = {name: by_gradients.pop(name) for name in drawn}
        for name, array in given.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            step.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        (at_once,) = self._run(step, {**values, **given}, names)
        return by_gradients, at_once

    def _model(self, graph: str) -> onnx.ModelProto:
        return onnx.load(str(self.artifact.graph_path(graph)))

    def _run(
        self, model: onnx.ModelProto, values: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], times: int = 1
    ) -> list[Tensors]:
        there = {output.name for output in model.graph.output}
        # onnxruntime finds the types out itself.
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in there)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=self.device.providers)
        feeds = {entry.name: np.asarray(values[entry.name]) for entry in session.get_inputs()}
        return [dict(zip(outputs, session.run(outputs, feeds), strict=True)) for _ in range(times)]


def find_native_noise(artifact: Artifact, device: Device) -> NativeNoise | None:
    """The draws of the training step on the device, or None where all its noise is TensorFlow's."""
    graph = onnx.load(str(artifact.graph_path("train_step")), load_external_data=False).graph
    producers = {output: node for node in graph.node for output in node.output}
    kinds: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            kind = _kind(node, producers) if name.endswith(_SUFFIX) else None
            if kind is not None:
                kinds[name] = kind
    return NativeNoise(artifact, device, kinds) if kinds else None


def _kind(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto]) -> str | None:
    """The distribution of a draw that the node is the end of; None where it does not begin with a random operator."""
    while node.op_type == "Cast":
        node = producers[node.input[0]]
    if node.op_type in _RANDOM:
        return _RANDOM[node.op_type]
    pending, seen = [node], set()
    while pending:
        current = pending.pop()
        if current.op_type in _RANDOM:
            return "truncated normal"
        for name in current.input:
            if name in producers and name not in seen:
                seen.add(name)
                pending.append(producers[name])
    return None


def check_distribution(noise: NativeNoise, values: Mapping[str, npt.NDArray[Any]]) -> Check:
    """The noise is distributed as TensorFlow's, and another one in each run."""
    first, second = noise.draw_twice(values)
    problems = []
    for name, kind in noise.kinds.items():
        drawn = np.sort(first[name].astype(np.float64).ravel())
        expected = _DISTRIBUTIONS[kind](drawn)
        places = (np.arange(drawn.size) + 0.5) / drawn.size
        off = float(np.max(np.abs(expected - places), initial=0.0))
        # What draws in steps of a few bits is off by a step, too.
        allowed = _ONCE_IN_A_MILLION / math.sqrt(max(drawn.size, 1)) + 0.5 / max(drawn.size, 1)
        if off > allowed:
            problems.append(f"{name} is not {kind}: its distribution is off by {off:.3g}, {allowed:.3g} is allowed")
        if drawn.size > 1 and np.array_equal(first[name], second[name]):
            problems.append(f"{name} is the same in two runs")
    kinds = list(noise.kinds.values())
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return conclude("noise of the device has TensorFlow's distribution", problems, f"{len(kinds)} draws: {found}")


def _normal(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])


_DISTRIBUTIONS: dict[str, Callable[[Any], Any]] = {
    "uniform": lambda values: np.clip(values, 0, 1),
    "normal": _normal,
    "truncated normal": lambda values: np.clip((_normal(values) - 0.5) / _BEYOND_TWO + 0.5, 0, 1),
}
