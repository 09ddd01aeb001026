"""Masking what takes the value of a reference without a read, as operations of TensorFlow 1 may.

Each such operation `C` gets a read of its own, at the time at which it runs itself: `C/graphfreeze/read`, an Identity
with the control inputs of `C`, which is then masked like any other read. So does what a signature gives out.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphfreeze.passes.main_graph import FunctionLike
from graphfreeze.passes.masked_read import MaskedReadBuilder
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.graph_flow import takes_reference
from graphfreeze.savedmodel.handle_flow import Flow, UseKind
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["mask_references"]


def mask_references(
    function: FunctionLike,
    body: Body,
    flow: Flow,
    targets: Mapping[int, FrozenVariable],
    builder: MaskedReadBuilder,
) -> tuple[dict[str, str], list[tuple[FrozenVariable, str, str]]]:
    """Mask the values of references.

    Args:
        function: The main graph, to be changed.
        body: The index of it as it was.
        flow: Where handles and references go in it.
        targets: Position of a variable's node -> targeted variable.
        builder: What adds the nodes.

    Returns:
        Reference -> masked tensor that takes its place in signatures; and the masked variables, each with the name and
        operation of the node that takes the value.
    """
    values = {(use.node, use.variable) for use in flow.uses if use.kind is UseKind.VALUE}
    given_out: dict[str, str] = {}
    reads: list[tuple[FrozenVariable, str, str]] = []
    for tensor, variable in flow.handles.items():
        if variable not in targets:
            continue
        frozen = targets[variable]
        for i, position in body.consumers.get(tensor, ()):
            node = function.node_def[i]
            if (i, variable) in values and not takes_reference(node, position):
                controls = [reference for reference in node.input if reference.startswith("^")]
                raw = builder.value(node.name, tensor, controls, node.device, frozen)
                node.input[position] = builder.whole(function.node_def[-1], raw, frozen)
                reads.append((frozen, node.name, node.op))
        if (-1, variable) in values and tensor in body.returned:
            source = function.node_def[body.positions[tensor.split(":", 1)[0]]]
            raw = builder.value(source.name, tensor, (), source.device, frozen)
            given_out[tensor] = builder.whole(function.node_def[-1], raw, frozen)
            reads.append((frozen, source.name, source.op))
    return given_out, reads
