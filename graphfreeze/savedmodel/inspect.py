"""What a SavedModel holds, as a JSON-ready table: variables with how they are read, endpoints, signatures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from graphfreeze.savedmodel.contexts import Analysis, analyse
from graphfreeze.savedmodel.endpoint_labels import EndpointLabels
from graphfreeze.savedmodel.endpoints import Endpoint
from graphfreeze.savedmodel.handle_flow import UseKind
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.reads import captured_tensors, is_used
from graphfreeze.selection.variable import Variable

__all__ = ["SCHEMA_VERSION", "inspect"]

SCHEMA_VERSION = 1


def inspect(model: SavedModel) -> dict[str, Any]:
    """Describe a SavedModel.

    Args:
        model: The model.

    Returns:
        `schema_version`; `variables`, each with `name`, `object_path`, `shape`, `dtype`, `trainable`, `elements`,
        `reads` and `written_by`; `endpoints` and `signatures` with their inputs and outputs; `totals`. An entry of
        `reads` or `written_by` has `operation`, `function`, `endpoints` (those that reach it, such as
        `signature serving_default`) and `count`. Reads whose value nothing takes are not listed.
    """
    analysis = analyse(model, frozenset(model.variables_by_node))
    uses = _uses(model, analysis)
    variables = [_variable(variable, uses.get(node, Counter())) for node, variable in model.variables_by_node.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "variables": variables,
        "endpoints": [_endpoint(endpoint) for endpoint in model.endpoints if endpoint.kind == "function"],
        "signatures": [_endpoint(endpoint) for endpoint in model.endpoints if endpoint.kind == "signature"],
        "totals": {
            "variables": len(variables),
            "elements": sum(v["elements"] for v in variables),
            "trainable_variables": sum(v["trainable"] for v in variables),
            "trainable_elements": sum(v["elements"] for v in variables if v["trainable"]),
            "functions": len(model.functions),
        },
    }


_UseKey = tuple[bool, str, str, tuple[str, ...]]


def _uses(model: SavedModel, analysis: Analysis) -> dict[int, Counter[_UseKey]]:
    """Variable -> (is a write, operation, function, endpoints) -> how often."""
    endpoints = EndpointLabels(model, analysis)
    captured = captured_tensors(model)
    found: dict[int, Counter[_UseKey]] = {}
    for context, flow in analysis.contexts.items():
        body = model.body(context.function)
        for use in flow.uses:
            if use.node < 0:
                # What a signature gives out is read by nobody else.
                continue
            node = body.nodes[use.node]
            if use.kind is UseKind.READ and not is_used(body, use.node, captured.get(context.function, {})):
                continue
            key = (use.kind is UseKind.WRITE, node.op, context.function, endpoints.of(context, node.name))
            found.setdefault(use.variable, Counter())[key] += 1
    return found


def _variable(variable: Variable, uses: Counter[_UseKey]) -> dict[str, Any]:
    entries = [
        (is_write, {"operation": operation, "function": function, "endpoints": list(endpoints), "count": count})
        for (is_write, operation, function, endpoints), count in sorted(uses.items())
    ]
    return {
        "name": variable.name,
        "object_path": variable.object_path,
        "shape": list(variable.shape),
        "dtype": variable.dtype,
        "trainable": variable.trainable,
        "elements": int(np.prod(variable.shape, dtype=np.int64)),
        "reads": [entry for is_write, entry in entries if not is_write],
        "written_by": [entry for is_write, entry in entries if is_write],
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "functions": list(endpoint.functions),
        "inputs": [
            {"name": spec.name, "shape": None if spec.shape is None else list(spec.shape), "dtype": spec.dtype}
            for spec in endpoint.inputs
        ],
        "outputs": list(endpoint.outputs),
    }
