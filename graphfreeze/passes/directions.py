"""Directions: what an optimizer makes of a slot by mixing its elements, as Muon does with products of matrices.

Frozen elements of gradients and slots are zero in a step that is traced anew. So a direction begins with a tensor whose
frozen elements have to be zero: the first one that is computed, element by element, from slots of a variable, and is
taken by an operation that mixes elements. From there on, everything is computed from it, scalars, constants and shapes
alone, up to the updates of the variable and of its slots, or up to what ends in these element by element.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from graphfreeze.passes.operations import DIRECTION, ELEMENTWISE, MIXING, OF_SHAPE
from graphfreeze.passes.static_shapes import static_shape
from graphfreeze.passes.values_behind import ELSEWHERE
from graphfreeze.savedmodel.handle_flow import Context, UseKind
from graphfreeze.savedmodel.updates import update_of

if TYPE_CHECKING:
    from graphfreeze.passes.value_ends import ValueEnds

__all__ = ["Direction", "Directions", "MaskedInput"]


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction, by its input.

    Attributes:
        context: The body.
        tensor: The tensor.
    """

    context: Context
    tensor: str


class MaskedInput(NamedTuple):
    """What is known of the input of a direction.

    Attributes:
        variable: The object node of the variable whose frozen elements have to be zero in it.
        dtype: Its own dtype.
    """

    variable: int
    dtype: int


@dataclass(frozen=True, slots=True)
class _Region:
    """What is computed from the input of a direction.

    Attributes:
        values: The variables from whose values the input is computed.
        ends: The variables that are updated with the direction.
        pure: The positions of the nodes that compute it from the input alone.
    """

    values: frozenset[int]
    ends: frozenset[int]
    pure: frozenset[int]


class Directions:
    """The directions in the bodies of a model.

    Args:
        bodies: Where values go.
        targets: The object nodes of the targeted variables.
    """

    def __init__(self, bodies: ValueEnds, targets: Collection[int]) -> None:
        self._bodies = bodies
        self._targets = targets
        self._regions: dict[Direction, _Region | None] = {}
        self._inputs: dict[Context, dict[str, _Region]] = {}

    def at(self, context: Context, name: str) -> Direction | None:
        """The direction of which a tensor is the input, if the variables behind it are slots.

        Args:
            context: The body.
            name: The tensor, or the node that yields nothing else.
        """
        taken = self._bodies.of(context).takers(name)
        body = self._bodies.model.body(context.function)
        tensors = {body.tensor(body.nodes[taker.node].input[taker.input]) for taker in taken}
        direction = Direction(context, tensors.pop()) if len(tensors) == 1 else None
        return None if direction is None or self._region(direction) is None else direction

    def of(self, context: Context, slots: Mapping[int, int]) -> dict[str, MaskedInput]:
        """The directions in one body.

        Args:
            context: The body.
            slots: Object node of a slot -> that of its variable.

        Returns:
            The tensor that has to be zero at frozen elements -> of which variable, and its dtype.
        """
        body, found = self._bodies.model.body(context.function), {}
        for tensor, region in self._first(context).items():
            owners = {slots.get(end, end) for end in region.ends}
            owner = owners.pop() if len(owners) == 1 else ELSEWHERE
            own = {slot for slot, variable in slots.items() if variable == owner}
            if owner in self._targets and self.belongs(Direction(context, tensor), owner, own):
                mixing = next(t for i, _ in body.consumers[tensor] if (t := body.nodes[i]).op in MIXING)
                found[tensor] = MaskedInput(owner, mixing.attr["T"].type)
        return found

    def ends_of(self, direction: Direction) -> frozenset[int]:
        """The variables that are updated with a direction."""
        region = self._region(direction)
        return frozenset() if region is None else region.ends

    def belongs(self, direction: Direction, target: int, slots: Collection[int]) -> bool:
        """Whether frozen elements of a variable have to be zero in the input of a direction.

        Args:
            direction: The direction.
            target: Object node of the variable.
            slots: Object nodes of its slots.
        """
        region = self._first(direction.context).get(direction.tensor)
        return region is not None and region.values <= set(slots) and region.ends <= {target, *slots}

    def computes(self, context: Context, node: int) -> bool:
        """Whether a node computes a part of a direction from its input alone."""
        return any(node in region.pure for region in self._first(context).values())

    def _first(self, context: Context) -> dict[str, _Region]:
        """The inputs of directions in a body, but for those that are computed from others."""
        if context not in self._inputs:
            body = self._bodies.model.body(context.function)
            mixing = (node.input for node in body.nodes if node.op in MIXING)
            taken = {body.tensor(text) for inputs in mixing for text in inputs if not text.startswith("^")}
            found = {tensor: self._region(Direction(context, tensor)) for tensor in sorted(taken)}
            regions = {tensor: region for tensor, region in found.items() if region is not None}
            inner = {body.nodes[i].name for region in regions.values() for i in region.pure}
            self._inputs[context] = {t: region for t, region in regions.items() if _name(t) not in inner}
        return self._inputs[context]

    def _region(self, direction: Direction) -> _Region | None:
        """What is computed from a tensor, if it is the input of a direction."""
        if direction not in self._regions:
            self._regions[direction] = None
            self._regions[direction] = self._find(direction.context, direction.tensor)
        return self._regions[direction]

    def _find(self, context: Context, tensor: str) -> _Region | None:
        body, flow = self._bodies.model.body(context.function), self._bodies.analysis.contexts[context]
        shape = static_shape(body, tensor)
        if shape is None or not any(body.nodes[taker.node].op in MIXING for taker in body.consumers.get(tensor, ())):
            return None
        values = self._bodies.behind.of(context, tensor)
        written = {use.variable for use in flow.uses if use.kind is UseKind.WRITE}
        if not values or ELSEWHERE in values or not values <= written or values & set(self._targets):
            return None
        if any(self._bodies.model.variables_by_node[variable].shape != shape for variable in values):
            return None
        return _Walk(self._bodies, context, tensor, values, shape).region()


class _Walk:
    """Follows what is computed from the input of a direction."""

    def __init__(
        self, bodies: ValueEnds, context: Context, start: str, values: frozenset[int], shape: tuple[int, ...]
    ) -> None:
        self._values = bodies.of(context)
        self._body = bodies.model.body(context.function)
        self._flow = bodies.analysis.contexts[context]
        self._start = start
        self._behind = values
        self._shape = shape
        self._pure: set[int] = set()

    def region(self) -> _Region | None:
        """What is computed from the input; None where it is no direction."""
        ends, mixed, pending = set[int](), set[int](), [self._start]
        while pending:
            name = pending.pop()
            if self._values.is_given_out(name):
                return None
            takers = self._body.consumers.get(name, ()) if name == self._start else self._values.takers(name)
            for taker in takers:
                node, update = self._body.nodes[taker.node], update_of(self._body.nodes[taker.node])
                if update is not None:
                    if taker.input != update.value or update.indices is not None:
                        return None
                    handles = [self._body.tensor(node.input[position]) for position in update.handles]
                    ends.update(self._flow.handles.get(handle, ELSEWHERE) for handle in handles)
                elif node.op not in DIRECTION | OF_SHAPE:
                    return None
                elif node.op in DIRECTION and taker.node not in self._pure:
                    mixed.add(taker.node)
            fresh = {i for i in mixed if all(self._is_pure(reference) for reference in self._taken(i))}
            self._pure |= fresh
            mixed -= fresh
            pending += [self._body.nodes[i].name for i in fresh]
        for i in mixed:
            if (
                self._body.nodes[i].op not in ELEMENTWISE
                or static_shape(self._body, self._body.output(i, "", 0)) != self._shape
            ):
                return None
            for end in self._values.ends_of(i):
                if not isinstance(end, int):
                    return None
                ends.add(end)
        if not ends or ELSEWHERE in ends:
            return None
        return _Region(self._behind, frozenset(ends), frozenset(self._pure))

    def _taken(self, i: int) -> Iterator[str]:
        return (reference for reference in self._body.nodes[i].input if not reference.startswith("^"))

    def _is_pure(self, reference: str) -> bool:
        """Whether a tensor is computed from the input, scalars, constants and shapes alone."""
        pending, seen = [self._body.tensor(reference)], set[str]()
        while pending:
            tensor = pending.pop()
            name = _name(tensor)
            position = self._body.positions.get(name)
            if tensor == self._start or name in seen or static_shape(self._body, tensor) == ():
                continue
            seen.add(name)
            if position is None:
                return False
            node = self._body.nodes[position]
            if position in self._pure or node.op == "Const" or node.op in OF_SHAPE:
                continue
            inputs = list(self._taken(position))
            if node.op not in DIRECTION or not inputs:
                return False
            pending += map(self._body.tensor, inputs)
        return True


def _name(reference: str) -> str:
    return reference.split(":", 1)[0]
