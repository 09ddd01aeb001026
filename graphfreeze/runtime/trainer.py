"""Training with onnxruntime alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.averages import Averages
from graphfreeze.artifact.data import Dataset, DataSource, load_data
from graphfreeze.artifact.frozen import FrozenElements, read_frozen_elements
from graphfreeze.artifact.reader import Artifact, read_artifact
from graphfreeze.artifact.tensors import write_tensors
from graphfreeze.errors import ArtifactReadError, DataError
from graphfreeze.output import atomic_file
from graphfreeze.runtime.batch_check import BatchCheck
from graphfreeze.runtime.device import Device, choose_device
from graphfreeze.runtime.device_state import DeviceState
from graphfreeze.runtime.device_tensor import element_dtype
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.runtime.learning_rates import LEARNING_RATE, LearningRates
from graphfreeze.runtime.saved_state import StateSource, read_state
from graphfreeze.runtime.session import check_names, create_session
from graphfreeze.runtime.sizes import check_against_graph, check_sizes
from graphfreeze.runtime.step_bindings import StepBindings

__all__ = ["BatchGradients", "Progress", "Trainer"]

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`, called after each step."""


@dataclass(frozen=True)
class BatchGradients:
    """What one batch gives, before any optimizer.

    Attributes:
        loss: The loss.
        output_losses: Where the endpoint has several outputs: the loss of each one that has a loss, by its name.
        gradients: By parameter name, in the stored layout, of the trained slices alone where these are what is stored.
        model_state: The new model state by name, in the stored layout.
    """

    loss: float
    output_losses: dict[str, float]
    gradients: dict[str, npt.NDArray[Any]]
    model_state: dict[str, npt.NDArray[Any]]


class Trainer:
    """Trains an artifact. The state lives on the device from step to step; arrays go in and out by copy.

    Args:
        out: The OUT of a rewrite, its `training` directory, or an artifact already read.
        device: `auto`, `cpu` or `cuda`.
        state: Where to start: a state file, or arrays by name in the stored layout; by default the initial state.

    Attributes:
        artifact: The artifact.
        device: The device that was taken, and why.
        steps: How many steps this trainer has made.
        output_losses: Where the endpoint has several outputs: the loss of each one in the last step, by its name, not
            yet weighted.

    Raises:
        ArtifactReadError: The artifact or the state is missing, corrupt, or they do not belong together.
        ValidationError: `cuda` was demanded and cannot be used.
    """

    def __init__(
        self,
        out: str | Path | Artifact,
        *,
        device: str | Device = "auto",
        state: StateSource | None = None,
    ) -> None:
        self.artifact = out if isinstance(out, Artifact) else read_artifact(out)
        self.device = choose_device(device)
        self.steps = 0
        self.output_losses: dict[str, float] = {}
        self._manifest = self.artifact.manifest
        self._check_batch = BatchCheck(self._manifest.batch)
        self._entries = {entry.name: entry for entry in self._manifest.state}
        values = self.artifact.state if state is None else read_state(self.artifact, self.frozen, state)
        self._state = DeviceState(self._manifest.state, values, self.device)
        self._rates = LearningRates(self._manifest, self._state)
        path, entry = self.artifact.graph_path("train_step"), self._manifest.graphs["train_step"]
        session = create_session(path, self.device, tiled=True)
        check_names(session, entry, path)
        self._bindings = StepBindings(session, entry, self._state, self.device)

    # -- training

    def step(self, batch: Mapping[str, npt.ArrayLike]) -> float:
        """Train on one batch and return its loss, computed before the update.

        Args:
            batch: One array per entry of the manifest's `batch`.

        Raises:
            DataError: The arrays do not fit, or onnxruntime stopped; the state is then unchanged.
        """
        return self._train_on(self._as_batch(batch))

    def fit(
        self,
        data: DataSource | Dataset,
        *,
        epochs: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        progress: Progress | None = None,
    ) -> list[float]:
        """Train over the data several times; a last, smaller batch is trained on too.

        Args:
            data: See `graphfreeze.artifact.data.load_data`.
            epochs: How often to go over the data.
            batch_size: Examples per step.
            seed: The seed of the order of the examples: equal seeds give equal orders.
            shuffle: Whether each epoch has a new order.
            progress: Called after each step.

        Returns:
            For each epoch the mean loss over its examples.

        Raises:
            DataError: The data do not fit, or onnxruntime stopped.
            UsageError: `epochs` or `batch_size` is not positive.
        """
        dataset = data if isinstance(data, Dataset) else load_data(data, self._manifest.batch)
        check_sizes(dataset, epochs, batch_size)
        order = np.arange(dataset.examples)
        random = np.random.Generator(np.random.PCG64(seed))
        total = epochs * -(-dataset.examples // batch_size)
        losses = []
        done = 0
        for _ in range(epochs):
            if shuffle:
                random.shuffle(order)
            loss_sum = 0.0
            for start in range(0, dataset.examples, batch_size):
                indices = order[start : start + batch_size]
                loss_sum += self._train_on(dataset.batch(indices)) * len(indices)
                done += 1
                if progress is not None:
                    progress("training", done, total)
            losses.append(loss_sum / dataset.examples)
        return losses

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; of several optimizers, of the one without a pattern.

        Raises:
            UsageError: The optimizer has none that can be set.
        """
        return self._rates.of(LEARNING_RATE)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._rates.write({LEARNING_RATE: value})

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """The learning rates of the next step by name: `learning_rate`, and `NAME/learning_rate` of other optimizers.

        Set to a mapping, it changes those that the mapping names.

        Raises:
            UsageError: There is none of that name.
        """
        return self._rates.read()

    @learning_rates.setter
    def learning_rates(self, values: Mapping[str, float]) -> None:
        self._rates.write(values)

    # -- looking

    def gradients(self, batch: Mapping[str, npt.ArrayLike]) -> BatchGradients:
        """Compute loss and gradients of one batch; nothing is updated.

        Raises:
            DataError: The arrays do not fit, or onnxruntime stopped.
        """
        outputs = self._gradients_runner({**self._state.current, **self._as_batch(batch)})
        by_kind: dict[str, dict[str, npt.NDArray[Any]]] = defaultdict(dict)
        for name, value in outputs.items():
            kind, _, rest = name.partition("/")
            by_kind[kind][rest] = value
        single = {name: float(value) for name, value in by_kind["loss"].items() if name}
        return BatchGradients(float(outputs["loss"]), single, by_kind["gradient"], by_kind["new"])

    def predict(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """Compute the outputs of the forward endpoint with the current state.

        Args:
            inputs: One array per input of the endpoint.

        Raises:
            DataError: The arrays do not fit, or onnxruntime stopped.
        """
        runner = self._forward_runner
        names = [name for name in runner.entry.inputs if name not in self._entries]
        if set(inputs) != set(names):
            raise DataError(f"predict expects the inputs {sorted(names)}, found {sorted(inputs)}.")
        arrays = {name: np.asarray(inputs[name], element_dtype(runner.input_types[name])) for name in names}
        for name, array in arrays.items():
            check_against_graph(name, array, runner.input_shapes[name])
        outputs = runner({**self._state.current, **arrays})
        return {name.removeprefix("output/"): value for name, value in outputs.items() if name.startswith("output/")}

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state by name, in the stored layout, in new arrays."""
        return {name: self._state.read(name) for name in self._entries}

    def weights(self, *, averages: bool = False) -> dict[str, npt.NDArray[Any]]:
        """Parameters and model state by name, in TensorFlow's layout and shape, in new arrays.

        Variables that are frozen as a whole come from the plan beside the artifact, where it is there.

        Args:
            averages: Of parameters, take the averages that an optimizer with `use_ema` keeps, as Keras' `fit` does at
                its end; before the first step, and without `use_ema`, there are none, and this changes nothing.

        Raises:
            ArtifactReadError: The plan is not there, and frozen slices of a parameter, which are not in the state, are
                to come from it.
        """
        frozen = self.frozen or FrozenElements({}, {})
        kept = Averages(self.artifact.manifest, self.state_dict()) if averages else None
        weights = {}
        for name, entry in self._entries.items():
            if entry.role not in ("parameter", "model_state"):
                continue
            if entry.trained_slices is not None and self.frozen is None:
                raise ArtifactReadError(
                    f"{self.artifact.plan_directory} is missing, which has the frozen slices of {name}: the state has "
                    "the others alone. Keep the whole OUT of the rewrite, or take them from state_dict()."
                )
            values = self._state.read(name) if kept is None else kept.of(entry, frozen)
            weights[name] = frozen.to_tensorflow(values, entry).copy()
        weights.update({name: value.copy() for name, value in frozen.wholly.items()})
        return weights

    @cached_property
    def frozen(self) -> FrozenElements | None:
        """The frozen elements; None where the artifact was taken out of its OUT and the plan is not beside it."""
        return read_frozen_elements(self.artifact)

    # -- keeping

    def save(self, path: str | Path) -> None:
        """Write the whole state to a safetensors file, which appears whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        with atomic_file(Path(path), overwrite=True) as temporary:
            write_tensors(temporary, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Continue from a saved state.

        Raises:
            ArtifactReadError: The file is missing, corrupt, or of another artifact. The state is then unchanged.
        """
        values = read_state(self.artifact, self.frozen, path)
        for name in self._entries:
            self._state.write(name, values[name])

    # -- inside

    def _train_on(self, batch: Mapping[str, npt.NDArray[Any]]) -> float:
        losses = self._bindings.step(batch)
        self.steps += 1
        if len(losses) > 1:
            self.output_losses = {
                name.removeprefix("loss/"): value for name, value in losses.items() if name.startswith("loss/")
            }
        return losses["loss"]

    def _as_batch(self, batch: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        return self._check_batch(batch)

    @cached_property
    def _gradients_runner(self) -> GraphRunner:
        return GraphRunner(self.artifact, "gradients", self.device)

    @cached_property
    def _forward_runner(self) -> GraphRunner:
        return GraphRunner(self.artifact, "forward", self.device)
