"""Leaves out what the outputs do not need: nodes, and the states, items and results of loops and branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["prune"]


def prune(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes that the outputs need, in the same order, with the bodies of loops and branches pruned too."""
    needed = {id(value) for value in outputs}
    kept: list[ir.Node] = []
    for node in reversed(nodes):
        if any(id(value) in needed for value in node.outputs):
            part = _needed_part(node, needed)
            needed |= part.uses(node)
            kept.append(_reduce(node, part))
    return kept[::-1]


@dataclass(frozen=True, slots=True)
class _Body:
    """What stays of a body: some of its inputs and outputs."""

    graph: ir.Graph
    inputs: list[ir.Value]
    outputs: list[ir.Value]


@dataclass(frozen=True, slots=True)
class _Part:
    """What stays of a node: some of its inputs and outputs, by index, and parts of its bodies."""

    inputs: list[int]
    outputs: list[int]
    bodies: list[_Body]

    def uses(self, node: ir.Node) -> set[int]:
        """The ids of all values that this part of the node needs."""
        used = {id(node.inputs[index]) for index in self.inputs if node.inputs[index] is not None}
        for body in self.bodies:
            used |= _uses(body.graph, body.outputs)
        return used


def _uses(body: ir.Graph, outputs: Sequence[ir.Value]) -> set[int]:
    """The ids of all values that these outputs of the body need."""
    used = {id(value) for value in outputs}
    for node in reversed(list(body)):
        if any(id(value) in used for value in node.outputs):
            used |= _needed_part(node, used).uses(node)
    return used


def _needed_part(node: ir.Node, needed: set[int]) -> _Part:
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    if not bodies:
        return _Part(list(range(len(node.inputs))), list(range(len(node.outputs))), [])
    kept = [index for index, value in enumerate(node.outputs) if id(value) in needed]
    if node.op_type == "If":
        return _Part([0], kept, [_Body(b, [], [b.outputs[index] for index in kept]) for b in bodies])
    (body,) = bodies
    if node.op_type == "Loop":
        # Inputs are the number of iterations, the condition, the states; the body's are alike, its outputs are the
        # condition, the states, the scans.
        states, condition, first = len(node.inputs) - 2, list(body.outputs)[:1], 2
    else:
        states, condition, first = len(node.inputs) - node.attributes["num_scan_inputs"].as_int(), [], 0
    before = list(body.inputs)[first : first + states]
    after = list(body.outputs)[len(condition) :]
    scans = [index for index in kept if index >= states]
    live = {index for index in kept if index < states}
    while True:
        outputs = [*condition, *(after[index] for index in (*sorted(live), *scans))]
        used = _uses(body, outputs)
        grown = live | {index for index, value in enumerate(before) if id(value) in used}
        if grown == live:
            break
        live = grown
    inputs = [*range(first), *(first + index for index in sorted(live))]
    if node.op_type == "Scan":
        # A Scan takes the number of iterations from its items: one stays even where the body reads none.
        read = [index for index in range(states, len(node.inputs)) if id(body.inputs[index]) in used]
        inputs += read or [states]
    return _Part(inputs, [*sorted(live), *scans], [_Body(body, [body.inputs[index] for index in inputs], outputs)])


def _reduce(node: ir.Node, part: _Part) -> ir.Node:
    """That part of the node; the values that stay are the same objects."""
    for body in part.bodies:
        before = list(body.graph)
        body.graph.inputs[:] = body.inputs
        body.graph.outputs[:] = body.outputs
        body.graph.remove(before)
        body.graph.extend(prune(before, body.outputs))
    if len(part.inputs) == len(node.inputs) and len(part.outputs) == len(node.outputs):
        return node
    inputs = [node.inputs[index] for index in part.inputs]
    attributes = dict(node.attributes.items())
    if node.op_type == "Scan":
        states = len(node.inputs) - node.attributes["num_scan_inputs"].as_int()
        read = [index - states for index in part.inputs if index >= states]
        scans = [index - states for index in part.outputs if index >= states]
        attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", len(read))
        for name, chosen in (("scan_input_directions", read), ("scan_output_directions", scans)):
            directions = node.attributes[name].as_ints()
            attributes[name] = ir.AttrInt64s(name, [directions[index] for index in chosen])
    outputs = [node.outputs[index] for index in part.outputs]
    uses = [(use.node, use.idx, value) for value in node.outputs for use in value.uses()]
    for user, index, _ in uses:
        user.replace_input_with(index, None)
    node.resize_outputs(0)
    made = ir.Node("", node.op_type, inputs, attributes.values(), outputs=outputs, name=node.name)
    for user, index, value in uses:
        user.replace_input_with(index, value)
    return made
