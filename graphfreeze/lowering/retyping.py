"""Replaces dtypes in what an operation says of itself: its attributes and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import tensor_util

from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["Retyping"]


@dataclass(frozen=True)
class Retyping:
    """Some dtypes, and what stands in their place.

    Attributes:
        replaced: The new `tf.DType` of each that is replaced.
    """

    replaced: Mapping[Any, Any]

    def dtype(self, dtype: Any) -> Any:
        """The dtype, or the one in its place."""
        return self.replaced.get(dtype, dtype)

    def array(self, array: npt.ArrayLike) -> npt.NDArray[Any]:
        """The array in the dtype that is in place of its own."""
        array = np.asarray(array)
        found = self.replaced.get(tf.as_dtype(array.dtype))
        return array if found is None else array.astype(found.as_numpy_dtype)

    def attribute(self, value: Any) -> Any:
        """An `AttrValue` with its dtypes and tensors replaced."""
        enums = {old.as_datatype_enum: new.as_datatype_enum for old, new in self.replaced.items()}
        match value.WhichOneof("value"):
            case "type" if value.type in enums:
                return attr_value_pb2.AttrValue(type=enums[value.type])
            case "list" if any(enum in enums for enum in value.list.type):
                types = [enums.get(enum, enum) for enum in value.list.type]
                return attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue(type=types))
            case "tensor" if value.tensor.dtype in enums:
                array = self.array(tensor_util.MakeNdarray(value.tensor))
                return attr_value_pb2.AttrValue(tensor=tf.make_tensor_proto(array))
        return value

    def cast(self, graph: Graph, edge: Edge, dtype: Any, name: str) -> Edge:
        """The edge cast by a new operation of the graph; the edge itself where it has that dtype."""
        if edge.dtype == dtype:
            return edge
        cast = Operation("Cast", name, [edge])
        cast.attributes = {
            "SrcT": attr_value_pb2.AttrValue(type=edge.dtype.as_datatype_enum),
            "DstT": attr_value_pb2.AttrValue(type=dtype.as_datatype_enum),
        }
        cast.outputs = [Edge(name, dtype, edge.shape, cast)]
        graph.operations.append(cast)
        return cast.outputs[0]
