"""The inputs of directions: what a training step begins with when it computes an update that mixes all elements.

Muon multiplies a momentum with itself. Where frozen elements are zero in what it begins with, they have no part in
what comes of it. A tensor of a variable's shape is such an input when it is computed from slots of the variable alone,
element by element, and all that is computed from it, by nodes that mix or not, ends in updates of the variable and of
its slots. Which variables are slots is asked last: all else is known without.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from graphfreeze.prover.behind import Behind, parts_of
from graphfreeze.prover.bodies import Bodies
from graphfreeze.prover.ends import DirectionEnd
from graphfreeze.prover.frames import Frame
from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import GATHERS, Context
from graphfreeze.prover.operations import MIXING
from graphfreeze.prover.origin import Origin
from graphfreeze.prover.origins import Origins
from graphfreeze.prover.region import Region, region_of
from graphfreeze.prover.shapes import static_shape
from graphfreeze.prover.targets import Target
from graphfreeze.prover.writes import write_of

__all__ = ["Direction", "Directions"]

OPERANDS = {"Transpose": 1, "Reshape": 1}
"""How many of a node's first inputs it mixes, where that is not all."""


@dataclass(frozen=True)
class Direction:
    """What is known of an input of a direction, whatever the slots are.

    Attributes:
        shape: Its static shape.
        dtype: Its DataType.
        values: The variables whose values it is computed from.
        updated: The variables in whose updates all ends that is computed from it.
        region: What is computed from it alone.
    """

    shape: tuple[int, ...]
    dtype: int
    values: frozenset[int]
    updated: frozenset[int]
    region: Region


class Directions:
    """The inputs of directions in the bodies of a model.

    Args:
        bodies: The bodies.
        behind: What is behind their tensors.
        targets: The targeted variables by object node.
        captured: By function, the tensors of it that custom gradients capture.

    Attributes:
        inputs: The inputs.
    """

    def __init__(
        self, bodies: Bodies, behind: Behind, targets: Mapping[int, Target], captured: Mapping[str, Iterable[str]]
    ) -> None:
        self._behind = behind
        self._targets = targets
        self._shapes = {target.shape for target in targets.values()}
        self._captured = captured
        self._writes: dict[Context, set[int]] = {}
        self._bodies = bodies
        waiting = {end: dtype for context in bodies.contexts.values() for end, dtype in self._mixed(context).items()}
        self.inputs: dict[DirectionEnd, Direction] = {}
        while waiting:
            # Where one turns out to be none after all, those that are computed from it alone are asked again.
            first = self._first_ones(waiting)
            waiting = {end: dtype for end, dtype in waiting.items() if end not in first}
            self.inputs |= _ending_in_updates(bodies, captured, first)
            waiting = {end: dtype for end, dtype in waiting.items() if not _inside(end, self.inputs)}
            if not first:
                break
        self._pure: dict[Context, set[str]] = {}
        for end, direction in self.inputs.items():
            self._pure.setdefault(end.context, set()).update(direction.region.nodes)

    def is_pure(self, context: Context, node: str) -> bool:
        """Whether a node belongs to the inside of a direction."""
        return node in self._pure.get(context, ())

    def belongs(self, end: DirectionEnd, target: Target, slots: Container[int]) -> bool:
        """Whether an input begins a direction of a variable that has these slots."""
        direction = self.inputs[end]
        return (
            direction.shape == target.shape
            and all(variable in slots for variable in direction.values)
            and all(variable == target.node_id or variable in slots for variable in direction.updated)
        )

    def _first_ones(self, ends: Mapping[DirectionEnd, int]) -> dict[DirectionEnd, Direction]:
        """Of tensors that may be inputs, those that are not inside of what is computed from others.

        What leaves their regions is not looked at.
        """
        found: dict[DirectionEnd, Direction] = {}
        for end, dtype in ends.items():
            if not _inside(end, found):
                direction = self._fitting(end, dtype)
                found |= {} if direction is None else {end: direction}
        return {end: direction for end, direction in found.items() if not _inside(end, found)}

    def _mixed(self, context: Context) -> dict[DirectionEnd, int]:
        """The tensors of a variable's shape whose elements a node of a body mixes, with their DataTypes."""
        found: dict[DirectionEnd, int] = {}
        nodes = context.view.nodes.values() if context.sources else ()
        for node in nodes:
            if node.op in MIXING and context.counts(node.name) and "T" in node.attr:
                for tensor in map(Tensor.parse, data_inputs(node)[: OPERANDS.get(node.op)]):
                    if tensor.node in context.view.nodes and static_shape(context.view, tensor) in self._shapes:
                        found[DirectionEnd(context, tensor.node, tensor.position)] = int(node.attr["T"].type)
        return found

    def _fitting(self, end: DirectionEnd, dtype: int) -> Direction | None:
        """What is known of a tensor that may be an input, without a look at what leaves its region."""
        context, tensor = end.context, Tensor(end.node, "", end.position)
        shape = static_shape(context.view, tensor)
        values = self._behind.values(context, tensor)
        known = frozenset(variable for variable in values if variable is not None)
        # A targeted variable trains by itself, and of what is not written here nothing is known.
        if shape is None or not known or len(known) < len(values) or not known <= self._written(context):
            return None
        region = region_of(context, tensor.key, shape, self._given_out(context))
        if region is None or _gathered(self._bodies.frame(context), tensor):
            return None
        return Direction(shape, dtype, known, frozenset(region.written), region)

    def _written(self, context: Context) -> set[int]:
        """The variables that a body writes, but for targeted ones."""
        if context not in self._writes:
            found: set[int] = set()
            for node in context.view.nodes.values():
                write = write_of(node)
                if write is not None and context.counts(node.name) and node.name not in context.initialising:
                    written = [context.variable_of(node.input[handle]) for handle in write.handles]
                    found.update(variable for variable in written if variable is not None)
            self._writes[context] = found - set(self._targets)
        return self._writes[context]

    def _given_out(self, context: Context) -> set[tuple[str, int]]:
        """The tensors that a body returns, or that custom gradients capture, or that sessions fetch."""
        texts = [*context.view.returns.values(), *self._captured.get(context.view.name, ())]
        fetched = self._bodies.fetched if context.view.definition is None else ()
        return {Tensor.parse(text).key for text in (*texts, *fetched)}


def _inside(end: DirectionEnd, inputs: Mapping[DirectionEnd, Direction]) -> bool:
    """Whether a tensor is computed from one of these inputs alone."""
    return any(
        other.context is end.context and direction.region.holds((end.node, end.position))
        for other, direction in inputs.items()
    )


def _gathered(frame: Frame, tensor: Tensor) -> bool:
    """Whether rows or elements that were gathered have a part in a tensor: these may be in other places."""
    work, seen = [(frame, tensor)], {(frame, tensor)}
    while work:
        at, made = work.pop()
        node = at.view.nodes.get(made.node)
        if node is not None and node.op in GATHERS:
            return True
        parts = parts_of(at, made)
        fresh = [part for part in parts.tensors if part not in seen] if parts is not None else []
        seen.update(fresh)
        work += fresh
    return False


def _ending_in_updates(
    bodies: Bodies, captured: Mapping[str, Iterable[str]], fitting: Mapping[DirectionEnd, Direction]
) -> dict[DirectionEnd, Direction]:
    """Those of which all that leaves the region ends, element by element, in updates; with the variables of these."""
    places = {(end.context, tensor) for end, direction in fitting.items() for tensor in direction.region.left}
    numbers = {place: -1 - k for k, place in enumerate(places)}
    marked = {place: [Origin(number)] for place, number in numbers.items()}
    ends = Origins(bodies, captured, {}, marked).ends() if marked else {}
    found = {}
    for end, direction in fitting.items():
        updated = set(direction.updated)
        for tensor in direction.region.left:
            ended = ends.get(numbers[end.context, tensor], frozenset())
            variables = {variable for variable in ended or () if isinstance(variable, int)}
            if ended is None or len(variables) < len(ended):
                break
            updated |= variables
        else:
            found[end] = replace(direction, updated=frozenset(updated))
    return found
