"""Prove that a rewritten SavedModel is what the freeze plan says, from the files alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.prover.composition import check_contains, read_earlier
from graphfreeze.prover.constants import check_form
from graphfreeze.prover.envelope import compare_envelopes
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.file_bytes import CopiesBeingWritten, first_difference
from graphfreeze.prover.files import KERAS_METADATA, OWN_FOLDER, compare_files, read_saved_model
from graphfreeze.prover.graphs import graph_pairs
from graphfreeze.prover.handles import Binding
from graphfreeze.prover.keras2 import compare_keras_2
from graphfreeze.prover.lockstep import Lockstep, library_of
from graphfreeze.prover.own_bytes import own_bytes
from graphfreeze.prover.pair import PairEvidence
from graphfreeze.prover.scope import find_scope, take_back_clones
from graphfreeze.prover.stored import take_out_stored
from graphfreeze.prover.targets import Target, find_targets
from graphfreeze.selection.plan import FreezePlan

__all__ = ["prove"]

SCHEMA_VERSION = 1


def prove(
    original: Path, rewritten: Path, plan: FreezePlan, *, copies: CopiesBeingWritten | None = None
) -> dict[str, Any]:
    """Prove that every read and update of the plan's variables is masked as planned, and that nothing else changed.

    Nothing of either model is executed or loaded into TensorFlow: only its files are read. An original that is itself
    the result of a rewrite stands for the graph that was rewritten then: it is proven that this graph and the earlier
    plan make the original, and that the plan freezes all that the earlier one froze.

    Args:
        original: The directory of the original SavedModel.
        rewritten: The directory of the rewritten SavedModel.
        plan: What was to be frozen.
        copies: What has compared files of both while they were copied. All others are read here.

    Returns:
        The evidence, JSON-ready: per variable its form, masked reads and masked updates (`function`,
        `original_function`, `node`, `operation`); counts of functions, nodes and files compared; what load_model of
        Keras 2 does; the same of further graphs.

    Raises:
        VerificationError: Something could not be proven. The message names variable, function and node.
        ModelReadError: The original cannot be read.
    """
    before = read_saved_model(original, original=True)
    after = read_saved_model(rewritten, original=False)
    if len(before.meta_graphs) != len(after.meta_graphs):
        refuse(f"expected {len(before.meta_graphs)} graphs, found {len(after.meta_graphs)}")
    pairs = zip(before.meta_graphs, after.meta_graphs, strict=True)
    stored = sum(take_out_stored(old, new, original, rewritten) for old, new in pairs)
    difference = first_difference if copies is None else copies.first_difference
    files = compare_files(original, rewritten, stored=bool(stored), difference=difference)
    earlier = read_earlier(original)
    layers = original / KERAS_METADATA
    if earlier is not None:
        layers = original / OWN_FOLDER / f"original_{KERAS_METADATA}"
        for pair in graph_pairs(earlier.original, before, earlier.plan):
            _prove_graphs(*pair, (layers, original / KERAS_METADATA))
        frozen_before = check_contains(plan, earlier.plan)
        before = earlier.original
    metadata = (layers, rewritten / KERAS_METADATA)
    own = own_bytes(plan, original, rewritten)
    graphs = [_prove_graphs(*pair, metadata, own) for pair in graph_pairs(before, after, plan)]
    targets, keras_2, walk, proven = graphs[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "proven": True,
        "variables": [_variable_evidence(target, walk.slots, proven) for target in targets.values()],
        "functions": _function_counts(proven),
        "files": files,
        "stored_constants": stored,
        "earlier": None if earlier is None else {"frozen_elements": frozen_before},
        "only_in": list(plan.only_in),
        "keras_2": keras_2,
        "other_graphs": [
            {
                "variables": [_variable_evidence(target, walk.slots, proven) for target in targets.values()],
                "functions": _function_counts(proven),
            }
            for targets, _, walk, proven in graphs[1:]
        ],
    }


def _prove_graphs(
    before: saved_model_pb2.SavedModel,
    after: saved_model_pb2.SavedModel,
    plan: FreezePlan,
    layers: tuple[Path, Path],
    own: Mapping[str, tuple[str, int]] = MappingProxyType({}),
) -> tuple[dict[int, Target], dict[str, Any] | None, Lockstep, dict[tuple[str, str, Binding], PairEvidence]]:
    """Prove that one graph is the other one with a plan. Of the second, bound clones are taken back."""
    old, new = before.meta_graphs[0], after.meta_graphs[0]
    scope, clones = None, {}
    if plan.only_in:
        scope = find_scope(old, library_of(old), plan.only_in)
        clones = take_back_clones(old.object_graph_def, new.object_graph_def, scope)
    compare_envelopes(before, after)
    targets = find_targets(old, plan, own)
    for target in targets.values():
        check_form(target)
    keras_2 = compare_keras_2(layers, old.object_graph_def, new.object_graph_def, targets)
    walk = Lockstep(old, new, targets, scope, clones)
    return targets, keras_2, walk, walk.prove()


def _variable_evidence(
    target: Target, slots: Mapping[int, Target], proven: dict[tuple[str, str, Binding], PairEvidence]
) -> dict[str, Any]:
    reads, updates = [], []
    held = {target.node_id: target} | {n: slot for n, slot in slots.items() if slot.slot_of == target}
    for (original, rewritten, _), evidence in proven.items():
        place = {"function": rewritten, "original_function": original}
        reads += [{**place, "node": n, "operation": op} for v, n, op in evidence.masked if v == target.node_id]
        updates += [
            {**place, "node": n, "operation": op, "of": held[v].name} for v, n, op in evidence.updated if v in held
        ]
    frozen = target.frozen
    order = ("function", "node", "operation")
    return {
        "name": target.name,
        "object_path": frozen.variable.object_path,
        "form": frozen.form,
        "elements": frozen.elements,
        "frozen_elements": frozen.frozen_elements,
        "masked_reads": sorted(reads, key=lambda read: [read[key] for key in order]),
        "masked_updates": sorted(updates, key=lambda update: [update[key] for key in (*order, "of")]),
    }


def _function_counts(proven: dict[tuple[str, str, Binding], PairEvidence]) -> dict[str, int]:
    """Counts over rewritten bodies, each once; the main graph counts as one."""
    bodies = {rewritten: (original, evidence) for (original, rewritten, _), evidence in proven.items()}
    return {
        "compared": len(bodies),
        "unchanged": sum(
            name == original and not e.added and e.identical == e.nodes for name, (original, e) in bodies.items()
        ),
        "masked": sum(bool(e.added) for _, e in bodies.values()),
        "cloned": sum(name != original for name, (original, _) in bodies.items()),
        "nodes_compared": sum(e.nodes for _, e in bodies.values()),
        "nodes_identical": sum(e.identical for _, e in bodies.values()),
        "nodes_added": sum(e.added for _, e in bodies.values()),
        "reads_without_consumer": sum(e.unread for _, e in bodies.values()),
    }
