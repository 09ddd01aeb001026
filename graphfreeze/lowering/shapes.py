"""Output dtypes and shapes of an operation, by TensorFlow's own shape functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import op_def_registry, ops

from graphfreeze.lowering.misfit import misfit
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Operation

__all__ = ["ShapeInference", "numpy_dtype", "signature"]

Inferred = tuple[np.dtype[Any], tuple[int, ...]]

# fmt: off
_SAME_AS_FIRST = frozenset(
    {
        "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Sigmoid", "Exp", "Expm1",
        "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Neg", "Abs", "Sign", "Reciprocal", "Inv", "Erf", "Erfc",
        "Floor", "Ceil", "Round", "Sin", "Cos", "Identity", "StopGradient", "PreventGradient", "Snapshot",
        "ZerosLike", "OnesLike", "ReluGrad", "Relu6Grad", "TanhGrad", "SigmoidGrad", "RsqrtGrad", "SqrtGrad",
        "SoftplusGrad", "LogicalNot", "BiasAdd", "AddN", "Softmax",
    }
)
_BROADCAST = frozenset(
    {
        "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "MulNoNan", "Maximum", "Minimum", "Pow",
        "SquaredDifference", "FloorDiv", "FloorMod",
    }
)
# fmt: on
_OPEN_SHAPES = {("FusedBatchNormV3", 5): (0,)}
"""Shapes that TensorFlow leaves to the device's kernel: its CPU kernels have nothing to hand to the gradient."""
_LARGEST_CONSTANT = 4096  # elements; shape functions look only into small inputs: shapes, axes, paddings


def numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """The numpy dtype of a `tf.DType` or its enum; `object` for resources, variants and strings."""
    tensorflow_dtype = tf.as_dtype(dtype)
    if tensorflow_dtype in (tf.resource, tf.variant, tf.string):
        return np.dtype(object)
    found: np.dtype[Any] = np.dtype(tensorflow_dtype.as_numpy_dtype)
    return found


def signature(operation: Operation) -> tuple[str, bytes]:
    """The operation's type and attributes as a key."""
    attributes = b"".join(
        name.encode() + value.SerializeToString(deterministic=True)
        for name, value in sorted(operation.attributes.items())
        if name[0] != "_"
    )
    return operation.type, attributes


class ShapeInference:
    """Infers shapes by creating each operation in a scratch graph, once per distinct signature."""

    def __init__(self) -> None:
        self._graph = tf.Graph()
        self._cache: dict[Any, list[tuple[np.dtype[Any], tuple[int, ...] | None]]] = {}
        self._placeholders: dict[Any, Any] = {}

    def infer(self, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The operation's outputs, with dtypes and shapes only.

        Raises:
            CannotLower: A shape is not determined by the input shapes and the known inputs.
        """
        samples = len(inputs[0].shapes) if inputs else 1
        key = signature(operation)
        per_sample = [self._infer_sample(operation, key, inputs, sample) for sample in range(samples)]
        outputs = []
        for index in range(len(per_sample[0])):
            shapes = []
            for inferred in per_sample:
                shape = inferred[index][1]
                if shape is None:
                    shape = _OPEN_SHAPES.get((operation.type, index))
                if shape is None:
                    raise CannotLower("its output's shape depends on values that are known only at run time")
                shapes.append(shape)
            outputs.append(Tensor(per_sample[0][index][0], tuple(shapes)))
        return outputs

    def _infer_sample(
        self, operation: Operation, key: tuple[str, bytes], inputs: Sequence[Tensor], sample: int
    ) -> list[tuple[np.dtype[Any], tuple[int, ...] | None]]:
        if operation.type in _SAME_AS_FIRST and len(operation.outputs) == 1:
            return [(inputs[0].dtype, inputs[0].shapes[sample])]
        if operation.type in _BROADCAST:
            shapes = [tensor.shapes[sample] for tensor in inputs]
            try:
                shape = np.broadcast_shapes(*shapes)
            except ValueError as error:
                raise CannotLower(
                    f"the shapes {inputs[0].shape} and {inputs[1].shape} fit for some sizes only (not {shapes[0]} and "
                    f"{shapes[1]}, say); export the model with these sizes fixed"
                ) from error
            return [(inputs[0].dtype, tuple(int(size) for size in shape))]
        described = tuple(_describe(tensor, sample) for tensor in inputs)
        found = self._cache.get((key, described))
        if found is None:
            found = self._create(operation, described)
            self._cache[key, described] = found
        return found

    def _create(
        self, operation: Operation, described: tuple[Any, ...]
    ) -> list[tuple[np.dtype[Any], tuple[int, ...] | None]]:
        with self._graph.as_default():
            flat = [self._placeholder(item) for item in described]
            node = node_def_pb2.NodeDef(op=operation.type, name=self._graph.unique_name("scratch"))
            for name, value in operation.attributes.items():
                if name not in ("_class", "_output_shapes"):
                    node.attr[name].CopyFrom(value)
            try:
                made = ops.Operation.from_node_def(node, self._graph, flat, op_def=op_def_registry.get(operation.type))
            except (ValueError, TypeError) as error:
                raise misfit(error) from error
        return [(numpy_dtype(o.dtype), _static(o.shape)) for o in made.outputs]

    def _placeholder(self, item: tuple[Any, ...]) -> Any:
        if item not in self._placeholders:
            dtype, shape, content = item
            if content is None:
                self._placeholders[item] = tf.compat.v1.placeholder(tf.as_dtype(np.dtype(dtype)), shape)
            else:
                self._placeholders[item] = tf.constant(np.frombuffer(content, dtype).reshape(shape))
        return self._placeholders[item]


def _static(shape: Any) -> tuple[int, ...] | None:
    return tuple(shape.as_list()) if shape.is_fully_defined() else None


def _describe(tensor: Tensor, sample: int) -> tuple[np.dtype[Any], tuple[int, ...], bytes | None]:
    content: npt.NDArray[Any] | None = tensor.known[sample] if tensor.known is not None else None
    if content is None or content.size > _LARGEST_CONSTANT or content.dtype.kind not in "iub":
        return tensor.dtype, tensor.shapes[sample], None
    return tensor.dtype, tensor.shapes[sample], content.tobytes()
