"""Norms of rows are masked with their variable's mask at their indices: every damage to that is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2

from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan, rewrite
from tests.prover.row_steps import Step, by_the_norm, found, of_two, proven, through_a_wider_copy


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rewritten model with norms of the rows of two variables of one shape."""
    path = tmp_path_factory.mktemp("two")
    proven(of_two, path, "e", "f")
    return path


class Damaged(Mutant):
    """A copy of that model, with the body of its step."""

    @property
    def body(self) -> function_pb2.FunctionDef:
        (body,) = (f for f in self.meta.graph_def.library.function if any("/mask" in n.name for n in f.node_def))
        return body

    def node(self, tensor: str) -> node_def_pb2.NodeDef:
        return next(n for n in self.body.node_def if n.name == tensor.split(":")[0])

    @property
    def norms(self) -> list[tuple[node_def_pb2.NodeDef, node_def_pb2.NodeDef, node_def_pb2.NodeDef]]:
        """The norms, each with what masks it, and with the gather of its mask."""
        found = [(n, self.node(n.input[0])) for n in self.body.node_def if n.op == "L2Loss"]
        return [(norm, kept, self.node(kept.input[0])) for norm, kept in found]

    def add(self, node: node_def_pb2.NodeDef, name: str) -> node_def_pb2.NodeDef:
        added = self.body.node_def.add()
        added.CopyFrom(node)
        added.name = name
        return added


@pytest.fixture
def damaged(two: Path, tmp_path: Path) -> Damaged:
    return Damaged.copy(two / "in", two / "out", freeze_plan(two / "in", ["e", "f"], "select"), tmp_path)


def test_the_norm_of_rows_is_left_unmasked(damaged: Damaged) -> None:
    norm, kept, _ = damaged.norms[0]
    norm.input[0] = kept.input[1]
    assert damaged.failure("expected the value that is written to be masked")["node"] == norm.name


def test_the_mask_of_a_norm_is_gathered_at_other_indices(damaged: Damaged) -> None:
    (norm, kept, gather), (_, _, other) = damaged.norms
    assert gather.input[1] != other.input[1]
    moved = damaged.add(gather, "moved")
    moved.input[1] = other.input[1]
    kept.input[0] = "moved:output:0"
    assert damaged.failure("expected the mask to be gathered with the update's indices")["node"] == norm.name


def test_the_mask_of_a_norm_is_another_variables(damaged: Damaged) -> None:
    (norm, kept, gather), (_, _, other) = damaged.norms
    swapped = damaged.add(gather, "swapped")
    swapped.input[0] = other.input[0]
    kept.input[0] = "swapped:output:0"
    assert damaged.failure("expected the plan's mask, found another one")["node"] == norm.name


@pytest.mark.parametrize("attribute", ["Tindices", "Taxis"])
def test_the_mask_of_a_norm_is_gathered_with_another_dtype(damaged: Damaged, attribute: str) -> None:
    norm, kept, gather = damaged.norms[0]
    damaged.add(gather, "typed").attr[attribute].type = types_pb2.DT_INT64
    kept.input[0] = "typed:output:0"
    assert damaged.failure("expected GatherV2 with")["node"] == norm.name


def test_a_mask_that_differs_along_the_first_axis_is_not_gathered(damaged: Damaged) -> None:
    norm, kept, gather = damaged.norms[0]
    kept.input[0] = gather.input[0]
    assert damaged.failure("expected a mask for .5, 3. at the update's place")["node"] == norm.name


def test_a_mask_of_columns_needs_no_gather(tmp_path: Path) -> None:
    tf.saved_model.save(Step(by_the_norm), str(tmp_path / "in"))
    plan = freeze_plan(tmp_path / "in", ["e"], "select", np.tile([False, True, True], (5, 1)))
    rewrite(tmp_path / "in", tmp_path / "out", plan)
    model = Damaged.copy(tmp_path / "in", tmp_path / "out", plan, tmp_path)
    (norm,) = (n for n in model.body.node_def if n.op == "Sum" and "graphfreeze" in n.input[0])
    gather = model.node(model.node(norm.input[0]).input[0])
    mask, axis = model.node(gather.input[0]), model.node(gather.input[2])
    name = gather.name
    gather.CopyFrom(mask)
    gather.name = name
    gather.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([False, True, True]))
    taken = {text.split(":")[0] for n in model.body.node_def for text in n.input}
    for unused in (mask, axis):
        if unused.name not in taken:
            model.body.node_def.remove(unused)
    model.save()
    assert found(model.evidence()) == (set(), [("e", "Sum")])
    gather.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([False, True, False]))
    model.failure("expected the plan's mask, found another one: 5 of 15")


def test_a_mask_may_be_gathered_at_a_copy_of_the_indices(tmp_path: Path) -> None:
    tf.saved_model.save(Step(through_a_wider_copy), str(tmp_path / "in"))
    plan = freeze_plan(tmp_path / "in", ["e"], "select")
    rewrite(tmp_path / "in", tmp_path / "out", plan)
    model = Damaged.copy(tmp_path / "in", tmp_path / "out", plan, tmp_path)
    (norm,) = (n for n in model.body.node_def if n.op == "Sum" and "graphfreeze" in n.input[0])
    kept = model.node(norm.input[0])
    gather = model.node(kept.input[0])
    (wider,) = (n for n in model.body.node_def if n.op == "Cast" and n.attr["DstT"].type == types_pb2.DT_INT64)
    gather.input[1], gather.attr["Tindices"].type = f"{wider.name}:y:0", types_pb2.DT_INT64
    model.save()
    assert found(model.evidence()) == ({"s"}, [("e", "Sum")])
    gather.attr["Tindices"].type = types_pb2.DT_INT32
    model.failure("expected GatherV2 with")
