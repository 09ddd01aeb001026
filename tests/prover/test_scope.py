"""A freeze in some endpoints only is proven to be that: all of these, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from graphfreeze.errors import VerificationError
from graphfreeze.prover import prove
from graphfreeze.selection.plan import FreezePlan
from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan, rewrite

Limited = Callable[[str], Mutant]


@pytest.fixture
def limited(original: Callable[[str], Path], tmp_path: Path) -> Limited:
    """The name of an endpoint -> a model that is frozen there alone."""

    def make(name: str) -> Mutant:
        plan = replace(freeze_plan(original("endpoints"), ["a", "b"], "blend"), only_in=(name,))
        output = rewrite(original("endpoints"), tmp_path / "made", plan)
        (tmp_path / "copy").mkdir()
        return Mutant.copy(original("endpoints"), output, plan, tmp_path / "copy")

    return make


@pytest.mark.parametrize(("name", "frozen"), [("inner", ["a"]), ("outer", ["a", "b"])])
def test_the_pass_is_proven(limited: Limited, name: str, frozen: list[str]) -> None:
    evidence = limited(name).evidence()
    assert evidence["only_in"] == [name]
    assert [v["name"] for v in evidence["variables"] if v["masked_reads"]] == frozen


def test_the_wrong_endpoint_is_frozen(limited: Limited) -> None:
    model = limited("inner")
    model.plan = FreezePlan(model.plan.variables, ("outer",))
    model.failure("")
    model.plan = FreezePlan(model.plan.variables)
    model.failure("")
    with pytest.raises(VerificationError):
        prove(model.original, model.original, replace(model.plan, only_in=("outer",)))


def test_everything_is_frozen(original: Callable[[str], Path], tmp_path: Path) -> None:
    plan = freeze_plan(original("endpoints"), ["a", "b"], "blend")
    output = rewrite(original("endpoints"), tmp_path / "all", plan)
    with pytest.raises(VerificationError):
        prove(original("endpoints"), output, replace(plan, only_in=("inner",)))


def test_an_endpoint_that_there_is_not(limited: Limited) -> None:
    model = limited("inner")
    model.plan = replace(model.plan, only_in=("inner", "nowhere"))
    model.failure("expected an endpoint 'nowhere' in the original, found inner, outer")


def clones(model: Mutant) -> set[str]:
    names = {f.signature.name for f in model.meta.graph_def.library.function}
    return {name for name in names if "_graphfreeze_" in name}


def test_one_call_site_is_left(limited: Limited) -> None:
    """A frozen endpoint calls the function that the others call."""
    model = limited("outer")
    node = next(
        n
        for f in model.meta.graph_def.library.function
        for n in f.node_def
        if "f" in n.attr and n.attr["f"].func.name in clones(model)
    )
    node.attr["f"].func.name = node.attr["f"].func.name.partition("_graphfreeze_")[0]
    model.failure("to be masked, found the unmasked read|that nothing calls")


def test_another_endpoint_calls_a_clone(limited: Limited) -> None:
    model = limited("inner")
    by_original = {name.partition("_graphfreeze_")[0]: name for name in clones(model)}
    outer = next(
        f
        for f in model.meta.graph_def.library.function
        if any(n.op == "StatefulPartitionedCall" and n.attr["f"].func.name in by_original for n in f.node_def)
        and "graphfreeze" not in f.signature.name
    )
    node = next(n for n in outer.node_def if "f" in n.attr and n.attr["f"].func.name in by_original)
    node.attr["f"].func.name = by_original[node.attr["f"].func.name]
    model.failure("which is out of scope")


def test_the_session_is_left_unfrozen(limited: Limited) -> None:
    model = limited("inner")
    wrapper = next(
        n
        for n in model.meta.graph_def.node
        if "f" in n.attr and model.meta.signature_def["inner"].outputs["output_0"].name.split(":")[0] == n.name
    )
    other = model.meta.signature_def["outer"].outputs["output_0"].name.split(":")[0]
    called = next(n for n in model.meta.graph_def.node if n.name == other)
    wrapper.attr["f"].func.name, called.attr["f"].func.name = called.attr["f"].func.name, wrapper.attr["f"].func.name
    model.failure("")


def bound(model: Mutant) -> list[str]:
    graph = model.meta.object_graph_def
    return [name for node in graph.nodes for name in node.function.concrete_functions]


def test_an_endpoint_keeps_its_function(limited: Limited) -> None:
    model = limited("inner")
    (clone,) = set(bound(model)) & clones(model)
    for node in model.meta.object_graph_def.nodes:
        for k, name in enumerate(node.function.concrete_functions):
            if name == clone:
                node.function.concrete_functions[k] = clone.partition("_graphfreeze_")[0]
    model.failure("found one that stands for its original")


def test_a_clone_is_bound_otherwise(limited: Limited) -> None:
    model = limited("inner")
    (clone,) = set(bound(model)) & clones(model)
    model.meta.object_graph_def.concrete_functions[clone].bound_inputs[0] += 1
    assert model.failure("expected a clone to be bound as its original")["function"] == clone
    del model.meta.object_graph_def.concrete_functions[clone]
    model.failure("expected the clone of a bound function to be described")


def test_a_function_is_added(limited: Limited) -> None:
    model = limited("inner")
    concrete = model.meta.object_graph_def.concrete_functions
    concrete["added"].CopyFrom(concrete[bound(model)[0]])
    model.failure("expected the object graph to stay as it is, found another concrete_functions")
