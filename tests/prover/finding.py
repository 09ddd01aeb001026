"""What the prover finds of a training step in an original model, before anything is rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from graphfreeze.prover.envelope import captured_tensors
from graphfreeze.prover.files import read_saved_model
from graphfreeze.prover.graph_view import GraphView
from graphfreeze.prover.lockstep import library_of
from graphfreeze.prover.scope import find_scope
from graphfreeze.prover.slots import Slots, find_slots
from graphfreeze.prover.targets import find_targets
from graphfreeze.selection.plan import FreezePlan
from tests.prover.rewriting import freeze_plan
from tests.prover.steps import Made, Step

__all__ = ["Found", "find", "find_in_step", "slots_in"]


@dataclass
class Found:
    """What is found.

    Attributes:
        slots: The names of the slots, by their variables.
        norms: The variable and operation of each norm.
        directions: The variable of each direction, and the operation that yields its input.
    """

    slots: dict[str, set[str]]
    norms: list[tuple[str, str]]
    directions: list[tuple[str, str]]


def slots_in(path: Path, plan: FreezePlan, only_in: Sequence[str] = ()) -> Slots:
    """The slots of the variables of a plan, and what is masked for them, perhaps in some endpoints only."""
    meta = read_saved_model(path, original=True).meta_graphs[0]
    captured = {name: [c.original for c in found] for name, found in captured_tensors(meta, meta).items()}
    main = GraphView.of_main_graph(meta.graph_def)
    library = library_of(meta)
    scope = find_scope(meta, library, only_in) if only_in else None
    return find_slots(meta, main, library, find_targets(meta, plan, {}), captured, scope)


def find(path: Path, names: Sequence[str], only_in: Sequence[str] = ()) -> Found:
    """The same by names."""
    plan = freeze_plan(path, names, "select")
    found = slots_in(path, plan, only_in)
    library = library_of(read_saved_model(path, original=True).meta_graphs[0])
    slots: dict[str, set[str]] = {}
    for slot in found.slots.values():
        assert slot.slot_of is not None
        slots.setdefault(slot.slot_of.name, set()).add(slot.name)
    norms, directions = [], []
    for (function, _), zeroed in found.zeroed.items():
        nodes = library[function].nodes
        norms += [(norm.target.name, nodes[name].op) for name, norm in zeroed.norms.items()]
        directions += [(begun.target.name, nodes[name].op) for (name, _), begun in zeroed.beginnings.items()]
    return Found(slots, sorted(norms), sorted(directions))


def find_in_step(made: Made, path: Path, *names: str) -> Found:
    """The same in a step."""
    tf.saved_model.save(Step(made), str(path / "in"))
    return find(path / "in", names)
