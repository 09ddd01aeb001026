"""What tracing gives: the training step, its functions and functional graphs, and the variables that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.training.chosen_optimizers import ChosenOptimizers
from graphfreeze.training.endpoint import Endpoint, TensorEntry
from graphfreeze.training.gradient_names import gradient_names
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.keras_optimizer import OptimizerVariable
from graphfreeze.training.noise import Noise
from graphfreeze.training.parameters import Parameter
from graphfreeze.training.stored_values import StoredValues
from graphfreeze.training.targets import Objective

__all__ = ["TracedStep"]


@dataclass(frozen=True)
class TracedStep:
    """The training step, traced.

    Attributes:
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint of the inference graph.
        objective: The losses of the outputs, with their targets.
        optimizers: The optimizers, and which parameters each of them is for.
        parameters: The model's variables that the step uses, in the order of the SavedModel.
        optimizer_variables: The optimizers' variables.
        graphs: The functional graphs `train_step`, `gradients`, `apply_gradients` and `forward`.
        functions: The `ConcreteFunction`s `gradients`, `apply_gradients` and `forward` that they were made of; the
            training step is the first two, one after the other.
        by_rows: The parameters whose gradient `apply_gradients` takes by rows, and the dtype of the rows' indices.
        noise: What they draw from TensorFlow's hidden state, and the graphs by a seed; None where there is nothing.
        stored: The values that the variables do not hold until `restore_values` is called.
    """

    endpoint: Endpoint
    forward_endpoint: Endpoint
    objective: Objective
    optimizers: ChosenOptimizers
    parameters: tuple[Parameter, ...]
    optimizer_variables: tuple[OptimizerVariable, ...]
    graphs: Mapping[str, NamedGraph]
    functions: Mapping[str, Any]
    by_rows: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise | None = None
    stored: StoredValues = field(default_factory=StoredValues)

    @property
    def batch(self) -> tuple[TensorEntry, ...]:
        """The entries of the data contract: the endpoint's inputs, the targets, the examples' weights."""
        return (*self.endpoint.inputs, *self.objective.batch)

    @property
    def trained(self) -> list[Parameter]:
        """The parameters that have a gradient, in the order of the gradients."""
        return [parameter for parameter in self.parameters if parameter.trains]

    @property
    def results(self) -> list[str]:
        """The names of what the function `gradients` returns, in order."""
        rows = [name for p in self.trained if p.name in self.by_rows for name in gradient_names(p.name, self.by_rows)]
        return ["loss", *self.objective.named, *(f"gradient/{p.name}" for p in self.trained), *rows]

    @property
    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """The frozen value of each wholly frozen variable."""
        return {p.name: p.frozen.value for p in self.parameters if p.frozen is not None and p.is_constant}

    def values(self) -> dict[str, npt.NDArray[Any]]:
        """What every state of the graphs holds now, by name, in TensorFlow's layout."""
        self.restore_values()
        values = {p.name: p.state.numpy() for p in self.parameters if not p.is_constant}
        return values | {v.name: np.asarray(v.variable.numpy()) for v in self.optimizer_variables}

    def restore_values(self) -> None:
        """Let the variables hold their values, if they do not. To be called before anything runs or reads them."""
        self.stored.restore(self.parameters)
