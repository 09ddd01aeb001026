"""Traces the training step of a rewritten SavedModel: endpoint, Keras loss, TensorFlow's gradients, Keras optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.chosen_optimizers import ChosenOptimizers
from graphfreeze.training.compose import compose
from graphfreeze.training.endpoint import TensorEntry
from graphfreeze.training.flat import drop_inputs_and_outputs
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.gradient_names import gradient_names
from graphfreeze.training.gradient_rows import takes_rows
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.handle_data import known_handles
from graphfreeze.training.keras_optimizer import OptimizerVariable
from graphfreeze.training.loading import LoadedModel, load_model
from graphfreeze.training.losses import OutputLoss
from graphfreeze.training.masked_reads import read_state_directly
from graphfreeze.training.missing_gradients import none_for_missing_gradients, require_gradients
from graphfreeze.training.noise import NOISE_SEED, Noise, draw_by_seed
from graphfreeze.training.optimizers import ELEMENTWISE, STARTS_APART
from graphfreeze.training.parameters import Parameter, in_slices
from graphfreeze.training.row_updates import update_rows
from graphfreeze.training.slice_variables import Sliced, keep_trained_slices
from graphfreeze.training.stored_values import ReadValue
from graphfreeze.training.targets import Objective, make_objective
from graphfreeze.training.traced_step import TracedStep
from graphfreeze.training.update import Target, Update, trace_update
from graphfreeze.training.variable_uses import VariableSlot

__all__ = ["trace_step"]


def trace_step(
    saved_model: Path,
    variables: Sequence[Variable],
    plan: FreezePlan,
    *,
    losses: Sequence[OutputLoss],
    optimizers: ChosenOptimizers,
    endpoint: str | None = None,
    forward_endpoint: str | None = None,
    sample_weight: bool = False,
    seed: int = 0,
    by_rows: bool = True,
    read: ReadValue | None = None,
) -> TracedStep:
    """Load the rewritten SavedModel and trace its training step.

    The loaded variables get their frozen values first, so that the step starts from the effective values.

    Args:
        saved_model: The rewritten SavedModel.
        variables: Its variables.
        plan: What is frozen.
        losses: The loss of the only output, or of each of several.
        optimizers: The optimizers, and which parameters each of them is for.
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint of the inference graph.
        sample_weight: Whether each example of a batch has a weight.
        seed: Of the noise that TensorFlow would draw without one.
        by_rows: Whether optimizers get the gradient of a lookup by rows, as in Keras 3. Keras 2 adds equal ones up.
        read: What gives the values that the SavedModel stores. With it, the variables hold none until
            `TracedStep.restore_values` is called; without, they hold them throughout.

    Raises:
        UsageError: The endpoint, a loss or an optimizer does not fit, or nothing in the endpoint trains.
        UnsupportedError: An input of the endpoint has a name that the data contract needs.
    """
    model = load_model(saved_model, variables, plan, endpoint=endpoint, forward_endpoint=forward_endpoint, read=read)
    objective = make_objective(model.endpoint, losses, sample_weight=sample_weight)
    tracer = _Tracer(model, objective, optimizers.scaled())
    tracer.seed = seed
    tracer.may_take_rows = by_rows
    tracer.trace_gradients()
    if not tracer.trained:
        raise UsageError(
            f"nothing is left to train: no variable that {model.endpoint.name!r} differentiates is unfrozen; "
            "freeze less, or rewrite with --no-onnx"
        )
    trained = [p.name for p in tracer.trained]
    optimizers.require_parameters(trained, [p.name for p in tracer.parameters if p.name not in trained])
    graphs, update = tracer.finish()
    return TracedStep(
        model.endpoint,
        model.forward_endpoint,
        objective,
        optimizers,
        tuple(tracer.parameters),
        (*update.variables, *_noise_variables(tracer.noise)),
        graphs,
        tracer.functions,
        tracer.by_rows,
        tracer.noise,
        model.stored,
    )


class _Tracer:
    """Makes the concrete functions of one training step, and their functional graphs."""

    def __init__(self, model: LoadedModel, objective: Objective, optimizers: ChosenOptimizers) -> None:
        self.endpoint = model.endpoint
        self.forward = model.forward_endpoint
        self.objective = objective
        self.parameters = model.parameters
        self.optimizers = optimizers
        self.loss_scale = optimizers.loss_scale
        self.stored = model.stored
        # The functions that are made here live as long as this does, and need what it holds.
        self.root = model.root
        self.seed = 0
        self.noise: Noise | None = None
        self.functions: dict[str, Any] = {}
        self.may_take_rows = True
        self.by_rows: dict[str, Any] = {}
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
            if scale is not None:
                found = [None if gradient is None else scale.unscaled(gradient) for gradient in found]
            named = zip((p.name for p in self.trained), found, strict=True)
            by_rows = {name: g for name, g in named if isinstance(g, tf.IndexedSlices) and self._takes_rows(name)}
            self.by_rows = {name: gradient.indices.dtype for name, gradient in by_rows.items()}
            dense = [tf.convert_to_tensor(gradient) for gradient in found if gradient is not None]
            return [loss, *single, *dense, *(part for g in by_rows.values() for part in (g.values, g.indices))]

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

    def finish(self) -> tuple[dict[str, NamedGraph], Update]:
        """Trace the rest, and make the functional graphs."""
        self.functions["forward"] = _trace(self._forward, [_spec(entry) for entry in self.forward.inputs])
        names = [name for p in self.trained for name in gradient_names(p.name, self.by_rows)]
        inputs = [entry.name for entry in self.forward.inputs]
        outputs = [f"output/{entry.name}" for entry in self.forward.predictions]
        whole = [f"gradient/{p.name}" for p in self.trained]
        results = ["loss", *self.objective.named, *whole, *(name for name in names if name not in whole)]
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
        constants = [f"new/{p.name}" for p in self.parameters if p.is_constant]
        for graph in (gradients, forward):
            # What is frozen as a whole stays, also where the forward pass assigns it.
            graph.drop_outputs(constants)
            read_state_directly(graph, frozen)
        assigned = {name.removeprefix("new/") for graph in (gradients, forward) for name in graph.outputs}
        has_value = not self.stored.are_missing
        self.parameters = [
            in_slices(p, has_value=has_value) if self._is_elementwise(p) and p.name not in assigned else p
            for p in self.parameters
        ]
        sliced = {
            p.name: Sliced(p.slices, p.frozen.value)
            for p in self.parameters
            if p.slices is not None and p.frozen is not None
        }
        for graph in (gradients, forward):
            keep_trained_slices(graph, sliced)
        if not all(chosen.configured.name in STARTS_APART for chosen in self.optimizers.given):
            self.stored.restore(self.parameters)
        targets = [Target(p.name, p.state, p.mask, p.constraint) for p in self.trained]
        update = trace_update(self.optimizers, targets, by_rows=self.by_rows, flat=True)
        self.functions["apply_gradients"] = update.function
        slots = {id(p.state.handle): _slot(p.name, p.state) for p in self.parameters}
        slots |= {id(v.variable.handle): _slot(v.name, v.variable) for v in update.variables}
        flat = [variable.target for variable in update.flat]
        slots |= {id(target.variable.handle): _slot(target.name, target.variable) for target in flat}
        apply_gradients = functionalise(update.function, names, [], slots)
        drop_inputs_and_outputs(apply_gradients, [target.name for target in flat])
        train_step = compose(gradients, apply_gradients, without=[name for name in whole if name not in names])
        update_rows(train_step)
        graphs = {
            "train_step": train_step,
            "gradients": gradients,
            "apply_gradients": apply_gradients,
            "forward": forward,
        }
        return graphs, update

    def _takes_rows(self, parameter: str) -> bool:
        chosen = self.optimizers.of(parameter)
        return self.may_take_rows and chosen is not None and takes_rows(chosen.configured)

    def _is_elementwise(self, parameter: Parameter) -> bool:
        chosen = self.optimizers.of(parameter.name)
        return chosen is not None and chosen.configured.name in ELEMENTWISE

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
