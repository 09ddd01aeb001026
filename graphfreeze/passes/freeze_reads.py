"""The freeze pass: every read of a targeted variable becomes a masked read, every update a masked update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.passes.freeze_updates import mask_updates
from graphfreeze.passes.gradient_norms import GradientNorms
from graphfreeze.passes.keras2 import Keras2Mode, retag
from graphfreeze.passes.mask_function import mask_function
from graphfreeze.passes.scoped import bind_clones, check_signatures
from graphfreeze.passes.size_budget import SizeBudget
from graphfreeze.passes.slot_variables import find_slots, followed_for, written_in
from graphfreeze.passes.specialise import name_contexts, specialise
from graphfreeze.passes.storage import Storage, StoredConstants, StoredVariable, stored_paths
from graphfreeze.passes.supported import check_gradients, check_model, check_plan, check_uses
from graphfreeze.passes.thread_constants import thread_constants
from graphfreeze.passes.value_ends import ValueEnds
from graphfreeze.passes.well_formed import check_main_graph, check_well_formed
from graphfreeze.passes.zeroed import Zeroed, find_zeroed
from graphfreeze.savedmodel.contexts import Analysis, analyse
from graphfreeze.savedmodel.earlier import original_file
from graphfreeze.savedmodel.endpoint_labels import EndpointLabels
from graphfreeze.savedmodel.handle_flow import Context
from graphfreeze.savedmodel.keras_metadata import KERAS_METADATA, read_keras_metadata
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.reads import captured_tensors
from graphfreeze.savedmodel.scope import Scope, find_scope
from graphfreeze.selection.plan import Form, FreezePlan, FrozenVariable

__all__ = ["MaskedRead", "MaskedUpdate", "RewrittenModel", "freeze_reads"]


@dataclass(frozen=True, slots=True)
class MaskedRead:
    """One read that the pass masked.

    Attributes:
        name: The variable's name.
        object_path: The variable's object path.
        function: The function that reads it, as the rewritten model names it.
        node: The node whose output is masked: the read, or a gather of its rows.
        operation: That node's operation.
        form: The form of the masked read.
        endpoints: The endpoints that reach it (`signature serving_default`, `function serve`).
    """

    name: str
    object_path: str
    function: str
    node: str
    operation: str
    form: Form
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MaskedUpdate:
    """One update of a targeted variable, or of an optimizer's slot of one, that the pass masked.

    Attributes:
        name: The name of the variable, or of the slot.
        object_path: Its object path.
        of: The object path of the targeted variable: of the variable itself, or of the one whose slot it is.
        function: The function that updates it, as the rewritten model names it.
        node: The node that does.
        operation: That node's operation.
        endpoints: The endpoints that reach it.
    """

    name: str
    object_path: str
    of: str
    function: str
    node: str
    operation: str
    endpoints: tuple[str, ...]


@dataclass
class RewrittenModel:
    """A rewritten SavedModel that is not written yet.

    Attributes:
        original: What it was made from; its directory still holds the checkpoint and the assets.
        proto: The new `saved_model.pb`; empty once it is written.
        reads: Every masked read, in the order of the functions.
        updates: Every masked update, in the order of the functions.
        keras_metadata: The new `keras_metadata.pb`, or None where the original has none.
        retagged: The names of the layers whose Keras 2 configuration changed.
        plan: What is frozen.
        stored: The masks and frozen values that are variables, whose values the checkpoint still lacks.
        changed: Of several graphs, the positions of those that are not the original's; None where there is only one.
    """

    original: SavedModel
    proto: saved_model_pb2.SavedModel
    reads: tuple[MaskedRead, ...]
    updates: tuple[MaskedUpdate, ...] = ()
    keras_metadata: bytes | None = None
    retagged: tuple[str, ...] = ()
    plan: FreezePlan = field(default_factory=FreezePlan)
    stored: tuple[StoredVariable, ...] = ()
    changed: frozenset[int] | None = None


def freeze_reads(
    model: SavedModel, plan: FreezePlan, *, keras2: Keras2Mode = "refuse", storage: Storage | None = None
) -> RewrittenModel:
    """Mask every read of the plan's variables, in every function and for session loaders too.

    Saving, restoring and initialising keep seeing the raw variables. Reads that nothing takes stay as they are, and so
    does everything that does not use a targeted variable. Where the model updates them itself, frozen elements stay as
    they are stored, and so do those of the optimizer's slots. The result depends on nothing but the arguments.

    Args:
        model: The model; it is not changed.
        plan: The targeted variables with masks, values and forms.
        keras2: What `tf_keras.models.load_model` does with the result, where the model is a save of Keras 2.
        storage: When masks and frozen values go into the checkpoint instead of the graph.

    Returns:
        The rewritten model.

    Raises:
        UsageError: The plan does not fit the model.
        UnsupportedVariableUseError: A targeted variable reaches an operation that is not known to be safe.
        UnsupportedDtypeError: A targeted variable's dtype has no such masked read.
        UnsupportedError: The model is of a kind that cannot be rewritten, or would become too large for protobuf.
    """
    check_model(model)
    targets = check_plan(model, plan)
    scope = find_scope(model, plan.only_in)
    analysis = analyse(model, frozenset(targets), scope)
    slots, zeroed = _slots_and_zeroed(model, targets, scope, analysis)
    if slots:
        analysis = analyse(model, frozenset({*targets, *slots}), scope)
    check_uses(model, analysis)
    check_gradients(model, analysis)
    if scope is not None:
        check_signatures(model, analysis, scope)
    captured = captured_tensors(model)
    names = name_contexts(
        analysis, existing=model.functions.keys(), fixed=captured.keys(), plain_first=scope is not None
    )

    proto = saved_model_pb2.SavedModel()
    proto.CopyFrom(model.proto)
    # Without objects there is nothing that holds further variables: masks and values stay in the graph.
    constants = StoredConstants(stored_paths(plan, storage or Storage()) if model.has_objects else frozenset())
    budget = SizeBudget(proto.ByteSize(), stored=constants)
    bodies = specialise(proto, analysis, names, budget)
    endpoints = EndpointLabels(model, analysis)
    bind_clones(proto.meta_graphs[0].object_graph_def, analysis, names)
    objects = proto.meta_graphs[0].object_graph_def.nodes
    masks = targets | {slot: targets[owner] for slot, owner in slots.items()}
    dtypes = {node: model.variables_by_node[node].dtype for node in masks}
    reads: list[MaskedRead] = []
    updates: list[MaskedUpdate] = []
    changed = []
    for context, function in bodies.items():
        captures = captured.get(context.function, {})
        body, flow = model.body(context.function), analysis.contexts[context]
        edit = mask_function(function, body, flow, targets, captures, budget)
        for tensor, masked in edit.captured.items():
            for node in captures[tensor]:
                objects[node].captured_tensor.name = masked
        reads += [
            MaskedRead(
                frozen.variable.name,
                frozen.variable.object_path,
                names[context],
                node,
                operation,
                frozen.form,
                endpoints.of(context, node),
            )
            for frozen, node, operation in edit.reads
        ]
        masked_updates = mask_updates(
            function,
            body,
            flow,
            masks,
            dtypes,
            zeroed.get(context, Zeroed()),
            budget,
        )
        is_function = context.function in model.functions
        if is_function and (context.binding or names[context] != context.function or masked_updates):
            changed.append(function)
        updates += [
            MaskedUpdate(
                model.variables_by_node[variable].name,
                model.variables_by_node[variable].object_path,
                masks[variable].variable.object_path,
                names[context],
                node,
                operation,
                endpoints.of(context, node),
            )
            for variable, node, operation in masked_updates
        ]
    if not model.has_objects:
        check_main_graph(proto.meta_graphs[0].graph_def)
    stored = thread_constants(proto, tuple(constants.numbers), lambda: model.checkpoint.objects)
    check_well_formed(proto, changed, names.values())
    saved = read_keras_metadata(original_file(model.directory, KERAS_METADATA))
    retagged = retag(proto.meta_graphs[0].object_graph_def, saved, targets, keras2, model.directory)
    keras_metadata = None if saved is None else saved.SerializeToString(deterministic=True)
    return RewrittenModel(model, proto, tuple(reads), tuple(updates), keras_metadata, tuple(retagged), plan, stored)


def _slots_and_zeroed(
    model: SavedModel, targets: Mapping[int, FrozenVariable], scope: Scope | None, analysis: Analysis
) -> tuple[dict[int, int], dict[Context, Zeroed]]:
    """The slots of targeted variables, and what must be zero in each body for their sake, if the model updates any."""
    everywhere = analysis if scope is None else analyse(model, frozenset(targets))
    if not written_in(everywhere):
        return {}, {}
    followed = followed_for(model, everywhere, targets)
    norms = GradientNorms(ValueEnds(model, analyse(model, followed), targets), targets)
    slots = find_slots(norms, targets)
    if scope is not None:
        norms = GradientNorms(ValueEnds(model, analyse(model, followed, scope), targets), targets)
    return slots, find_zeroed(norms, targets, slots)
