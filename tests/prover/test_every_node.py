"""Damage every node of a rewritten model, one after the other: no damage gets through, and none crashes the prover."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tensorflow.core.framework import node_def_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.selection.plan import Form
from tests.prover.mutant import Mutant


def damaged(node: node_def_pb2.NodeDef, other: str) -> dict[str, node_def_pb2.NodeDef]:
    """Copies of a node with one thing changed in each. `other` is a tensor that the node could take as well."""
    copies: dict[str, node_def_pb2.NodeDef] = {}

    def copy(what: str) -> node_def_pb2.NodeDef:
        return copies.setdefault(what, node_def_pb2.NodeDef.FromString(node.SerializeToString()))

    copy("operation").op = "Abs"
    copy("device").device = "/device:CPU:7"
    copy("name").name += "_renamed"
    for position, text in enumerate(node.input):
        if text.split(":")[0] != other.split(":")[0]:
            copy(f"input {position}").input[position] = other
        copy(f"no input {position}").input.pop(position)
    for key in node.attr:
        copy(f"attribute {key}").attr[key].Clear()
        # A masked read need not repeat what it knows of shapes.
        if not (key == "_output_shapes" and "/graphfreeze/" in node.name):
            copy(f"no attribute {key}").attr.pop(key)
    return copies


# The last model has many nodes: of the kinds of damage, each of its nodes gets every fifth.
@pytest.mark.parametrize(
    ("name", "form", "stride"), [("gathers", "select", 1), ("shared", "blend", 1), ("updates", "select", 5)]
)
def test_every_damage_is_found(mutant: Callable[[str, Form], Mutant], name: str, form: Form, stride: int) -> None:
    model = mutant(name, form)
    graph = model.meta.graph_def
    survivors, tried = [], 0
    for nodes in [*(function.node_def for function in graph.library.function), graph.node]:
        for node in nodes:
            whole = node_def_pb2.NodeDef.FromString(node.SerializeToString())
            kinds = list(damaged(node, f"{nodes[-1].name}:0").items())
            if "graphfreeze/" not in node.name:
                # Any difference of an original node is found in the same way: one kind each, in turn.
                kinds = [kinds[tried % len(kinds)]]
            for what, damage in kinds[tried % min(stride, len(kinds)) :: stride]:
                node.CopyFrom(damage)
                model.save()
                tried += 1
                try:
                    model.evidence()
                except VerificationError:
                    continue
                finally:
                    node.CopyFrom(whole)
                survivors.append(f"{what} of {node.op} {node.name}")
    assert tried > 200
    assert survivors == []
