"""Losses that TensorFlow has as one operation. Each also gives the gradient with respect to the logits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import Node, rule


@rule("SoftmaxCrossEntropyWithLogits")
def softmax_cross_entropy(node: Node, logits: ir.Value, labels: ir.Value) -> list[ir.Value]:
    """-sum(labels * log(softmax(logits))) per row, and softmax(logits) - labels."""
    products = node.emit("Mul", labels, node.emit("LogSoftmax", logits, axis=1))
    loss = node.emit("Neg", node.emit("ReduceSum", products, node.int64([1]), keepdims=0))
    return [loss, node.emit("Sub", node.emit("Softmax", logits, axis=1), labels)]


@rule("SparseSoftmaxCrossEntropyWithLogits")
def sparse_softmax_cross_entropy(node: Node, logits: ir.Value, labels: ir.Value) -> list[ir.Value]:
    """-log(softmax(logits))[label] per row, and softmax(logits) with 1 taken from the label's element."""
    rows = node.inputs[1].dim(0)
    index = node.reshape(labels if node.inputs[1].dtype == np.int64 else node.cast(labels, np.int64), [rows, 1])
    picked = node.emit("GatherElements", node.emit("LogSoftmax", logits, axis=1), index, axis=1)
    loss = node.reshape(node.emit("Neg", picked), [rows])
    softmax = node.emit("Softmax", logits, axis=1)
    minus_one = node.emit("Expand", node.scalar(-1, 2), node.vector([rows, 1]))
    return [loss, node.emit("ScatterElements", softmax, index, minus_one, axis=1, reduction="add")]
