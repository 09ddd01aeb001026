"""Finds the operations of a loop's body that can wait until the loop has ended, and then run once for all iterations.

The gradient of a recurrent kernel is a sum over the iterations: `total += inputs^T @ gradient`. With the inputs and the
gradients of all iterations stacked along the batch it is one large product. The gradient of the layer's input, which
the body writes to a list, is one product too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graphfreeze.lowering.loop_variables import origin
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["Postponed", "find_postponed"]


@dataclass(frozen=True, slots=True)
class Postponed:
    """An operation whose only use is to change a variable of the loop.

    Attributes:
        variable: The variable's index.
        operation: The operation.
        stacked: Which of its inputs change from iteration to iteration; along their first axis lies the batch.
        total: The addition to the variable, where it is a sum; None where the operation gives a list's items.
    """

    variable: int
    operation: Operation
    stacked: tuple[int, ...]
    total: Operation | None


def find_postponed(loop: Operation) -> list[Postponed]:
    """The operations that can wait, at most one for a variable."""
    body = loop.bodies["body"]
    uses = Counter(id(edge) for operation in body.operations for edge in operation.inputs)
    uses.update(id(edge) for edge in body.outputs)
    found = (_total(body, index, uses) or _item(body, index, uses) for index in range(len(body.outputs)))
    return [postponed for postponed in found if postponed is not None]


def _total(body: Graph, index: int, uses: Counter[int]) -> Postponed | None:
    """`variable + f(...)`, where f adds over the batch and the variable has no other use."""
    addition = origin(body.outputs[index]).producer
    if addition is None or addition.type not in ("AddN", "Add", "AddV2") or len(addition.inputs) != 2:
        return None
    terms = [edge for edge in addition.inputs if origin(edge) is not body.inputs[index]]
    if len(terms) != 1 or terms[0].producer is None:
        return None
    operation = terms[0].producer
    stacked = _adds_over_batch(operation)
    (before,) = (edge for edge in addition.inputs if edge is not terms[0])
    chain = [terms[0], *_passed(before), *_passed(body.outputs[index])]
    if stacked is None or any(uses[id(edge)] != 1 for edge in chain):
        return None
    return Postponed(index, operation, stacked, addition)


def _passed(edge: Edge) -> list[Edge]:
    """The edge and those before it that are passed through to it."""
    chain = [edge]
    while edge.producer is not None and origin(edge) is not edge:
        edge = edge.producer.inputs[0]
        chain.append(edge)
    return chain


def _adds_over_batch(operation: Operation) -> tuple[int, ...] | None:
    match operation.type:
        case "MatMul" if _flag(operation, "transpose_a") and not _flag(operation, "transpose_b"):
            return (0, 1)
        case "BiasAddGrad" if _text(operation, "data_format") in ("", "NHWC"):
            return (0,)
        case "Conv2DBackpropFilter":
            return (0, 2)
        case _:
            return None


def _item(body: Graph, index: int, uses: Counter[int]) -> Postponed | None:
    """A list's item that is a product of what changes with what does not."""
    written = origin(body.outputs[index]).producer
    if written is not None and written.type == "AddN":
        changes = [e.producer for e in written.inputs if e.producer and e.producer.type == "TensorListSetItem"]
        written = changes[0] if len(changes) == 1 else None
    if written is None or written.type not in ("TensorListSetItem", "TensorListPushBack"):
        return None
    item: Edge = written.inputs[-1]
    operation = item.producer
    if operation is None or operation.type != "MatMul" or uses[id(item)] != 1 or _flag(operation, "transpose_a"):
        return None
    return Postponed(index, operation, (0,), None)


def _flag(operation: Operation, name: str) -> bool:
    value = operation.attributes.get(name)
    return value is not None and bool(value.b)


def _text(operation: Operation, name: str) -> str:
    value = operation.attributes.get(name)
    return "" if value is None else value.s.decode()
