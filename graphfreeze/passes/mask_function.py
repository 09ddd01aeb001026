"""Masking the reads of one function: which nodes are masked, and who takes the masked tensors instead."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import tensorflow as tf

from graphfreeze.passes.main_graph import FunctionLike
from graphfreeze.passes.mask_references import ReferenceMasker
from graphfreeze.passes.masked_read import MaskedReadBuilder
from graphfreeze.passes.size_budget import SizeBudget
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.graph_flow import entered_by
from graphfreeze.savedmodel.handle_flow import READS, Flow, UseKind
from graphfreeze.savedmodel.reads import is_used
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["FunctionEdit", "mask_function"]


@dataclass
class FunctionEdit:
    """What became of one function.

    Attributes:
        replaced: Tensor -> masked tensor that takes its place, as functions write tensors.
        captured: The same for tensors that custom gradients capture, as graphs write tensors.
        reads: The masked variables, each with the name and operation of the node whose output is masked.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    captured: dict[str, str] = field(default_factory=dict)
    reads: list[tuple[FrozenVariable, str, str]] = field(default_factory=list)


def mask_function(
    function: FunctionLike,
    body: Body,
    flow: Flow,
    targets: Mapping[int, FrozenVariable],
    captures: Container[str],
    budget: SizeBudget,
) -> FunctionEdit:
    """Mask the reads of one function.

    Args:
        function: The function to change; new nodes follow the old ones.
        body: The index of the function as it was.
        flow: Where handles go in it.
        targets: Object node -> targeted variable.
        captures: Tensors inside it that custom gradients capture.
        budget: What the graph may grow to.

    Returns:
        What was replaced.
    """
    edit = FunctionEdit()
    uses = [
        use
        for use in flow.uses
        if use.variable in targets
        and (use.kind is UseKind.VALUE or (use.kind is UseKind.READ and is_used(body, use.node, captures)))
    ]
    if not uses:
        return edit
    builder = MaskedReadBuilder(function, budget)
    references = ReferenceMasker(function, body, flow, builder)
    given_out = references.mask_values(targets)
    edit.reads = references.reads
    late: dict[str, frozenset[int]] = {}
    for use in uses:
        if use.kind is UseKind.VALUE:
            continue
        frozen = targets[use.variable]
        read = function.node_def[use.node]
        builder.entered_by = entered_by(body, body.tensor(body.nodes[use.node].input[0]))
        if read.op in ("ReadVariableOp", "Identity"):
            rows = _row_gathers(body, use.node, captures)
            if read.op == "Identity" and not rows:
                tensor = body.output(use.node, "output", 0)
                late[tensor] = references.mask_late_consumers(use.node, use.variable, frozen)
                if tensor not in body.returned and all(c.node in late[tensor] for c in body.consumers[tensor]):
                    continue
            build, masked = (builder.rows, rows) if rows else (builder.whole, [use.node])
        else:
            build, masked = (builder.rows if read.op == "ResourceGather" else builder.elements), [use.node]
        for i in masked:
            node = function.node_def[i]
            raw = body.output(i, READS.get(node.op, "output"), 0)
            edit.replaced[raw] = build(node, raw, frozen)
            edit.captured[f"{node.name}:0"] = edit.replaced[raw].split(":", 1)[0] + ":0"
            edit.reads.append((frozen, node.name, node.op))
    for tensor, masked_tensor in edit.replaced.items():
        for consumer in body.consumers.get(tensor, ()):
            if consumer.node not in late.get(tensor, ()):
                function.node_def[consumer.node].input[consumer.input] = masked_tensor
    for gather in builder.gathers:
        gather.input[1] = edit.replaced.get(body.tensor(gather.input[1]), gather.input[1])
    for output, tensor in zip(function.signature.output_arg, body.returned, strict=True):
        if tensor in edit.replaced or tensor in given_out:
            function.ret[output.name] = edit.replaced.get(tensor) or given_out[tensor]
    edit.captured = {tensor: masked_tensor for tensor, masked_tensor in edit.captured.items() if tensor in captures}
    return edit


def _row_gathers(body: Body, read: int, captures: Container[str]) -> list[int]:
    """The gathers of rows that alone take the value of a whole read; empty if anything else takes it too.

    Masking behind them keeps their gradient sparse.
    """
    tensor = body.output(read, READS["ReadVariableOp"], 0)
    if tensor in body.returned or f"{body.nodes[read].name}:0" in captures:
        return []
    consumers = body.consumers.get(tensor, [])
    if all(consumer.input == 0 and _gathers_rows(body, consumer.node) for consumer in consumers):
        return [consumer.node for consumer in consumers]
    return []


def _gathers_rows(body: Body, i: int) -> bool:
    node = body.nodes[i]
    if node.op != "GatherV2" or ("batch_dims" in node.attr and node.attr["batch_dims"].i):
        return False
    axis = body.positions.get(node.input[2].split(":", 1)[0])
    if axis is None or body.nodes[axis].op != "Const":
        return False
    return int(tf.make_ndarray(body.nodes[axis].attr["value"].tensor)) == 0
