"""What a tensor is computed from, element by element, in all functions of a model.

An argument is what the body was given: by the call that it was entered by, or else by all calls in the model.
"""

from __future__ import annotations

from typing import NamedTuple

from graphfreeze.prover.bodies import Bodies
from graphfreeze.prover.frames import Frame
from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import READS, Context
from graphfreeze.prover.operations import ELEMENT_BY_ELEMENT, FOLLOWED, MOVING
from graphfreeze.prover.session_graph import REFERENCE_NODES
from graphfreeze.prover.shapes import static_shape

__all__ = ["Behind", "parts_of"]

Value = int | None


class _Made(NamedTuple):
    """What a tensor is computed from.

    Attributes:
        values: The variables whose values have a part in it, by object node. None stands for all that are not
            followed, for what endpoints are given, and for references.
        computed: Whether the results of other operations have a part in it.
    """

    values: frozenset[Value]
    computed: bool

    @property
    def is_gradient(self) -> bool:
        """Whether it counts as a gradient beside other summands."""
        return self.computed and not self.values


UNKNOWN = _Made(frozenset({None}), computed=False)
CONSTANT = _Made(frozenset(), computed=False)
COMPUTED = _Made(frozenset(), computed=True)


class _Key(NamedTuple):
    frame: Frame
    tensor: Tensor
    moved: bool
    is_scalar: bool


class Behind:
    """What is behind the tensors of a model.

    Args:
        bodies: The model's bodies.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._known: dict[_Key, _Made] = {}

    def values(self, context: Context, tensor: Tensor, moved: bool = False) -> frozenset[Value]:
        """The variables from whose values a tensor is computed, element by element.

        A scalar that all elements of a tensor are computed with is no value of one of them.

        Args:
            context: The body.
            tensor: The tensor.
            moved: Whether elements may also come to other places on the way.
        """
        is_scalar = static_shape(context.view, tensor) == ()
        start = _Key(self._bodies.frame(context), tensor, moved, is_scalar)
        waiting, opened = [start], set[_Key]()
        while waiting:
            key = waiting[-1]
            if key in self._known:
                waiting.pop()
                continue
            own, parts, adds = self._parts(key)
            missing = [part for part in parts if part not in self._known]
            if missing and key not in opened:
                opened.add(key)
                waiting += missing
                continue
            waiting.pop()
            # What leads back to itself, as in a loop, is not known.
            made = [own, *(self._known.get(part, UNKNOWN) for part in parts)]
            if adds and any(part.is_gradient for part in made):
                self._known[key] = COMPUTED
            else:
                values = frozenset[Value]().union(*(part.values for part in made))
                self._known[key] = _Made(values, any(part.computed for part in made))
        return self._known[start].values

    def _parts(self, key: _Key) -> tuple[_Made, list[_Key], bool]:
        """What a tensor is by itself, the tensors that it is computed from, and whether it is the sum of these."""
        frame, tensor, moved, is_scalar = key
        if not is_scalar and static_shape(frame.view, tensor) == ():
            return CONSTANT, [], False
        node = frame.view.nodes.get(tensor.node)
        parts = parts_of(frame, tensor, moved)
        if parts is not None:
            own = UNKNOWN if parts.unknown else CONSTANT
            keys = [_Key(at, part, moved, is_scalar) for at, part in parts.tensors]
            return own, keys, node is not None and node.op == "AddN"
        if node is None or node.op in REFERENCE_NODES:
            return UNKNOWN, [], False
        if node.op in READS:
            return _Made(frozenset({frame.context.variable_of(node.input[0])}), computed=False), [], False
        return (CONSTANT if node.op == "Const" else COMPUTED), [], False


class Parts(NamedTuple):
    """The tensors that one is computed from, each with the body where it is; and whether there may be others."""

    tensors: list[tuple[Frame, Tensor]]
    unknown: bool


def parts_of(frame: Frame, tensor: Tensor, moved: bool = False) -> Parts | None:
    """The tensors that one is computed from, element by element. Of several identities, all count for each.

    Args:
        frame: The body.
        tensor: The tensor.
        moved: Whether elements may also come to other places.

    Returns:
        The tensors; None where it comes from something else.
    """
    node = frame.view.nodes.get(tensor.node)
    if node is None:
        given = frame.given(tensor.node)
        return Parts([(caller, Tensor.parse(text)) for caller, text in given.passed], given.unknown)
    if node.op in FOLLOWED:
        branches = frame.branches(node)
        texts = [(branch, branch.returned(tensor.position)) for branch in branches]
        returned = [(branch, Tensor.parse(text)) for branch, text in texts if text is not None]
        return Parts(returned, not returned or len(returned) < len(branches))
    if node.op in ELEMENT_BY_ELEMENT or node.op == "IdentityN" or (moved and node.op in MOVING):
        inputs = data_inputs(node)[: 1 if node.op in MOVING else None]
        return Parts([(frame, Tensor.parse(text)) for text in inputs], unknown=False)
    return None
