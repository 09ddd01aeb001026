"""The inputs of directions: what a training step begins with when it computes an update that mixes all elements.

Muon multiplies a momentum with itself. Where frozen elements are zero in what it begins with, they have no part in
what comes of it. A tensor of a variable's shape is such an input when it is computed from slots of the variable alone,
element by element, and all that is computed from it, by nodes that mix or not, ends in updates of the variable and of
its slots. Which variables are slots is asked last: all else is known without.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from graphfreeze.prover.behind import Behind, parts_of
from graphfreeze.prover.bodies import Bodies
from graphfreeze.prover.ends import DirectionEnd
from graphfreeze.prover.frames import Frame
from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import GATHERS, Context
from graphfreeze.prover.operations import MIXING
from graphfreeze.prover.origins import Origin, Origins
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
        self._fetched = bodies.fetched
        fitting = {end: found for context in bodies.contexts.values() for end, found in self._fitting(bodies, context)}
        whole = _ending_in_updates(bodies, captured, fitting)
        self._pure: dict[Context, set[str]] = {}
        for end, direction in whole.items():
            self._pure.setdefault(end.context, set()).update(direction.region.nodes)
        # The first one counts, not what is computed from it alone.
        self.inputs = {
            end: direction
            for end, direction in whole.items()
            if not any(
                other.region.holds((end.node, end.position)) for at, other in whole.items() if at.context is end.context
            )
        }

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

    def _fitting(self, bodies: Bodies, context: Context) -> Iterator[tuple[DirectionEnd, Direction]]:
        """The tensors of a body that may be inputs, without a look at what leaves their regions."""
        written = _written(context)
        for tensor, dtype in _mixed(context).items() if written else ():
            shape = static_shape(context.view, tensor)
            if tensor.node not in context.view.nodes or shape not in self._shapes or shape is None:
                continue
            values = self._behind.values(context, tensor)
            known = frozenset(variable for variable in values if variable is not None)
            # A targeted variable trains by itself, and of what is not written here nothing is known.
            if not known or len(known) < len(values) or not known <= written - set(self._targets):
                continue
            region = region_of(context, tensor.key, shape, self._given_out(context))
            if region is not None and not _gathered(bodies.frame(context), tensor):
                updated = frozenset(region.written)
                yield DirectionEnd(context, *tensor.key), Direction(shape, dtype, known, updated, region)

    def _given_out(self, context: Context) -> set[tuple[str, int]]:
        """The tensors that a body returns, or that custom gradients capture, or that sessions fetch."""
        texts = [*context.view.returns.values(), *self._captured.get(context.view.name, ())]
        fetched = self._fetched if context.view.definition is None else ()
        return {Tensor.parse(text).key for text in (*texts, *fetched)}


def _written(context: Context) -> set[int]:
    """The variables that a body writes."""
    found: set[int] = set()
    for node in context.view.nodes.values() if context.sources else ():
        write = write_of(node)
        if write is not None and context.counts(node.name) and node.name not in context.initialising:
            written = [context.variable_of(node.input[handle]) for handle in write.handles]
            found.update(variable for variable in written if variable is not None)
    return found


def _mixed(context: Context) -> dict[Tensor, int]:
    """The tensors whose elements a node of a body mixes, with their DataTypes."""
    found: dict[Tensor, int] = {}
    for node in context.view.nodes.values():
        if node.op in MIXING and context.counts(node.name) and "T" in node.attr:
            for text in data_inputs(node)[: OPERANDS.get(node.op)]:
                found[Tensor.parse(text)] = int(node.attr["T"].type)
    return found


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
