"""The prover against damage to rewritten models of TensorFlow 1: no damage gets through, and none crashes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze import Selection
from graphfreeze.errors import VerificationError
from graphfreeze.prover import prove
from graphfreeze.selection import load_plan
from graphfreeze.selection.forms import RequestedForm
from tests.passes.test_tf1 import Graph, assignments, averages, clipping, old_branches, updates_in_a_loop
from tests.passes.tf1_models import save_graph, save_model
from tests.prover.test_every_node import damaged


def save_built(graph: Graph, *, resource: bool) -> Callable[[Path], Path]:
    return lambda path: save_graph(path, lambda: graph(resource))


MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "references": (lambda path: save_model(path, resource=False, warm=1), "m/e[0:2]"),
    "resources": (lambda path: save_model(path, resource=True, warm=1), "m/w[0:2]"),
    "assignments": (save_built(assignments, resource=False), "w[:, 0:2]"),
    "averages": (save_built(averages, resource=False), "w[:, 0:2]"),
    "branches": (save_built(old_branches, resource=True), "w[:, 0:2]"),
    "clipping": (save_built(clipping, resource=False), "w[:, 0:2]"),
    "loop": (save_built(updates_in_a_loop, resource=True), "w[:, 0:2]"),
}


# Of the kinds of damage, each added node gets every third.
STRIDE = 3


@pytest.mark.parametrize(("name", "form"), list(zip(MODELS, 4 * ["select", "blend"], strict=False)))
def test_every_damage_is_found(tmp_path: Path, name: str, form: RequestedForm) -> None:
    save, selector = MODELS[name]
    model = save(tmp_path / "model")
    selections = [Selection("freeze", selector)]
    graphfreeze.rewrite(model, tmp_path / "out", selections, form=form, onnx=False, checks="static")
    rewritten = tmp_path / "out" / "saved_model"
    plan = load_plan(tmp_path / "out" / "plan")
    proto = saved_model_pb2.SavedModel.FromString((rewritten / "saved_model.pb").read_bytes())
    nodes = proto.meta_graphs[0].graph_def.node
    survivors, tried = [], 0
    for index, node in enumerate(nodes):
        whole = node_def_pb2.NodeDef.FromString(node.SerializeToString())
        kinds = list(damaged(node, f"{nodes[-1].name}:0").items())
        if "graphfreeze/" not in node.name:
            # Any difference of an original node is found in the same way: a few get one kind each, in turn.
            kinds = [kinds[index % len(kinds)]] if index % 20 == 0 else []
        for what, damage in kinds[index % min(STRIDE, len(kinds) or 1) :: STRIDE]:
            tried += 1
            node.CopyFrom(damage)
            (rewritten / "saved_model.pb").write_bytes(proto.SerializeToString())
            try:
                prove(model, rewritten, plan)
            except VerificationError:
                continue
            finally:
                node.CopyFrom(whole)
            survivors.append(f"{what} of {node.op} {node.name}")
    assert tried > 30
    assert survivors == []
