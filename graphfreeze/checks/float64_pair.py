"""One functional graph in float64, twice: run by TensorFlow, and lowered and run as ONNX."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import tensorflow as tf
from onnxruntime.capi import onnxruntime_pybind11_state as refusals

from graphfreeze.checks.double_precision import SinglePrecisionError, promote_array, promote_graph
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.errors import UnsupportedError
from graphfreeze.lowering.model import Lowerer, filter_permutation
from graphfreeze.training.graph import NamedGraph

__all__ = ["Arrays", "Float64Pair", "NotAvailableError"]

_INPUT_ELEMENTS = 50_000
"""About how many elements of input are taken, by taking fewer examples of large images."""
_FEWEST_EXAMPLES = 2

Arrays = Mapping[str, npt.NDArray[Any]]

_TENSORFLOW_REFUSES = (tf.errors.NotFoundError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError)
_ONNXRUNTIME_REFUSES = (
    refusals.Fail,
    refusals.InvalidArgument,
    refusals.InvalidGraph,
    refusals.NotImplemented,
    refusals.RuntimeException,
)


class NotAvailableError(Exception):
    """The graph cannot run in float64. The message says why."""


class Float64Pair:
    """A functional graph in float64, in TensorFlow and lowered.

    Attributes:
        values: What the graph's inputs are, by name, in TensorFlow's layout.

    Args:
        named: The graph, in any precision.
        values: The values of its inputs, in any precision.
        constants: Names of the inputs that are constants of the lowered graph.
        filters: Names of the inputs that the lowered graph keeps as convolution filters.
        opset: The opset to lower to.

    Raises:
        NotAvailableError: TensorFlow's operations, their lowering or onnxruntime's kernels do not exist in float64.
    """

    def __init__(
        self, named: NamedGraph, values: Arrays, *, constants: Collection[str], filters: Collection[str], opset: int
    ) -> None:
        try:
            self._named = promote_graph(named)
        except SinglePrecisionError as reason:
            raise NotAvailableError(str(reason)) from reason
        self._filters = filters
        self._interpreter = Interpreter(self._named.graph)
        self.values = _fewer_examples(self._named, {name: promote_array(values[name]) for name in named.inputs})
        known = {name: self.values[name] for name in constants if name in self.values}
        lowerer = Lowerer(opset=opset, filters=filters, constants=known)
        try:
            proto = ir.to_proto(lowerer.lower(self._named, "float64"))
        except UnsupportedError as error:
            found = "; ".join(f"{o['operation']}: {o['reason']}" for o in error.details.get("operations", ()))
            raise NotAvailableError(f"it cannot be lowered in float64 ({found or error})") from error
        self._session = _session(proto)

    def reference(self, values: Arrays) -> dict[str, npt.NDArray[Any]]:
        """What TensorFlow computes for these inputs, by the names of the outputs."""
        try:
            results = self._interpreter([tf.constant(values[name]) for name in self._named.inputs])
        except _TENSORFLOW_REFUSES as error:
            reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message.splitlines()[0])
            raise NotAvailableError(f"TensorFlow cannot run it in float64: {reason}") from error
        return {name: result.numpy() for name, result in zip(self._named.outputs, results, strict=True)}

    def lowered(self, values: Arrays) -> dict[str, npt.NDArray[Any]]:
        """What the lowered graph computes, in TensorFlow's layout."""
        fed = {
            name: np.asarray(np.transpose(value, self._permutation(name, value)), order="C")
            for name, value in values.items()
        }
        try:
            found = self._session.run(None, {value.name: fed[value.name] for value in self._session.get_inputs()})
        except _ONNXRUNTIME_REFUSES as error:
            raise NotAvailableError(f"onnxruntime cannot run its float64 form: {error}") from error
        return {
            name: np.transpose(value, np.argsort(self._permutation(name, value)))
            for name, value in zip(self._named.outputs, found, strict=True)
        }

    def _permutation(self, name: str, value: npt.NDArray[Any]) -> list[int]:
        """How the lowered graph has a tensor transposed."""
        plain = name.removeprefix("gradient/").removeprefix("new/")
        return filter_permutation(value.ndim) if plain in self._filters else list(range(value.ndim))


def _fewer_examples(named: NamedGraph, values: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The values, with so few examples that large images do not take long."""
    follows = {
        name
        for name, edge in zip(named.inputs, named.graph.inputs, strict=True)
        if edge.shape is not None and edge.shape[:1] == (None,)
    }
    each = max((values[name][:1].size for name in follows), default=1)
    examples = max(_FEWEST_EXAMPLES, _INPUT_ELEMENTS // max(each, 1))
    return {name: value[:examples] if name in follows else value for name, value in values.items()}


def _session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # The graph is to run as it was lowered; optimising it would take longer than running it once.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Planning which tensors share memory takes time that grows with the square of the nodes: 17 s for 10,000 of them.
    options.enable_mem_reuse = False
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    except refusals.NotImplemented as error:
        # ONNX's own reference implementation is no way out: it computes some of these (Erf) in float32.
        raise NotAvailableError(f"onnxruntime has no float64 kernel: {str(error).rpartition(' : ')[2]}") from error
    except _ONNXRUNTIME_REFUSES as error:
        raise NotAvailableError(f"onnxruntime refuses its float64 form: {error}") from error
