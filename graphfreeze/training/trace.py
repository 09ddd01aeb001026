"""Traces the training step of a rewritten SavedModel: endpoint, Keras loss, TensorFlow's gradients, Keras optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.arguments import Configured
from graphfreeze.training.compose import compose
from graphfreeze.training.endpoint import Endpoint, TensorEntry
from graphfreeze.training.flat import drop_inputs_and_outputs
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.handle_data import known_handles
from graphfreeze.training.loading import LoadedModel, load_model
from graphfreeze.training.loss_scale import LossScale, with_loss_scale
from graphfreeze.training.losses import OutputLoss
from graphfreeze.training.masked_reads import read_state_directly
from graphfreeze.training.missing_gradients import none_for_missing_gradients, require_gradients
from graphfreeze.training.noise import NOISE_SEED, Noise, draw_by_seed
from graphfreeze.training.optimizers import ELEMENTWISE, STARTS_APART, OptimizerVariable
from graphfreeze.training.parameters import Parameter, in_slices
from graphfreeze.training.row_updates import update_rows
from graphfreeze.training.slice_variables import Sliced, keep_trained_slices
from graphfreeze.training.stored_values import ReadValue, StoredValues
from graphfreeze.training.targets import Objective, make_objective
from graphfreeze.training.update import Target, Update, trace_update
from graphfreeze.training.variable_uses import VariableSlot

__all__ = ["TracedStep", "trace_step"]


@dataclass(frozen=True)
class TracedStep:
    """The training step, traced.

    Attributes:
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint of the inference graph.
        objective: The losses of the outputs, with their targets.
        optimizer: The optimizer's name and arguments.
        parameters: The model's variables that the step uses, in the order of the SavedModel.
        optimizer_variables: The optimizer's variables.
        graphs: The functional graphs `train_step`, `gradients`, `apply_gradients` and `forward`.
        functions: The `ConcreteFunction`s `gradients`, `apply_gradients` and `forward` that they were made of; the
            training step is the first two, one after the other.
        noise: What they draw from TensorFlow's hidden state, and the graphs by a seed; None where there is nothing.
        stored: The values that the variables do not hold until `restore_values` is called.
    """

    endpoint: Endpoint
    forward_endpoint: Endpoint
    objective: Objective
    optimizer: Configured
    parameters: tuple[Parameter, ...]
    optimizer_variables: tuple[OptimizerVariable, ...]
    graphs: Mapping[str, NamedGraph]
    functions: Mapping[str, Any]
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


def trace_step(
    saved_model: Path,
    variables: Sequence[Variable],
    plan: FreezePlan,
    *,
    losses: Sequence[OutputLoss],
    optimizer: Configured,
    endpoint: str | None = None,
    forward_endpoint: str | None = None,
    sample_weight: bool = False,
    seed: int = 0,
    read: ReadValue | None = None,
) -> TracedStep:
    """Load the rewritten SavedModel and trace its training step.

    The loaded variables get their frozen values first, so that the step starts from the effective values.

    Args:
        saved_model: The rewritten SavedModel.
        variables: Its variables.
        plan: What is frozen.
        losses: The loss of the only output, or of each of several.
        optimizer: The optimizer.
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint of the inference graph.
        sample_weight: Whether each example of a batch has a weight.
        seed: Of the noise that TensorFlow would draw without one.
        read: What gives the values that the SavedModel stores. With it, the variables hold none until
            `TracedStep.restore_values` is called; without, they hold them throughout.

    Raises:
        UsageError: The endpoint, a loss or the optimizer does not fit, or nothing in the endpoint trains.
        UnsupportedError: An input of the endpoint has a name that the data contract needs.
    """
    model = load_model(saved_model, variables, plan, endpoint=endpoint, forward_endpoint=forward_endpoint, read=read)
    objective = make_objective(model.endpoint, losses, sample_weight=sample_weight)
    scaled = with_loss_scale(optimizer)
    tracer = _Tracer(model, objective, scaled.arguments.get("loss_scale"))
    tracer.seed = seed
    tracer.trace_gradients()
    if not tracer.trained:
        raise UsageError(
            f"nothing is left to train: no variable that {model.endpoint.name!r} differentiates is unfrozen; "
            "freeze less, or rewrite with --no-onnx"
        )
    graphs, update = tracer.finish(scaled)
    return TracedStep(
        model.endpoint,
        model.forward_endpoint,
        objective,
        optimizer,
        tuple(tracer.parameters),
        (*update.variables, *_noise_variables(tracer.noise)),
        graphs,
        tracer.functions,
        tracer.noise,
        model.stored,
    )


class _Tracer:
    """Makes the concrete functions of one training step, and their functional graphs."""

    def __init__(self, model: LoadedModel, objective: Objective, loss_scale: LossScale | None) -> None:
        self.endpoint = model.endpoint
        self.forward = model.forward_endpoint
        self.objective = objective
        self.parameters = model.parameters
        self.loss_scale = loss_scale
        self.stored = model.stored
        # The functions that are made here live as long as this does, and need what it holds.
        self.root = model.root
        self.seed = 0
        self.noise: Noise | None = None
        self.functions: dict[str, Any] = {}
        self.wanted: list[str] = []
        self.missing: set[str] = set()

    @property
    def trained(self) -> list[Parameter]:
        return [p for p in self.parameters if p.trains]

    def trace_gradients(self) -> None:
        """Trace loss and gradients; a parameter that the loss does not depend on turns out not to train."""
        connected: list[bool] = []

        def gradients(*flat: Any) -> list[Any]:
            batch = dict(zip(self.batch_names, flat, strict=True))
            resources = [p.resource for p in self.trained]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(resources)
                loss, single = self.objective(batch, self.endpoint)
            scale = self.loss_scale
            found = tape.gradient(loss, resources, None if scale is None else scale.of_loss(loss))
            connected[:] = [gradient is not None for gradient in found]
            dense = [tf.convert_to_tensor(gradient) for gradient in found if gradient is not None]
            return [loss, *single, *(dense if scale is None else map(scale.unscaled, dense))]

        try:
            with known_handles(), none_for_missing_gradients(self.endpoint.function) as self.missing:
                self.functions["gradients"] = _trace(gradients, self.batch_specs)
        except (LookupError, TypeError, ValueError) as error:
            raise UnsupportedError(
                f"TensorFlow cannot trace the gradients of {self.endpoint.name!r}: {error}. The SavedModel alone can "
                "be rewritten with --no-onnx"
            ) from error
        self.wanted = [p.name for p in self.trained]
        trains = dict(zip(self.wanted, connected, strict=True))
        self.parameters = [replace(p, trains=trains.get(p.name, False)) for p in self.parameters]

    def finish(self, optimizer: Configured) -> tuple[dict[str, NamedGraph], Update]:
        """Trace the rest, and make the functional graphs."""
        self.functions["forward"] = _trace(self._forward, [_spec(entry) for entry in self.forward.inputs])
        names = [f"gradient/{p.name}" for p in self.trained]
        inputs = [entry.name for entry in self.forward.inputs]
        outputs = [f"output/{entry.name}" for entry in self.forward.predictions]
        results = ["loss", *self.objective.named, *names]
        slots = {id(p.resource.handle): _slot(p.name, p.resource) for p in self.parameters}
        if self.loss_scale is not None and self.loss_scale.is_dynamic:
            factor = self.loss_scale.factor
            slots[id(factor.handle)] = _slot(self.loss_scale.name, factor)
        gradients = functionalise(self.functions["gradients"], self.batch_names, results, slots)
        require_gradients(self.missing, gradients, self.wanted)
        forward = functionalise(self.functions["forward"], inputs, outputs, slots)
        frozen = {p.name: p.frozen for p in self.parameters if p.frozen is not None and not p.is_constant}
        once_more = partial(functionalise, self.functions["gradients"], self.batch_names, results, slots)
        self.noise = draw_by_seed(self.seed, [gradients, forward], once_more)
        for graph in (gradients, forward):
            read_state_directly(graph, frozen)
        if optimizer.name in ELEMENTWISE:
            assigned = {name.removeprefix("new/") for graph in (gradients, forward) for name in graph.outputs}
            has_value = not self.stored.are_missing
            self.parameters = [p if p.name in assigned else in_slices(p, has_value=has_value) for p in self.parameters]
        sliced = {
            p.name: Sliced(p.slices, p.frozen.value)
            for p in self.parameters
            if p.slices is not None and p.frozen is not None
        }
        for graph in (gradients, forward):
            keep_trained_slices(graph, sliced)
        if optimizer.name not in STARTS_APART:
            self.stored.restore(self.parameters)
        update = trace_update(optimizer, [Target(p.name, p.state, p.mask) for p in self.trained], flat=True)
        self.functions["apply_gradients"] = update.function
        slots = {id(p.state.handle): _slot(p.name, p.state) for p in self.parameters}
        slots |= {id(v.variable.handle): _slot(v.name, v.variable) for v in update.variables}
        flat = [variable.target for variable in update.flat]
        slots |= {id(target.variable.handle): _slot(target.name, target.variable) for target in flat}
        apply_gradients = functionalise(update.function, names, [], slots)
        drop_inputs_and_outputs(apply_gradients, [target.name for target in flat])
        train_step = compose(gradients, apply_gradients)
        update_rows(train_step)
        graphs = {
            "train_step": train_step,
            "gradients": gradients,
            "apply_gradients": apply_gradients,
            "forward": forward,
        }
        return graphs, update

    def _forward(self, *flat: Any) -> list[Any]:
        names = [entry.name for entry in self.forward.inputs]
        results = self.forward.named(dict(zip(names, flat, strict=True)))
        return [results[entry.name] for entry in self.forward.predictions]

    @property
    def batch_names(self) -> list[str]:
        return [entry.name for entry in (*self.endpoint.inputs, *self.objective.batch)]

    @property
    def batch_specs(self) -> list[Any]:
        return [_spec(entry) for entry in (*self.endpoint.inputs, *self.objective.batch)]


def _slot(name: str, variable: Any) -> VariableSlot:
    return VariableSlot(name, variable.dtype, tuple(variable.shape))


def _noise_variables(noise: Noise | None) -> list[OptimizerVariable]:
    return [] if noise is None else [OptimizerVariable(NOISE_SEED, None, noise.variable)]


def _spec(entry: TensorEntry) -> Any:
    return tf.TensorSpec(entry.shape, entry.dtype, name=entry.name)


def _trace(function: Any, specs: Sequence[Any]) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(*specs)
