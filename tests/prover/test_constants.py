"""Constants are compared bit for bit, in every dtype and in every way that a TensorProto holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.framework import attr_value_pb2, node_def_pb2, tensor_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.prover.constants import broadcasts, check_form, check_mask, check_value, decode
from graphfreeze.prover.messages import differing_fields
from graphfreeze.prover.targets import NUMPY_NAMES, Target
from graphfreeze.selection.plan import Form, FrozenVariable
from graphfreeze.selection.variable import Variable, numpy_dtype
from tests.prover.models import typed
from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan, rewrite

NAMES = sorted(NUMPY_NAMES.values())
FLOATS = ("bfloat16", "float16", "float32", "float64")


def values(name: str) -> np.ndarray[Any, Any]:
    return np.array([[0, 1, 1], [1, 1, 1]]).astype(numpy_dtype(name))


@pytest.mark.parametrize("name", NAMES)
def test_decoding_agrees_with_tensorflow(name: str) -> None:
    array = values(name)
    protos = [
        tf.make_tensor_proto(array),  # as content or as a list, whatever TensorFlow takes
        tf.make_tensor_proto(array.reshape(-1)[1], shape=[2, 3]),  # one value stands for all
        tf.make_tensor_proto(array.reshape(-1)[1]),
        tf.make_tensor_proto(array[:0]),
    ]
    content = tensor_pb2.TensorProto(dtype=tf.as_dtype(name).as_datatype_enum, tensor_content=array.tobytes())
    for size in array.shape:
        content.tensor_shape.dim.add(size=size)
    for proto in [*protos, content]:
        decoded = decode(proto)
        assert decoded is not None
        expected = tf.make_ndarray(proto)
        assert decoded.dtype == expected.dtype
        np.testing.assert_array_equal(decoded, expected)


def test_what_cannot_be_decoded() -> None:
    assert decode(tf.make_tensor_proto(["text"])) is None
    proto = tf.make_tensor_proto(np.ones([2, 2], np.float32))
    proto.tensor_shape.dim[0].size = 3
    assert decode(proto) is None
    proto.tensor_shape.dim[0].size = -1
    assert decode(proto) is None


@pytest.mark.parametrize(
    ("shape", "to", "expected"),
    [
        ((), (2, 3), True),
        ((3,), (2, 3), True),
        ((1, 3), (2, 3), True),
        ((2, 3), (2, 3), True),
        ((2,), (2, 3), False),
        ((1, 2, 3), (2, 3), False),
        ((0, 3), (2, 3), False),
        ((2, 3), (1, 3), False),
    ],
)
def test_broadcasting(shape: tuple[int, ...], to: tuple[int, ...], expected: bool) -> None:
    assert broadcasts(shape, to) is expected


def target(value: np.ndarray[Any, Any], form: Form, mask: list[bool]) -> Target:
    name = value.dtype.name
    variable = Variable("w", "w", value.shape, name, True)
    dtype = tf.as_dtype(name).as_datatype_enum
    return Target(1, FrozenVariable(variable, np.array(mask), value, form), dtype)


@pytest.mark.parametrize("value", [-0.0, np.inf, np.nan, 1e-40])
def test_blending_has_to_be_exact(value: float) -> None:
    array = np.array([value, 0.0], np.float32)
    with pytest.raises(VerificationError, match="which needs select"):
        check_form(target(array, "blend", [False, True]))
    check_form(target(array, "blend", [True, False]))
    check_form(target(array, "select", [False, True]))


@pytest.mark.parametrize("name", FLOATS)
def test_blending_is_exact_for_normal_numbers(name: str) -> None:
    check_form(target(np.array([0.0, -1.5, 2.0]).astype(numpy_dtype(name)), "blend", [False, False, True]))
    subnormal = np.array([1], f"u{numpy_dtype(name).itemsize}").view(numpy_dtype(name))
    with pytest.raises(VerificationError, match="which needs select"):
        check_form(target(subnormal, "blend", [False]))


def test_blending_of_integers() -> None:
    with pytest.raises(VerificationError, match="expected the form select for dtype int32"):
        check_form(target(np.array([1], np.int32), "blend", [False]))


def test_bits_are_compared_and_not_numbers() -> None:
    zero = np.zeros(2, np.float32)
    frozen = target(zero, "select", [False, True])
    check_value(frozen, np.array([0.0, np.nan], np.float32), "f", "n")
    with pytest.raises(VerificationError, match="which is frozen"):
        check_value(frozen, -zero, "f", "n")
    nan = target(np.array([np.nan, 0], np.float32), "select", [False, True])
    check_value(nan, np.array([np.nan, 7], np.float32), "f", "n")
    with pytest.raises(VerificationError, match="found another one: 1 of 2 elements differ, the first at \\[0\\]"):
        check_mask(frozen, np.array([True, True]), "f", "n")


DTYPES: list[tuple[str, Form]] = [(name, "select") for name in NAMES] + [(name, "blend") for name in FLOATS]


@pytest.mark.parametrize(("name", "form"), DTYPES)
def test_every_dtype_is_proven(name: str, form: Form, tmp_path: Path) -> None:
    path = typed(tmp_path / "model", values(name))
    plan = freeze_plan(path, ["w"], form)
    model = Mutant.copy(path, rewrite(path, tmp_path / "out", plan), plan, tmp_path / "copies")
    masked = model.masked("w")[0]
    constant = masked.value if form == "select" else masked.node(masked.value.input[0])
    tensor = constant.attr["value"].tensor
    element = int(np.flatnonzero(~plan.variables[0].full_mask)[-1]) * numpy_dtype(name).itemsize
    changed = bytearray(tensor.tensor_content)
    changed[element] ^= 1
    tensor.tensor_content = bytes(changed)
    model.failure("which is frozen")


def test_messages_are_compared_field_by_field() -> None:
    def differing(left: Message, right: Message) -> list[str]:
        return differing_fields(left, right)

    nan = attr_value_pb2.AttrValue(f=float("nan"))
    assert differing(nan, attr_value_pb2.AttrValue(f=float("nan"))) == []
    assert differing(attr_value_pb2.AttrValue(f=0.0), attr_value_pb2.AttrValue(f=-0.0)) == ["f"]
    assert differing(attr_value_pb2.AttrValue(i=0), attr_value_pb2.AttrValue()) == ["i"]
    empty_list = attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue())
    assert differing(empty_list, attr_value_pb2.AttrValue()) == ["list"]
    node = node_def_pb2.NodeDef(name="a", input=["b"], attr={"k": nan})
    other = node_def_pb2.NodeDef(name="a", input=["c"], attr={"k": nan, "l": nan})
    assert differing(node, other) == ["input", "attr"]
    assert differing_fields(node, other, skip=("attr",)) == ["input"]
