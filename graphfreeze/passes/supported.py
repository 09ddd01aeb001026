"""What the freeze pass refuses before it changes anything."""

from __future__ import annotations

from graphfreeze.errors import UnsupportedDtypeError, UnsupportedError, UnsupportedVariableUseError, UsageError
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.handle_flow import Flow, Use, UseKind
from graphfreeze.savedmodel.main_graph import MAIN_GRAPH, signature_nodes, variable_handles
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.updates import update_of
from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.variable import Variable

__all__ = ["check_gradients", "check_model", "check_plan", "check_uses"]

BLEND_DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
SELECT_DTYPES = BLEND_DTYPES | {
    *("complex64", "complex128", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}


def check_model(model: SavedModel) -> None:
    """Refuse models whose freeze would be lost without a word.

    Raises:
        UnsupportedError: Functions have gradient functions, or the main graph reads variables without an object.
    """
    if not model.has_objects:
        return
    if model.meta_graph.graph_def.library.gradient:
        raise UnsupportedError(
            f"{model.directory} gives functions a gradient function of their own (library.gradient), as TensorFlow 1 "
            "did, which is not supported. Export the model again with TensorFlow 2."
        )
    live = signature_nodes(model.meta_graph)
    body = model.main_body
    known = variable_handles(model.meta_graph, model.functions, body)
    for node in body.nodes:
        if node.op != "VarHandleOp" or f"{node.name}:0" in known:
            continue
        takers = [body.nodes[c.node].name for c in body.consumers.get(f"{node.name}:0", ())]
        reading = [name for name in takers if name in live]
        if reading:
            raise UnsupportedError(
                f"The signatures of {model.directory} use the variable handle {node.name!r} in node {reading[0]!r}, "
                "and no object of the object graph stands for it. Export the model again with TensorFlow 2."
            )


def check_plan(model: SavedModel, plan: FreezePlan) -> dict[int, FrozenVariable]:
    """Match a plan with a model.

    Returns:
        Object node -> targeted variable.

    Raises:
        UsageError: A targeted variable is not one of the model's, or its mask or value do not fit it.
        UnsupportedDtypeError: A targeted variable's dtype has no masked read of that form.
        UnsupportedError: A targeted variable may take other shapes than its present one.
    """
    nodes = {variable.object_path: node for node, variable in model.variables_by_node.items()}
    targets = {}
    for frozen in plan.variables:
        variable = frozen.variable
        if variable.object_path not in nodes:
            raise UsageError(f"{model.directory} has no variable at object path {variable.object_path!r}.")
        node = nodes[variable.object_path]
        shape = model.variables_by_node[node].shape
        fits = len(frozen.mask_shape) == len(shape) and all(
            m in (1, n) for m, n in zip(frozen.mask_shape, shape, strict=True)
        )
        if not fits or frozen.value_shape != shape:
            raise UsageError(
                f"{variable.name} ({variable.object_path}) has shape {shape}, but its mask has {frozen.mask_shape} "
                f"and its frozen value {frozen.value_shape}."
            )
        if model.has_objects:
            _check_shape(model, node, variable)
        allowed = BLEND_DTYPES if frozen.form == "blend" else SELECT_DTYPES
        if variable.dtype not in allowed:
            raise UnsupportedDtypeError(
                f"{variable.name} ({variable.object_path}) has dtype {variable.dtype}, which has no masked read of "
                f"the form {frozen.form}. Supported are {', '.join(sorted(allowed))}. Leave it out of the selection."
            )
        targets[node] = frozen
    return targets


def _check_shape(model: SavedModel, node: int, variable: Variable) -> None:
    """Refuse a variable that may be assigned values of another shape: its mask is for the present one."""
    declared = model.object_graph.nodes[node].variable.shape
    if declared.unknown_rank or any(dim.size < 0 for dim in declared.dim):
        text = "unknown" if declared.unknown_rank else [None if d.size < 0 else int(d.size) for d in declared.dim]
        raise UnsupportedError(
            f"{variable.name} ({variable.object_path}) has the shape {list(variable.shape)} now, but may be assigned "
            f"values of other shapes: its own shape is {text}. A mask is for one shape. Leave it out of the selection, "
            "or export the model with a shape that is known."
        )


def check_gradients(model: SavedModel, analysis: Analysis) -> None:
    """Refuse functions that take targeted variables and have a gradient function of their own, as of TensorFlow 1.

    Raises:
        UnsupportedError: There is one. Gradient functions go by the name of a function, which clones do not share.
    """
    bound = {context.function for context in analysis.contexts if context.binding}
    for gradient in model.meta_graph.graph_def.library.gradient:
        for name in (gradient.function_name, gradient.gradient_func):
            if name in bound:
                raise UnsupportedError(
                    f"Function {name!r} takes selected variables, and has or is a gradient function of its own "
                    "(library.gradient), as TensorFlow 1 wrote them. Leave the variables out of the selection."
                )


def check_uses(model: SavedModel, analysis: Analysis) -> None:
    """Refuse uses of targeted variables, and of their slots, that are not known to be safe.

    Raises:
        UnsupportedVariableUseError: There is one; all of them are in its details.
    """
    refused = []
    for context, flow in analysis.contexts.items():
        body = model.body(context.function)
        refused += [
            (
                model.variables_by_node[use.variable],
                body.nodes[use.node].op,
                body.nodes[use.node].name,
                context.function if context.function == MAIN_GRAPH else f"function {context.function}",
                use,
            )
            for use in flow.uses
            if use.kind not in (UseKind.READ, UseKind.VALUE) and not _can_be_masked(body, flow, use)
        ]
    refused += [
        (
            model.variables_by_node[use.variable],
            model.main_body.nodes[use.node].op,
            model.main_body.nodes[use.node].name,
            "the main graph",
            use,
        )
        for use in analysis.main_graph.uses
    ]
    for function, context in analysis.roots.items():
        for variable in sorted(set(analysis.contexts[context].returns.values())):
            returned, given_out = model.variables_by_node[variable], Use(UseKind.OTHER, -1, variable)
            place = ("a signature", MAIN_GRAPH) if function == MAIN_GRAPH else (function, f"function {function}")
            refused.append((returned, "Return", *place, given_out))
    if not refused:
        return
    first, operation, node, where, use = refused[0]
    if use.kind is UseKind.WRITE:
        problem = "which writes it in a way that cannot be limited to trainable elements"
    else:
        problem = use.reason or "which is not known to keep frozen elements frozen"
    more = f" So do {len(refused) - 1} more uses." if len(refused) > 1 else ""
    raise UnsupportedVariableUseError(
        f"{first.name} ({first.object_path}) is taken by {operation} {node!r} in {where}: {problem}.{more} "
        "Leave the variable out of the selection, or export the model without that use.",
        {
            "uses": [
                {
                    "variable": v.name,
                    "object_path": v.object_path,
                    "operation": o,
                    "node": n,
                    "where": w,
                }
                for v, o, n, w, _ in refused
            ]
        },
    )


def _can_be_masked(body: Body, flow: Flow, use: Use) -> bool:
    """Whether a node writes variables that are all known in a known way."""
    node = body.nodes[use.node]
    update = update_of(node) if use.kind is UseKind.WRITE else None
    if update is None or any(body.tensor(node.input[position]) not in flow.handles for position in update.handles):
        return False
    # Anywhere else it may take the value of a reference, but no handle.
    values = {other.variable for other in flow.uses if other.kind is UseKind.VALUE and other.node == use.node}
    others = [text for k, text in enumerate(node.input) if not text.startswith("^") and k not in update.handles]
    taken = {flow.handles[tensor] for text in others if (tensor := body.tensor(text)) in flow.handles}
    return taken <= values
