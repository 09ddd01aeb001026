"""Compares the lowered graph with TensorFlow in float64, where rounding hides nothing.

In float32 a wrong constant, or a term that is left out, may be as small as the rounding of a long sum. In float64 the
rounding is nine orders of magnitude smaller: what still differs is a difference between the two graphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import tensorflow as tf
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernel

from graphfreeze.checks.double_precision import SinglePrecisionError, promote_array, promote_graph
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.errors import UnsupportedError, ValidationError
from graphfreeze.lowering.filters import convolution_filters
from graphfreeze.lowering.model import Lowerer, filter_permutation
from graphfreeze.training.functionalise import NamedGraph

__all__ = ["TOLERANCE", "check_float64"]

TOLERANCE = 1e-10
"""The largest relative difference in the Euclidean norm."""

Arrays = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Arrays], Sequence[npt.NDArray[Any]]]
Report = dict[str, Any]

_NAME = "the lowered graph computes in float64 what TensorFlow computes"
_MOST_ELEMENTS = 2**26
"""How many elements parameters and state may have: half a gigabyte in float64."""
_MOST_OPERATIONS = 30_000
_INPUT_ELEMENTS = 50_000
"""About how many elements of input are taken, by taking fewer examples of large images."""
_FEWEST_EXAMPLES = 2
_NEGLIGIBLE = 2.0**-40
"""What is this much smaller than the largest tensor of its kind is analytically zero: the rounding of what cancels."""
_NOISE_FACTOR = 4.0
_REFERENCE_NODES = 1000
"""How large a graph is run by ONNX's reference implementation, which takes about a millisecond a node."""


class _NotAvailableError(Exception):
    """The comparison cannot be made. The message says why."""


def check_float64(named: NamedGraph, batch: Arrays, state: Arrays, constants: Arrays, *, opset: int = 18) -> Report:
    """Lower the graph once more with float64 in place of float32, and compare it with TensorFlow on one batch.

    The reference is the functional graph itself, run by TensorFlow operation by operation. Where onnxruntime lacks a
    float64 kernel, a small graph runs on ONNX's reference implementation instead.

    Args:
        named: The graph `gradients` of the training step.
        batch: Arrays by the names of the data contract.
        state: The values of parameters and model state by name, in TensorFlow's layout.
        constants: The values of wholly frozen variables by name.
        opset: The opset to lower to.

    Returns:
        The check for the report. Where the comparison cannot be made, `evidence` says so: its `status` is then
        "not available" instead of "compared".

    Raises:
        ValidationError: A tensor differs; the message says which and by how much.
    """
    try:
        _require_small(named, state, constants)
        comparison = _Comparison(named, {**batch, **state, **constants}, constants, opset)
        records = comparison.records()
    except _NotAvailableError as reason:
        evidence: Report = {"status": "not available", "reason": str(reason)}
        return {"name": _NAME, "passed": True, "message": f"not available: {reason}", "evidence": evidence}
    failed = [record for record in records if record["rule"] == "different"]
    check = {
        "name": _NAME,
        "passed": not failed,
        "message": f"{len(records)} tensors agree with TensorFlow to {TOLERANCE:g}, on {comparison.runtime}",
        "evidence": {"status": "compared", "runtime": comparison.runtime, "tensors": records},
    }
    if failed:
        worst = max(failed, key=lambda record: np.inf if record["relative_l2"] is None else record["relative_l2"])
        size = "all of it" if worst["relative_l2"] is None else f"{worst['relative_l2']:.2g} of its size"
        check["message"] = f"{len(failed)} of {len(records)} tensors differ from TensorFlow's"
        raise ValidationError(
            f"in float64, where rounding is below {TOLERANCE:g}, the lowered graph's {worst['tensor']!r} differs from "
            f"TensorFlow's by {size}: an operation of the training step is lowered wrongly. Nothing was written. This "
            "is an error in graphfreeze: please report it with the model",
            {"checks": [check]},
        )
    return check


def _require_small(named: NamedGraph, state: Arrays, constants: Arrays) -> None:
    elements = sum(array.size for array in (*state.values(), *constants.values()))
    operations = sum(1 for _ in named.graph.walk())
    if elements > _MOST_ELEMENTS or operations > _MOST_OPERATIONS:
        raise _NotAvailableError(
            f"the graph has {operations} operations on {elements} elements of state; up to {_MOST_OPERATIONS} on "
            f"{_MOST_ELEMENTS} are compared in float64"
        )


class _Comparison:
    """One graph in float64, in TensorFlow and lowered."""

    def __init__(self, named: NamedGraph, values: Arrays, constants: Arrays, opset: int) -> None:
        try:
            self.named = promote_graph(named)
        except SinglePrecisionError as reason:
            raise _NotAvailableError(str(reason)) from reason
        self.filters = convolution_filters(named)
        self.values = _fewer_examples(self.named, {name: promote_array(values[name]) for name in named.inputs})
        self.interpreter = Interpreter(self.named.graph)
        self.run, self.runtime = self._lower({name: promote_array(value) for name, value in constants.items()}, opset)

    def _lower(self, constants: Arrays, opset: int) -> tuple[Run, str]:
        lowerer = Lowerer(opset=opset, filters=self.filters, constants=constants)
        try:
            proto = ir.to_proto(lowerer.lower(self.named, "gradients"))
        except UnsupportedError as error:
            found = "; ".join(f"{o['operation']}: {o['reason']}" for o in error.details.get("operations", ()))
            raise _NotAvailableError(f"it cannot be lowered in float64 ({found or error})") from error
        return _runner(proto)

    def records(self) -> list[Report]:
        """The comparison of every output."""
        expected = self._reference(self.values)
        fed = {name: self._stored(name, value) for name, value in self.values.items()}
        found = dict(zip(self.named.outputs, self.run(fed), strict=True))
        found = {name: self._plain(name, value) for name, value in found.items()}
        largest = dict.fromkeys(map(_kind, expected), 0.0)
        for name, value in expected.items():
            if not np.isfinite(value).all():
                raise _NotAvailableError(f"TensorFlow's {name!r} is not finite for this batch")
            largest[_kind(name)] = max(largest[_kind(name)], _norm(value))
        records = [_record(name, found[name], expected[name], largest[_kind(name)]) for name in expected]
        if any(record["rule"] == "different" for record in records):
            self._excuse(records, expected)
        return records

    def _excuse(self, records: list[Report], expected: Arrays) -> None:
        """Tell what the net itself amplifies from what is lowered wrongly.

        Where TensorFlow's result changes as much when the inputs move by one unit in the last place (a value that
        should be 0 decides over a ReLU), another order of summation may do the same.
        """
        rng = np.random.default_rng(0)
        moved = [self._reference({name: _moved(value, rng) for name, value in self.values.items()}) for _ in range(3)]
        for record in records:
            name = record["tensor"]
            noise = max(_norm(other[name] - expected[name].astype(np.float64)) for other in moved)
            if record["rule"] == "different" and (record["error"] or np.inf) <= _NOISE_FACTOR * noise:
                record["rule"] = "noise" if _NOISE_FACTOR * noise < _norm(expected[name]) else "undetermined"
        undetermined = [record["tensor"] for record in records if record["rule"] == "undetermined"]
        if undetermined and not any(record["rule"] == "different" for record in records):
            raise _NotAvailableError(f"the model amplifies rounding so much that {undetermined[0]!r} is not determined")

    def _reference(self, values: Arrays) -> dict[str, npt.NDArray[Any]]:
        try:
            results = self.interpreter([tf.constant(values[name]) for name in self.named.inputs])
        except (tf.errors.NotFoundError, tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
            reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message.splitlines()[0])
            raise _NotAvailableError(f"TensorFlow cannot run it in float64: {reason}") from error
        return {name: result.numpy() for name, result in zip(self.named.outputs, results, strict=True)}

    def _stored(self, name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name not in self.filters:
            return np.asarray(value, order="C")
        return np.asarray(np.transpose(value, filter_permutation(value.ndim)), order="C")

    def _plain(self, name: str, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name.removeprefix("gradient/").removeprefix("new/") not in self.filters:
            return stored
        return np.transpose(stored, np.argsort(filter_permutation(stored.ndim)))


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


def _runner(proto: onnx.ModelProto) -> tuple[Run, str]:
    """What runs the model, and its name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # The graph is to run as it was lowered; optimising it would take longer than running it once.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    fed = [value.name for value in proto.graph.input]
    runner: Any
    try:
        runner = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        name = "onnxruntime"
    except MissingKernel as error:
        reason = str(error).rpartition(" : ")[2]
        if len(proto.graph.node) > _REFERENCE_NODES:
            raise _NotAvailableError(f"onnxruntime has no float64 kernel: {reason}") from error
        runner, name = ReferenceEvaluator(proto), "the reference implementation of ONNX"
    return lambda values: runner.run(None, {name: values[name] for name in fed}), name


def _record(name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any], largest: float) -> Report:
    """How far a tensor is from its reference; None where that is no finite number."""
    size, error = _norm(expected), None
    if found.shape != expected.shape or found.dtype != expected.dtype or not np.isfinite(found).all():
        rule = "different"
    elif expected.dtype.kind != "f":
        error = float(np.count_nonzero(found != expected))
        rule = "different" if error else "exact"
    else:
        error = _norm(found - expected)
        negligible = max(size, _norm(found)) <= _NEGLIGIBLE * largest
        rule = "rounding" if error <= TOLERANCE * size else "zero" if negligible else "different"
    relative = error / size if error is not None and size else (0.0 if error == 0 else None)
    return {"tensor": name, "error": error, "relative_l2": relative, "rule": rule}


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _norm(array: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(array.ravel()))


def _moved(array: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    if array.dtype.kind != "f":
        return array
    return array * (1.0 + np.finfo(np.float64).eps * rng.uniform(-1.0, 1.0, array.shape))
