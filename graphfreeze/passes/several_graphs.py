"""The freeze in a SavedModel with several graphs.

Its graphs share one checkpoint: a variable is a value there. So it is frozen in every graph that restores it, whichever
is loaded. A graph that restores none of the targeted values keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import UnsupportedError
from graphfreeze.passes.freeze_reads import RewrittenModel, freeze_reads
from graphfreeze.passes.keras2 import Keras2Mode
from graphfreeze.passes.storage import Storage
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan, FrozenVariable

__all__ = ["freeze", "part_of_plan"]


def freeze(
    model: SavedModel, plan: FreezePlan, *, keras2: Keras2Mode = "refuse", storage: Storage | None = None
) -> RewrittenModel:
    """Mask every read and update of the plan's variables, in all graphs of the SavedModel.

    Args:
        model: The model, as the graph that the plan's names are from.
        plan: The targeted variables.
        keras2: As for `freeze_reads`.
        storage: As for `freeze_reads`.

    Returns:
        The rewritten model, with all graphs.

    Raises:
        UnsupportedError: Another graph restores a targeted value in other parts, or as another type; or as for
            `freeze_reads`.
    """
    rewritten = freeze_reads(model, plan, keras2=keras2, storage=storage)
    if not model.others:
        return rewritten
    whole = saved_model_pb2.SavedModel()
    whole.CopyFrom(model.whole)
    changed = {model.index: rewritten}
    for other in model.others:
        part = part_of_plan(other, model, plan)
        if part.variables:
            changed[other.index] = freeze_reads(other, part, keras2=keras2)
    for index, result in changed.items():
        whole.meta_graphs[index].CopyFrom(result.proto.meta_graphs[0])
    reads: list[Any] = []
    updates: list[Any] = []
    for index, result in sorted(changed.items()):
        tags = _listed(sorted(model.whole.meta_graphs[index].meta_info_def.tags))
        reads += [replace(read, function=f"{read.function} ({tags})") for read in result.reads]
        updates += [replace(update, function=f"{update.function} ({tags})") for update in result.updates]
    rewritten.proto, rewritten.changed = whole, frozenset(changed)
    rewritten.reads, rewritten.updates = tuple(reads), tuple(updates)
    return rewritten


def _listed(tags: Sequence[str] | None) -> str:
    return ",".join(tags or ()) or "(none)"


def part_of_plan(other: SavedModel, model: SavedModel, plan: FreezePlan) -> FreezePlan:
    """What a plan freezes in another graph of the same SavedModel: the variables that it restores from the same values.

    Raises:
        UnsupportedError: It restores such a value in other parts, or takes it for another type.
    """
    frozen: list[FrozenVariable] = []
    keys = {model.key_of_node.get(model.node_id(entry.variable)): entry for entry in plan.variables}
    paths = {found.stored.path for found in model.graph_variables.values() if found.stored is not None}
    for node, found in other.graph_variables.items():
        variable = other.variables_by_node[node]
        if found.stored is None or found.stored.key not in keys:
            continue
        entry = plan.find(found.stored.path)
        named = keys[found.stored.key].variable
        if entry is not None and (variable.shape, variable.dtype) == (entry.variable.shape, entry.variable.dtype):
            frozen.append(entry.held_by(variable))
        elif entry is not None or found.stored.path not in paths or "#" in named.object_path:
            raise UnsupportedError(
                f"{named.name} is restored from {found.stored.key!r}, and the graph tagged {_listed(other.tags)} "
                f"restores {variable.name} of shape {variable.shape} and dtype {variable.dtype} from it in another "
                "way: it would stay unfrozen there. Leave the variable out of the selection, or save the graph "
                "that you want alone."
            )
    return FreezePlan(tuple(frozen), tags=other.tags)
