"""Makes the state of a variable its trained slices alone, in a graph of the training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphfreeze.selection.slices import TrainedSlices
from graphfreeze.training.gradient_names import indices_name, rows_name
from graphfreeze.training.gradient_rows import cut_rows_in_graph
from graphfreeze.training.graph import Edge, Graph, NamedGraph
from graphfreeze.training.insertions import Insertions
from graphfreeze.training.sliced_gradients import SlicedGradient
from graphfreeze.training.sliced_reads import SlicedVariable

__all__ = ["Sliced", "keep_trained_slices"]


@dataclass(frozen=True)
class Sliced:
    """A variable of which whole slices are frozen.

    Attributes:
        slices: The others.
        frozen_value: Of the variable's shape; what stands at trainable elements is not read.
    """

    slices: TrainedSlices
    frozen_value: npt.NDArray[np.generic]


def keep_trained_slices(named: NamedGraph, sliced: Mapping[str, Sliced]) -> None:
    """Let inputs be the trained slices of their variables, in place, and outputs `gradient/NAME` their gradients.

    Args:
        named: A graph whose inputs are whole variables, and which does not assign these.
        sliced: By the name of the input.
    """
    graph = named.graph
    insertions = Insertions(graph)
    variables: dict[int, SlicedVariable] = {}
    for number, (name, edge) in enumerate(zip(named.inputs, graph.inputs, strict=True)):
        if name in sliced:
            part = sliced[name]
            variables[id(edge)] = SlicedVariable(name, edge, part.slices, part.frozen_value, insertions)
            graph.inputs[number] = variables[id(edge)].state
    _replace_reads(graph, variables)
    outputs = dict(zip(named.outputs, graph.outputs, strict=True))
    for variable in variables.values():
        whole, rows, indices = f"gradient/{variable.name}", rows_name(variable.name), indices_name(variable.name)
        if whole in outputs:
            outputs[whole] = SlicedGradient(variable, insertions).cut(outputs[whole])
        if rows in outputs:
            cut = cut_rows_in_graph(variable, outputs[rows], outputs[indices], insertions)
            outputs[rows], outputs[indices] = cut
    graph.outputs = list(outputs.values())
    insertions.finish()
    graph.prune()


def _replace_reads(graph: Graph, variables: Mapping[int, SlicedVariable]) -> None:
    """Let every operation of the graph read the parts of a variable, or what they are put together to."""
    variables = dict(variables)
    renamed: dict[int, Edge] = {}
    for operation in graph.operations:
        operation.inputs = [renamed.get(id(edge), edge) for edge in operation.inputs]
        variable = variables.get(id(operation.inputs[0])) if operation.inputs else None
        if variable is not None and operation.type in ("Cast", "Identity"):
            is_same = operation.type == "Identity"
            variables[id(operation.outputs[0])] = variable if is_same else variable.converted(operation)
            continue
        instead = None if variable is None else variable.replace(operation)
        if instead is not None:
            renamed[id(operation.outputs[0])] = instead
        else:
            operation.inputs = [
                variables[id(edge)].read() if id(edge) in variables else edge for edge in operation.inputs
            ]
    graph.outputs = [renamed.get(id(edge), edge) for edge in graph.outputs]
    graph.outputs = [variables[id(edge)].read() if id(edge) in variables else edge for edge in graph.outputs]
