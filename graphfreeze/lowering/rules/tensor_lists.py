"""TensorLists: what TensorArrays and the gradients of loops are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphfreeze.lowering import lists
from graphfreeze.lowering.rule import CannotLower, Node, special
from graphfreeze.lowering.shapes import numpy_dtype
from graphfreeze.lowering.tensor import Dim, Tensor
from graphfreeze.lowering.tensor_list import TensorList

Result = Sequence[Tensor | TensorList]


def _list_rule(*operations: str) -> Callable[[Callable[[Node], Result]], Callable[[Node], Result]]:
    """A rule on lists: inputs that are missing are passed on, lists in the result are wrapped in tensors."""

    def declare(function: Callable[[Node], Result]) -> Callable[[Node], Result]:
        def apply(node: Node) -> list[Tensor]:
            missing = frozenset().union(*(tensor.missing for tensor in node.inputs))
            if missing:
                return node.lowering.missing(node.operation, missing)
            return [_wrapped(node, item) for item in function(node)]

        apply.__doc__, apply.__module__ = function.__doc__, function.__module__
        special(*operations)(apply)
        return function

    return declare


def _wrapped(node: Node, item: Tensor | TensorList) -> Tensor:
    if isinstance(item, Tensor):
        return item
    return Tensor(np.dtype(object), ((),) * len(node.lowering.samples), tensor_list=item)


def _list(node: Node, index: int = 0) -> TensorList:
    found = node.inputs[index].tensor_list
    if found is None:
        raise CannotLower(f"its input {index} is a variant that is no TensorList")
    return found


def _length(tensor: Tensor) -> Dim:
    if tensor.number is None:
        raise CannotLower(
            "the length of a TensorList depends on values that are known only at run time; a fixed length is covered, "
            "and one that follows the batch or the length of sequences"
        )
    return tensor.number


@_list_rule("EmptyTensorList")
def _empty(node: Node) -> Result:
    """A list without items: nothing at run time."""
    return [TensorList(numpy_dtype(node.attribute("element_dtype")), node.lowering.dim(0), declared=node.inputs[0])]


@_list_rule("TensorListReserve")
def _reserve(node: Node) -> Result:
    """A list of unset items, which read as zeros: nothing at run time."""
    length = _length(node.inputs[1])
    return [TensorList(numpy_dtype(node.attribute("element_dtype")), length, declared=node.inputs[0])]


@_list_rule("TensorListFromTensor")
def _from_tensor(node: Node) -> Result:
    """A list of a tensor's rows: the tensor itself."""
    rows = node.inputs[0]
    shape = tuple(sizes[1:] for sizes in rows.shapes)
    return [TensorList(rows.dtype, rows.dim(0), shape, node.inputs[1], stack=rows)]


@_list_rule("TensorListStack")
def _stack(node: Node) -> Result:
    """The items along a new first axis: what a loop collected, a Concat of items set one by one, or zeros."""
    return [lists.stack(node.lowering, _list(node), node.inputs[1])]


@_list_rule("TensorListGetItem")
def _get_item(node: Node) -> Result:
    """One item: in a loop an item that the Scan walks along, elsewhere a Gather."""
    return [lists.get_item(node.lowering, _list(node), node.inputs[1], node.inputs[2])]


@_list_rule("TensorListSetItem")
def _set_item(node: Node) -> Result:
    """A list with another item: in a loop an output that the Scan stacks, otherwise a Concat or ScatterND."""
    return [lists.set_item(_list(node), node.inputs[1], node.inputs[2])]


@_list_rule("TensorListPushBack")
def _push_back(node: Node) -> Result:
    """A list with one more item: in a loop an output that the Scan stacks."""
    if node.inputs[1].alternatives is not None:
        raise CannotLower(
            "branches in a loop keep tensors of different shapes for their gradients; branches that compute in the "
            "same shapes are covered, and any outside of loops"
        )
    return [lists.push_back(node.lowering, _list(node), node.inputs[1])]


@_list_rule("TensorListPopBack")
def _pop_back(node: Node) -> Result:
    """A list without its last item, and that item: in a loop an item that the Scan walks along backwards."""
    return lists.pop_back(node.lowering, _list(node), node.inputs[1])


@_list_rule("TensorListLength")
def _list_length(node: Node) -> Result:
    """The number of items: known when the graph is lowered."""
    length = _list(node).length
    if length is None:
        raise CannotLower("the length of a list that grows in a loop is asked for in the loop")
    return [node.lowering.number(length, np.int32)]


@_list_rule("TensorListElementShape")
def _element_shape(node: Node) -> Result:
    """The items' shape: known when the graph is lowered."""
    dtype = numpy_dtype(node.attribute("shape_type"))
    shape = lists.item_shape(_list(node))
    if shape is not None:
        return [node.lowering.known([np.array(sizes, dtype) for sizes in shape])]
    declared = _list(node).declared
    if declared is None or declared.known is None:
        raise CannotLower("the shape of the list's items is not determined")
    return [node.lowering.known([array.astype(dtype) for array in declared.known])]


@_list_rule("TensorListResize")
def _resize(node: Node) -> Result:
    """A list cut off, or filled up with unset items: a Slice or Concat where the items are needed."""
    return [lists.resize(_list(node), _length(node.inputs[1]))]
