"""Convolutions of two and three spatial axes with their gradients, against TensorFlow's kernels and its definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients, lower

EXPLICIT = ((1, 2), (0, 3), (2, 0))
INPUTS, OUTPUTS = 4, 6


@dataclass(frozen=True)
class Case:
    """One convolution."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    groups: int = 1

    @property
    def arguments(self) -> list[Argument]:
        filters = Argument((*self.kernel, INPUTS // self.groups, OUTPUTS))
        return [Argument((None, *self.size, INPUTS)), filters]


PLANES = [
    Case((8, 9), (3, 3)),
    Case((12, 11), (3, 3)),
    Case((8, 7), (3, 2), (2, 1)),
    Case((10, 9), (3, 3), (2, 2)),
    Case((5, 5), (5, 5), (3, 3)),
    Case((6, 7), (1, 1)),
    Case((6, 7), (1, 1), (2, 2)),
    Case((4, 3), (1, 1)),
    Case((5, 7), (1, 1), (2, 2)),
    Case((4, 4), (2, 2), (3, 3)),
    Case((9, 1), (3, 1)),
    Case((1, 20), (1, 4), (1, 3)),
    Case((2, 3), (4, 5)),
]
SPECIAL = [
    Case((9, 9), (3, 3), (1, 1), (2, 2)),
    Case((9, 10), (2, 3), (2, 2), (2, 2)),
    Case((9, 11), (2, 2), (1, 1), (3, 2)),
    Case((7, 7), (3, 3), (2, 2), groups=2),
    Case((6, 5), (2, 3), groups=2),
    Case((3, 3), (3, 3), groups=2),
]
VOLUMES = [
    Case((4, 5, 6), (2, 3, 1), (1, 1, 1), (1, 1, 1)),
    Case((5, 4, 6), (3, 3, 2), (2, 1, 3), (1, 1, 1)),
    Case((2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
]


def fits(case: Case, padding: str) -> bool:
    reach = [(k - 1) * d + 1 for k, d in zip(case.kernel, case.dilations, strict=True)]
    extra = EXPLICIT if padding == "EXPLICIT" else ((0, 0),) * 3
    return padding == "SAME" or all(s + sum(e) >= r for s, r, e in zip(case.size, reach, extra, strict=False))


def attributes(case: Case, padding: str) -> dict[str, Any]:
    explicit = [amount for pair in EXPLICIT[: len(case.size)] for amount in pair]
    made = {"strides": [1, *case.strides, 1], "dilations": [1, *case.dilations, 1], "padding": padding}
    return made | {"explicit_paddings": [0, 0, *explicit, 0, 0]} if padding == "EXPLICIT" else made


def operation(case: Case, padding: str, x: Any, w: Any) -> Any:
    raw = tf.raw_ops.Conv2D if len(case.size) == 2 else tf.raw_ops.Conv3D
    return raw(input=x, filter=w, **attributes(case, padding))


def definition(case: Case, padding: str, x: Any, w: Any) -> Any:
    """The same from undilated, ungrouped, unpadded convolutions."""
    rank = len(case.size)
    for axis, dilation in enumerate(case.dilations):
        parts = tf.split(w, case.kernel[axis], axis)
        spaced = [[part, *[tf.zeros_like(part)] * (dilation - 1)] for part in parts]
        w = tf.concat([part for run in spaced for part in run][: (case.kernel[axis] - 1) * dilation + 1], axis)
    reach = w.shape[:rank]
    pads = [(0, 0)] * rank
    if padding == "EXPLICIT":
        pads = list(EXPLICIT[:rank])
    elif padding == "SAME":
        totals = [
            max((-(-s // step) - 1) * step + r - s, 0)
            for s, step, r in zip(case.size, case.strides, reach, strict=True)
        ]
        pads = [(total // 2, total - total // 2) for total in totals]
    x = tf.pad(x, [(0, 0), *pads, (0, 0)])
    convolve = tf.nn.conv2d if rank == 2 else tf.nn.conv3d
    strides = [1, *case.strides, 1]
    pairs = zip(tf.split(x, case.groups, -1), tf.split(w, case.groups, -1), strict=True)
    return tf.concat([convolve(a, b, strides, "VALID") for a, b in pairs], -1)


def with_gradients(convolve: Callable[..., Any], cases: Sequence[Case], padding: str) -> Callable[..., list[Any]]:
    def function(*arguments: Any) -> list[Any]:
        results = []
        for case, x, w in zip(cases, arguments[::2], arguments[1::2], strict=True):
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                y = convolve(case, padding, x, w)
            results += [y, *tape.gradient(y, (x, w), output_gradients=tf.stop_gradient(y))]
        return results

    return function


def named(cases: Sequence[Case]) -> dict[str, Argument]:
    arguments = [argument for case in cases for argument in case.arguments]
    return {f"argument_{index}": argument for index, argument in enumerate(arguments)}


@pytest.mark.parametrize("padding", ["SAME", "VALID", "EXPLICIT"])
def test_convolutions_with_gradients(padding: str) -> None:
    cases = [case for case in PLANES if fits(case, padding)]
    check(with_gradients(operation, cases, padding), named(cases))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_dilated_and_grouped_convolutions_with_gradients(padding: str) -> None:
    check(with_gradients(operation, SPECIAL, padding), named(SPECIAL), precisions=["float32"])


@pytest.mark.parametrize("padding", ["SAME", "VALID", "EXPLICIT"])
def test_dilated_and_grouped_convolutions_by_definition(padding: str) -> None:
    reference = with_gradients(definition, SPECIAL, padding)
    check(with_gradients(operation, SPECIAL, padding), named(SPECIAL), reference=reference)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_volumes_with_gradients(padding: str) -> None:
    cases = [case for case in VOLUMES if fits(case, padding)]
    check(with_gradients(operation, cases, padding), named(cases))


def test_dilated_volumes_by_definition() -> None:
    cases = [Case((5, 6, 7), (2, 2, 3), (1, 1, 1), (2, 3, 1)), Case((5, 6, 7), (2, 2, 3), (2, 1, 1), (1, 2, 2))]
    check(with_gradients(operation, cases, "SAME"), named(cases), reference=with_gradients(definition, cases, "SAME"))


def test_channels_first() -> None:
    def function(x: Any, w: Any, volume: Any, filters: Any) -> list[Any]:
        results = []
        for data, weights, raw, layout in (
            (x, w, tf.raw_ops.Conv2D, "NCHW"),
            (volume, filters, tf.raw_ops.Conv3D, "NCDHW"),
        ):
            strides = [1, 1, 2, *[1] * (len(data.shape) - 3)]
            with tf.GradientTape() as tape:
                tape.watch((data, weights))
                y = raw(input=data, filter=weights, strides=strides, padding="SAME", data_format=layout)
            results += [y, *tape.gradient(y, (data, weights), output_gradients=tf.stop_gradient(y))]
        return results

    arguments = {
        "x": Argument((None, 3, 8, 9)),
        "w": Argument((3, 2, 3, 4)),
        "volume": Argument((None, 2, 4, 5, 3)),
        "filters": Argument((2, 3, 1, 2, 3)),
    }
    check(function, arguments, precisions=["float32"])


def test_a_stored_filter_is_never_transposed() -> None:
    def function(x: Any, kernel: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.nn.conv2d(x, kernel, 1, "VALID")
        return [kernel - 0.1 * tape.gradient(y, kernel, output_gradients=tf.stop_gradient(y))]

    arguments = {"x": Argument((None, 12, 12, 4)), "kernel": Argument((3, 3, 4, 6))}
    _, proto = lower(function, arguments, filters=["kernel", "result_0"])
    kernel = next(value for value in proto.graph.input if value.name == "kernel")
    assert [dim.dim_value for dim in kernel.type.tensor_type.shape.dim] == [6, 4, 3, 3]
    transposes = {tuple(node.attribute[0].ints) for node in proto.graph.node if node.op_type == "Transpose"}
    images, taps = (0, 3, 1, 2), (0, 2, 1)
    assert transposes == {images, taps}


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_bias_is_part_of_its_convolution(layout: str) -> None:
    def function(x: Any, w: Any, b: Any) -> Any:
        x = x if layout == "NHWC" else tf.transpose(x, [0, 3, 1, 2])
        y = tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "VALID", data_format=layout), b, data_format=layout)
        return y if layout == "NHWC" else tf.transpose(y, [0, 2, 3, 1])

    def definition(x: Any, w: Any, b: Any) -> Any:
        return tf.nn.conv2d(x, w, 1, "VALID") + b

    arguments = {"x": Argument((None, 8, 8, 3)), "w": Argument((3, 3, 3, 4)), "b": Argument((4,))}
    proto = check(function, arguments, precisions=["float32"], reference=definition)
    assert [len(node.input) for node in proto.graph.node if node.op_type == "Conv"] == [3]
    assert not any(node.op_type == "Add" for node in proto.graph.node)


def test_a_convolution_is_used_with_and_without_its_bias() -> None:
    def function(x: Any, w: Any, b: Any) -> list[Any]:
        y = tf.nn.conv2d(x, w, 1, "SAME")
        return [y, tf.nn.relu(tf.nn.bias_add(y, b)), tf.nn.bias_add(tf.nn.bias_add(y, b), b)]

    arguments = {"x": Argument((None, 5, 5, 3)), "w": Argument((2, 2, 3, 4)), "b": Argument((4,))}
    check(gradients(function), arguments)
