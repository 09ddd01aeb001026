"""Classes drawn by their logits: the largest of logits plus noise of the Gumbel distribution is one so drawn.

TensorFlow's own stateless operation, StatelessMultinomial, gives other numbers with other numbers of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.training.graph import Edge, Graph, Operation
from graphfreeze.training.operations import add_constant, add_operation

__all__ = ["draw_classes"]


def draw_classes(graph: Graph, operation: Operation, generator: Sequence[Edge]) -> None:
    """Put operations that draw by a generator in the place of a Multinomial.

    Args:
        graph: The graph that they are added to.
        operation: The Multinomial, which becomes the last of them.
        generator: The key, the counter and the algorithm of TensorFlow's stateless generator.
    """

    def add(op_type: str, inputs: list[Edge], name: str, **dtypes: Any) -> Edge:
        return add_operation(graph, op_type, f"{operation.name}/{name}", inputs, _types(dtypes))[0]

    def constant(numbers: Any, name: str) -> Edge:
        return add_constant(graph, np.array(numbers, np.int32), f"{operation.name}/{name}")

    logits, count = operation.inputs
    (output,) = operation.outputs
    if logits.dtype != tf.float32:
        logits = add("Cast", [logits], "float32", SrcT=logits.dtype, DstT=tf.float32)
    # Noise for each row, each number drawn of it, and each class.
    zero = constant(0, "first")
    pick = {"Tparams": tf.int32, "Tindices": tf.int32, "Taxis": tf.int32}
    shape = add("Shape", [logits], "shape", T=tf.float32, out_type=tf.int32)
    rows, classes = (
        add("GatherV2", [shape, constant([axis], f"axis_{axis}"), zero], name, **pick)
        for axis, name in enumerate(("rows", "classes"))
    )
    column = add("Reshape", [count, constant([1], "vector")], "count", T=count.dtype, Tshape=tf.int32)
    attributes = {"N": attr_value_pb2.AttrValue(i=3)} | _types({"T": tf.int32, "Tidx": tf.int32})
    (whole,) = add_operation(graph, "ConcatV2", f"{operation.name}/sizes", [rows, column, classes, zero], attributes)
    noise = add("StatelessRandomUniformV2", [whole, *generator], "uniform", dtype=tf.float32, Tshape=tf.int32)
    for step in range(2):
        noise = add("Log", [noise], f"log_{step}", T=tf.float32)
        noise = add("Neg", [noise], f"negative_{step}", T=tf.float32)
    deep = add("ExpandDims", [logits, constant(1, "behind")], "deep", T=tf.float32, Tdim=tf.int32)
    noisy = add("AddV2", [deep, noise], "noisy", T=tf.float32)
    operation.type, operation.inputs = "ArgMax", [noisy, constant(2, "axis")]
    operation.attributes = _types({"T": tf.float32, "Tidx": tf.int32, "output_type": output.dtype})
    graph.operations.append(operation)


def _types(dtypes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attr_value_pb2.AttrValue(type=tf.as_dtype(d).as_datatype_enum) for name, d in dtypes.items()}
