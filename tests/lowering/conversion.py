"""Traces a Python function of TensorFlow operations, lowers it, runs it on onnxruntime, compares with TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import tensorflow as tf

from graphfreeze.lowering.model import Lowerer
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.variable_uses import VariableSlot

SIZES = ((3, 5), (5, 1))
"""The batch and the length of its sequences."""


@dataclass(frozen=True)
class Argument:
    """An input of the function under test.

    Attributes:
        shape: None stands for the batch, and on another axis than the first for the length of sequences.
        dtype: A numpy dtype name; "float" follows the precision under test.
        make: Draws the values; by default normal numbers kept 0.05 away from zero, and integers below `high`.
        high: The bound for integers.
    """

    shape: tuple[int | None, ...]
    dtype: str = "float"
    make: Callable[[np.random.Generator, tuple[int, ...]], Any] | None = None
    high: int = 3

    def draw(self, rng: np.random.Generator, batch: int, length: int, dtype: str) -> Any:
        shape = tuple((length if axis else batch) if n is None else n for axis, n in enumerate(self.shape))
        if self.make is not None:
            return np.asarray(self.make(rng, shape)).astype(dtype)
        if np.dtype(dtype).kind == "f":
            values = rng.normal(size=shape)
            return (values + 0.05 * np.sign(values)).astype(dtype)
        return rng.integers(0, 2 if dtype == "bool" else self.high, shape).astype(dtype)


def lower(
    function: Callable[..., Any],
    arguments: Mapping[str, Argument],
    precision: str = "float32",
    variables: Sequence[Any] = (),
    filters: Sequence[str] = (),
) -> tuple[Any, onnx.ModelProto]:
    """The traced function and its ONNX model, checked fully."""
    specs = [tf.TensorSpec(a.shape, precision if a.dtype == "float" else a.dtype, name=n) for n, a in arguments.items()]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    slots = {id(v.handle): VariableSlot(v.name.split(":")[0], v.dtype, tuple(v.shape)) for v in variables}
    results = [f"result_{index}" for index in range(len(concrete.outputs))]
    named = functionalise(concrete, list(arguments), results, slots)
    proto = ir.to_proto(Lowerer(filters=filters).lower(named, "test"))
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} == {""}
    return concrete, proto


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])


def check(
    function: Callable[..., Any],
    arguments: Mapping[str, Argument],
    *,
    precisions: Sequence[str] = ("float32", "float64"),
    tolerance: Mapping[str, float] | None = None,
    seed: int = 0,
    variables: Sequence[Any] = (),
    reference: Callable[..., Any] | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> onnx.ModelProto:
    """Compare onnxruntime with TensorFlow at several sizes, per result relative to its largest element.

    Variables keep their values in TensorFlow: what the function assigns is compared as `new/NAME` and put back.
    A `reference` gives the expected results where TensorFlow has no kernel for an operation that it can trace.
    `sizes` are batches and lengths of sequences.

    Returns:
        The model of the last precision, for a look at its nodes.
    """
    bounds = {"float32": 2e-6, "float64": 1e-13} | dict(tolerance or {})
    rng = np.random.default_rng(seed)
    proto = None
    for precision in precisions:
        concrete, proto = lower(function, arguments, precision, variables)
        run = session(proto)
        fed = {value.name for value in proto.graph.input}
        for batch, length in sizes:
            dtypes = {n: precision if a.dtype == "float" else a.dtype for n, a in arguments.items()}
            feeds = {n: a.draw(rng, batch, length, dtypes[n]) for n, a in arguments.items()}
            before = {v.name.split(":")[0]: v.numpy() for v in variables}
            got = run.run(None, {n: np.array(x) for n, x in (feeds | before).items() if n in fed})
            results = (reference or concrete)(*map(tf.constant, feeds.values()))
            expected = [x.numpy() for x in tf.nest.flatten(results)]
            after = {f"new/{v.name.split(':')[0]}": v.numpy() for v in variables}
            expected += [after[value.name] for value in proto.graph.output[len(expected) :]]
            for variable in variables:
                variable.assign(before[variable.name.split(":")[0]])
            for value, ours, theirs in zip(proto.graph.output, got, expected, strict=True):
                where = f"{value.name} at batch {batch}, length {length}, {precision}"
                assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (where, ours.dtype, ours.shape)
                if ours.dtype.kind != "f":
                    np.testing.assert_array_equal(ours, theirs, err_msg=where)
                    continue
                scale = float(np.max(np.abs(theirs), initial=0.0))
                error = float(np.max(np.abs(ours - theirs), initial=0.0))
                assert error <= bounds[precision] * scale or error == 0, f"{where}: error {error:g} of {scale:g}"
            if precision == "float64" and isinstance(function, WithGradients) and function.is_smooth:
                names = [value.name for value in proto.graph.output[: len(concrete.outputs)]]
                inputs = {n: np.array(x) for n, x in (feeds | before).items() if n in fed}
                _check_by_differences(
                    run, names, inputs, [n for n in feeds if feeds[n].dtype.kind == "f"][: function.of]
                )
    assert proto is not None
    return proto


def gradients(function: Callable[..., Any], *, of: int | None = None, is_smooth: bool = True) -> WithGradients:
    """The function's results followed by the gradients of their weighted sum for its first `of` float arguments.

    Args:
        function: Returns tensors.
        of: How many arguments; all by default.
        is_smooth: Whether the gradient is the derivative. It is not where TensorFlow defines another one on purpose.
    """
    return WithGradients(function, of, is_smooth)


@dataclass(frozen=True)
class WithGradients:
    """The function of `gradients`.

    The weights differ per element, so that a transposed or shifted gradient shows, and are exact in every precision.
    """

    function: Callable[..., Any]
    of: int | None
    is_smooth: bool

    def __call__(self, *arguments: Any) -> list[Any]:
        watched = [a for a in arguments if a.dtype.is_floating][: self.of]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            results = tf.nest.flatten(self.function(*arguments))
            loss = tf.add_n([tf.reduce_sum(r * _weights(r)) for r in results if r.dtype.is_floating])
        return [*results, *tape.gradient(loss, watched, unconnected_gradients="zero")]


def _weights(tensor: Any) -> Any:
    numbers = tf.range(tf.size(tensor)) * 5 % 11 * 2 - 11
    return tf.cast(tf.reshape(numbers, tf.shape(tensor)), tensor.dtype) / 8


def _check_by_differences(
    run: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, Any], watched: Sequence[str]
) -> None:
    """Compare the gradients that onnxruntime computes with differences of its own results, without TensorFlow.

    Along a random direction d, (f(x + h d) - f(x - h d)) / 2h is the sum of gradient times d, but for terms in h
    squared and rounding errors over h.
    """
    rng = np.random.default_rng(1)
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    directions = {name: rng.choice([-1.0, 1.0], inputs[name].shape) for name in watched if name in inputs}
    step = 1e-6
    results = outputs[: len(outputs) - len(watched)] if len(outputs) > len(watched) else []
    found = dict(zip(outputs, run.run(None, dict(inputs)), strict=True))
    gradients_of = dict(zip(watched, outputs[len(results) :], strict=True))
    products = [found[gradients_of[name]] * direction for name, direction in directions.items()]
    sums = [
        sum(float(np.sum(result * _numpy_weights(result))) for result in after if result.dtype.kind == "f")
        for after in (
            run.run(results, {**inputs, **{n: np.asarray(inputs[n] + sign * step * d) for n, d in directions.items()}})
            for sign in (1, -1)
        )
    ]
    magnitude = sum(float(np.sum(np.abs(found[name] * 11 / 8))) for name in results if found[name].dtype.kind == "f")
    error = abs((sums[0] - sums[1]) / (2 * step) - sum(float(np.sum(product)) for product in products))
    scale = sum(float(np.sum(np.abs(product))) for product in products)
    allowed = 1e-6 * scale + 4 * np.finfo(np.float64).eps * magnitude / step
    assert error <= allowed, f"the gradients are {error:g} off the differences, allowed are {allowed:g}"


def _numpy_weights(array: Any) -> Any:
    return (np.arange(array.size) * 5 % 11 * 2 - 11).reshape(array.shape) / 8
