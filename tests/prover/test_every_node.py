"""Damage every node of a rewritten model, one after the other: no damage gets through, and none crashes the prover."""

from __future__ import annotations

import pytest

from graphfreeze.selection.plan import Form
from tests.prover.damage import damaged, surviving
from tests.prover.mutant import Make


# The last model has many nodes: of the kinds of damage, each of its nodes gets every fifth.
@pytest.mark.parametrize(
    ("name", "form", "stride"), [("gathers", "select", 1), ("shared", "blend", 1), ("updates", "select", 5)]
)
def test_every_damage_is_found(mutant: Make, name: str, form: Form, stride: int) -> None:
    model = mutant(name, form)
    graph = model.meta.graph_def
    survivors: list[str] = []
    tried = 0

    def prove() -> None:
        model.save()
        model.evidence()

    for nodes in [*(function.node_def for function in graph.library.function), graph.node]:
        for node in nodes:
            kinds = list(damaged(node, f"{nodes[-1].name}:0").items())
            if "graphfreeze/" not in node.name:
                # Any difference of an original node is found in the same way: one kind each, in turn.
                kinds = [kinds[tried % len(kinds)]]
            chosen = kinds[tried % min(stride, len(kinds)) :: stride]
            survivors += surviving(node, chosen, prove)
            tried += len(chosen)
    assert tried > 200
    assert survivors == []
