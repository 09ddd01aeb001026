"""Which variables are optimizer slots of a targeted variable: their frozen elements have to stay, too.

Optimizers differ in how they keep their slots. An `Apply` operation takes them beside the variable. Keras traces its
optimizers into plain arithmetic: there, a slot is a variable of the same shape that the variable's update is computed
from, element by element, and that nothing else depends on but norms, which leave out frozen elements, and directions,
which begin with zeros there. Holding some elements of such a slot can then change nothing but these very elements. What
the model marks as trainable is a weight of its own, though its values may go the same ways; and integers are counters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from graphfreeze.errors import UnsupportedVariableUseError
from graphfreeze.passes.directions import Direction
from graphfreeze.passes.gradient_norms import GradientNorms
from graphfreeze.passes.places import End, Norm
from graphfreeze.passes.value_ends import ValueEnds, handles_of
from graphfreeze.passes.values_behind import ELSEWHERE
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.handle_flow import UseKind
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.updates import UpdateKind, update_of
from graphfreeze.selection.plan import FrozenVariable
from graphfreeze.selection.variable import Variable

__all__ = ["find_slots", "followed_for", "written_in"]


def find_slots(norms: GradientNorms, targets: Mapping[int, FrozenVariable]) -> dict[int, int]:
    """The slots of all targeted variables that the model itself updates.

    Args:
        norms: The norms of the model, with where the values of targeted variables and candidates end.
        targets: Object node -> targeted variable.

    Returns:
        Object node of the slot -> object node of its variable.

    Raises:
        UnsupportedVariableUseError: An operation takes something as a slot that is none, or is a slot of two variables.
    """
    ends = norms.ends
    model = ends.model
    written = written_in(ends.analysis) & targets.keys()
    candidates = {use.variable for flow in ends.analysis.contexts.values() for use in flow.uses} - targets.keys()
    influences, declared = _influences(ends, candidates, written)
    slots: dict[int, int] = {}
    for target in sorted(written):
        shape = targets[target].variable.shape
        own = {n for n in candidates if _may_be_slot(model.variables_by_node[n], shape)}
        found = declared[target] | _closed(own, declared[target], influences, target, norms)
        for slot in sorted(found):
            if slots.setdefault(slot, target) != target:
                names = [model.variables_by_node[n].name for n in (slot, target, slots[slot])]
                raise UnsupportedVariableUseError(
                    f"{names[0]} is a slot of two targeted variables, {names[1]} and {names[2]}: which of its elements "
                    "are frozen is not clear. Leave one of them out of the selection."
                )
    return slots


def written_in(analysis: Analysis) -> set[int]:
    """The variables that the model itself updates, of those that are followed."""
    return {u.variable for flow in analysis.contexts.values() for u in flow.uses if u.kind is UseKind.WRITE}


def followed_for(model: SavedModel, analysis: Analysis, targets: Mapping[int, FrozenVariable]) -> frozenset[int]:
    """The targeted variables, and all that may be a slot of one that the model itself updates.

    Args:
        model: The model.
        analysis: Where the targeted variables' handles go.
        targets: Object node -> targeted variable.
    """
    shapes = {targets[node].variable.shape for node in written_in(analysis)}
    return frozenset({n for n, v in model.variables_by_node.items() if v.shape in shapes} | targets.keys())


def _may_be_slot(variable: Variable, shape: tuple[int, ...]) -> bool:
    """Whether a variable may be a slot of one of that shape though no operation takes it for one."""
    is_counter = variable.dtype == "bool" or variable.dtype.startswith(("int", "uint"))
    return variable.shape == shape and not variable.trainable and not is_counter


def _closed(
    candidates: Collection[int],
    declared: Collection[int],
    influences: Mapping[int, set[End]],
    target: int,
    norms: GradientNorms,
) -> set[int]:
    """The largest set of candidates that influence only the target and one another, and the target in the end."""
    inner, before, directions = set(candidates), None, norms.ends.directions

    def is_own(end: End) -> bool:
        if isinstance(end, Norm):
            return norms.belongs(end, target, {*inner, *declared})
        if isinstance(end, Direction):
            return directions.belongs(end, target, {*inner, *declared})
        return end in inner or end == target

    def reaches(slot: int, others: set[int]) -> bool:
        ends = influences[slot]
        return any(e in others if not isinstance(e, Direction) else directions.ends_of(e) & others for e in ends)

    # What is left out may be what a norm took for a slot.
    while inner != before:
        before = set(inner)
        inner -= {n for n in inner if not all(is_own(end) for end in influences[n])}
        reaching = {target}
        while added := {n for n in inner - reaching if reaches(n, reaching - {n})}:
            reaching |= added
        inner &= reaching
    return inner


def _influences(
    ends: ValueEnds, candidates: set[int], written: set[int]
) -> tuple[dict[int, set[End]], dict[int, set[int]]]:
    """What each candidate's value reaches, and which candidates `Apply` operations take as whose slots."""
    model, analysis = ends.model, ends.analysis
    reached: dict[int, set[End]] = {node: set() for node in candidates}
    declared: dict[int, set[int]] = {node: set() for node in written}
    for context, flow in analysis.contexts.items():
        body = model.body(context.function)
        values = ends.of(context)
        for use in flow.uses:
            update = update_of(body.nodes[use.node]) if use.kind is UseKind.WRITE else None
            if update is not None and update.kind is UpdateKind.APPLY:
                owner, *slots = handles_of(body, flow, use.node, update)
                if owner in written:
                    declared[owner].update(slot for slot in slots if slot in candidates)
            if use.variable in candidates:
                reached[use.variable].update(values.reached_by(use))
    for use in analysis.main_graph.uses:
        if use.variable in candidates:
            reached[use.variable].add(ELSEWHERE)
    for root in analysis.roots.values():
        for variable in set(analysis.contexts[root].returns.values()) & candidates:
            reached[variable].add(ELSEWHERE)
    return reached, declared
