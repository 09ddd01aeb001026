"""SavedModels with several graphs over one checkpoint: what a plan has to freeze in each of them."""

from __future__ import annotations

from collections.abc import Iterator

from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.session_graph import SessionGraph
from graphfreeze.prover.targets import NUMPY_NAMES
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable

__all__ = ["GraphPair", "graph_pairs"]

GraphPair = tuple[saved_model_pb2.SavedModel, saved_model_pb2.SavedModel, FreezePlan]
"""The original and the rewritten model with one of their graphs each, and what is frozen there."""


def graph_pairs(
    before: saved_model_pb2.SavedModel, after: saved_model_pb2.SavedModel, plan: FreezePlan
) -> Iterator[GraphPair]:
    """The graphs of both models, first the one that the plan's names are from.

    Raises:
        VerificationError: The graphs do not correspond, or one restores a targeted value in a way of its own.
    """
    tags = [tuple(sorted(graph.meta_info_def.tags)) for graph in before.meta_graphs]
    found = [tuple(sorted(graph.meta_info_def.tags)) for graph in after.meta_graphs]
    if tags != found:
        refuse(f"expected the graphs tagged {tags}, found {found}")
    if len(tags) == 1:
        if plan.tags is not None:
            refuse(f"expected several graphs, of which the plan names the one tagged {plan.tags}, found a single one")
        yield before, after, plan
        return
    if plan.tags is None or tags.count(plan.tags) != 1 or len(set(tags)) < len(tags):
        refuse(f"expected one graph tagged {plan.tags} among several with tags of their own, found {tags}")
    if any(graph.object_graph_def.nodes for graph in before.meta_graphs):
        refuse("expected several graphs to be without objects, as TensorFlow 1 writes them, found one with objects")
    chosen = tags.index(plan.tags)
    yield _alone(before, chosen), _alone(after, chosen), plan
    for position in range(len(tags)):
        if position != chosen:
            old, new = _alone(before, position), _alone(after, position)
            part = _part(SessionGraph(before.meta_graphs[chosen]), SessionGraph(old.meta_graphs[0]), plan)
            if not part.variables and (
                old.SerializeToString(deterministic=True) != new.SerializeToString(deterministic=True)
            ):
                refuse(f"expected the graph tagged {tags[position]} to stay as it is, found it changed")
            yield old, new, part


def _alone(model: saved_model_pb2.SavedModel, position: int) -> saved_model_pb2.SavedModel:
    single = saved_model_pb2.SavedModel()
    single.CopyFrom(model)
    del single.meta_graphs[position + 1 :]
    del single.meta_graphs[:position]
    return single


def _part(chosen: SessionGraph, other: SessionGraph, plan: FreezePlan) -> FreezePlan:
    """The plan's variables in another graph: those that it restores from the same values."""
    named = {variable.nodes[0]: variable for variable in chosen.variables.values()}
    paths = {variable.path for variable in named.values()}
    frozen = {named[f.variable.name].path: f for f in plan.variables if f.variable.name in named}
    keys = {named[f.variable.name].key for f in frozen.values()}
    found = []
    for variable in other.variables.values():
        if variable.path is None or variable.key not in keys:
            continue
        entry = frozen.get(variable.path)
        if variable.path not in paths:
            refuse(
                "expected every graph to restore a targeted value in the same parts, found one that does not",
                variable=variable.nodes[0],
            )
        if entry is not None:
            like = entry.variable
            if (variable.shape or like.shape, NUMPY_NAMES.get(variable.dtype)) != (like.shape, like.dtype):
                refuse("expected a variable of the same type in every graph, found another", variable=like.name)
            held = Variable(variable.nodes[0], like.object_path, like.shape, like.dtype, like.trainable)
            found.append(entry.held_by(held))
    return FreezePlan(tuple(found), tags=plan.tags)
