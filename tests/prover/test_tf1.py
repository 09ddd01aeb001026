"""The prover against damage to rewritten models of TensorFlow 1: no damage gets through, and none crashes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze import Selection
from graphfreeze.prover import prove
from graphfreeze.selection import load_plan
from graphfreeze.selection.forms import RequestedForm
from tests.passes.tf1_graphs import Graph, assignments, averages, clipping, old_branches, updates_in_a_loop
from tests.passes.tf1_models import save_graph, save_model
from tests.passes.tf1_rewriting import KINDS, rewrite
from tests.prover.damage import damaged, surviving


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
    survivors: list[str] = []
    tried = 0

    def prove_it() -> None:
        (rewritten / "saved_model.pb").write_bytes(proto.SerializeToString())
        prove(model, rewritten, plan)

    for index, node in enumerate(nodes):
        kinds = list(damaged(node, f"{nodes[-1].name}:0").items())
        if "graphfreeze/" not in node.name:
            # Any difference of an original node is found in the same way: a few get one kind each, in turn.
            kinds = [kinds[index % len(kinds)]] if index % 20 == 0 else []
        chosen = kinds[index % min(STRIDE, len(kinds) or 1) :: STRIDE]
        survivors += surviving(node, chosen, prove_it)
        tried += len(chosen)
    assert tried > 30
    assert survivors == []


@KINDS
def test_the_prover_finds_every_defect(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource, warm=1)
    rewrite(model, tmp_path / "out", "m/w[:, 0:2]", "m/e[[1, 2]]", "m/b[0]", checks="static")
    file = tmp_path / "out" / "saved_model" / "saved_model.pb"
    content = file.read_bytes()

    def fails(change: Callable[[dict[str, Any], Any], None]) -> None:
        proto = saved_model_pb2.SavedModel.FromString(content)
        graph = proto.meta_graphs[0].graph_def
        change({node.name: node for node in graph.node}, graph)
        file.write_bytes(proto.SerializeToString())
        with pytest.raises(graphfreeze.VerificationError):
            graphfreeze.verify(model, tmp_path / "out")

    def original_input(taker: str, position: int, replacement: str, nodes: dict[str, Any], graph: Any) -> None:
        assert "graphfreeze" in nodes[taker].input[position]
        nodes[taker].input[position] = replacement

    def wait_for_nothing(name: str, nodes: dict[str, Any], graph: Any) -> None:
        nodes[name].input.pop()

    def consumers(nodes: dict[str, Any], ending: str) -> list[tuple[Any, int]]:
        return [
            (node, position)
            for node in nodes.values()
            for position, text in enumerate(node.input)
            if text.split(":")[0].endswith(ending) and "/graphfreeze/" in text and "graphfreeze" not in node.name
        ]

    proto = saved_model_pb2.SavedModel.FromString(content)
    nodes = {node.name: node for node in proto.meta_graphs[0].graph_def.node}
    masked = [*consumers(nodes, "/add"), *consumers(nodes, "/select")]
    assert len(masked) >= 3
    for node, position in masked:
        # The raw read, behind the product of a blend.
        text = node.input[position].split(":")[0]
        raw = next(
            t
            for t in nodes[nodes[text].input[0].split(":")[0]].input
            if "/graphfreeze" not in t[1:] and t[:11] != "graphfreeze"
        )
        fails(partial(original_input, node.name, position, raw))
    for name, node in nodes.items():
        if name.startswith("graphfreeze") and node.op == "Const" and node.attr["value"].tensor.tensor_content:

            def flip(nodes: dict[str, Any], graph: Any, name: str = name) -> None:
                tensor = nodes[name].attr["value"].tensor
                tensor.tensor_content = bytes([tensor.tensor_content[0] ^ 1]) + tensor.tensor_content[1:]

            fails(flip)
    for name, node in nodes.items():
        if node.op == "NoOp" and name.endswith("/graphfreeze/done"):
            update = name.removesuffix("/graphfreeze/done")

            def wait_for_less(nodes: dict[str, Any], graph: Any, name: str = name, update: str = update) -> None:
                for other in nodes.values():
                    for position, text in enumerate(other.input):
                        if text == f"^{name}":
                            other.input[position] = f"^{update}"

            fails(wait_for_less)
            fails(partial(wait_for_nothing, name))

    def read_more(nodes: dict[str, Any], graph: Any) -> None:
        node = graph.node.add(name="leak", op="ReadVariableOp" if resource else "Identity")
        node.input.append("m/w")
        node.attr["dtype" if resource else "T"].type = 1

    fails(read_more)
    file.write_bytes(content)
    graphfreeze.verify(model, tmp_path / "out")
