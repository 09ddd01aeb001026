"""Functional graphs of small Python functions, and wrong lowering rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from graphfreeze.lowering.rule import RULES
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.variable_uses import VariableSlot

__all__ = ["named_graph", "replace_rule", "scaled", "with_gradients"]

Array = npt.NDArray[Any]


def named_graph(
    function: Callable[..., Any],
    values: Mapping[str, Array],
    results: Sequence[str] | None = None,
    *,
    variables: Sequence[Any] = (),
    dynamic: bool = False,
) -> NamedGraph:
    """The functional graph of a function of arrays like these; `dynamic` makes the first axis of each the batch."""
    specs = [
        tf.TensorSpec((None, *value.shape[1:]) if dynamic else value.shape, value.dtype, name=name)
        for name, value in values.items()
    ]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    slots = {id(v.handle): VariableSlot(v.name.split(":")[0], v.dtype, tuple(v.shape)) for v in variables}
    names = results or [f"result_{index}" for index in range(len(concrete.outputs))]
    return functionalise(concrete, list(values), names, slots)


def with_gradients(loss: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The loss, and its gradient for every argument."""

    def compute(*arguments: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = loss(*arguments)
        return [value, *tape.gradient(value, arguments)]

    return compute


def replace_rule(
    monkeypatch: pytest.MonkeyPatch, operation: str, rule: Callable[[Any, Callable[[Any], list[Tensor]]], list[Tensor]]
) -> None:
    """Lower an operation by `rule(node, right)`, where `right(node)` is the right rule."""
    right = RULES[operation].apply
    wrong = dataclasses.replace(RULES[operation], apply=lambda node: rule(node, right))
    monkeypatch.setitem(RULES, operation, wrong)


def scaled(factor: float) -> Callable[[Any, Callable[[Any], list[Tensor]]], list[Tensor]]:
    """A wrong rule: its result is the right one times a factor."""

    def rule(node: Any, right: Callable[[Any], list[Tensor]]) -> list[Tensor]:
        (output,) = right(node)
        output.values = {
            layout: node.emit("Mul", value, np.full((1,) * output.rank, factor, output.dtype))
            for layout, value in output.values.items()
        }
        return [output]

    return rule
