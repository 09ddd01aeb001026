"""Everything that an artifact says about itself: the typed form of `manifest.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = [
    "GRADIENTS",
    "GRADIENT_BY_ROWS",
    "GRAPH_NAMES",
    "SCHEMA_VERSION",
    "BatchEntry",
    "BatchRole",
    "Configuration",
    "FrozenEntry",
    "GraphEntry",
    "LossEntry",
    "Manifest",
    "OptimizerEntry",
    "PartEntry",
    "SlicesEntry",
    "StateEntry",
    "StateRole",
]

SCHEMA_VERSION = 1

GRAPH_NAMES = ("train_step", "gradients", "apply_gradients", "forward")
"""The graphs of every artifact."""

GRADIENT_BY_ROWS = ("gradient_rows", "gradient_indices")
"""What `gradients` yields as KIND/NAME beside `gradient/NAME` where `apply_gradients` takes the gradient by rows."""

GRADIENTS = tuple(f"{kind}/" for kind in ("gradient", *GRADIENT_BY_ROWS))
"""How the names of all gradients begin."""

BatchRole = Literal["input", "target", "sample_weight"]
StateRole = Literal["parameter", "model_state", "optimizer_state", "hyperparameter"]
BATCH_ROLES: tuple[str, ...] = get_args(BatchRole)
STATE_ROLES: tuple[str, ...] = get_args(StateRole)


@dataclass(frozen=True)
class Configuration:
    """A loss or an optimizer: its Keras name and the arguments that it was made with."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossEntry(Configuration):
    """The loss of one output.

    Attributes:
        output: The output's name, or None where the endpoint has one output.
        weight: Its factor in the sum of all losses.
    """

    output: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class OptimizerEntry(Configuration):
    """The optimizer of some parameters.

    Attributes:
        parameters: The name or glob of its parameters, later entries first; None for all that no other one is for.
    """

    parameters: str | None = None


@dataclass(frozen=True)
class BatchEntry:
    """One array of a batch.

    Attributes:
        name: The key in the data: an input's name, `y`, `y.NAME`, `sample_weight`.
        role: What it is for.
        shape: A string stands for a size that may change from batch to batch; `batch` comes first where there is one.
        dtype: numpy's name of the dtype.
        below: Where not None: the numbers index rows or classes, from 0 up to less than this.
    """

    name: str
    role: BatchRole
    shape: tuple[int | str, ...]
    dtype: str
    below: int | None = None

    @property
    def per_example(self) -> bool:
        """Whether the first axis counts examples, as many as one likes."""
        return bool(self.shape) and isinstance(self.shape[0], str)


@dataclass(frozen=True)
class SlicesEntry:
    """Some whole slices of a tensor along an axis: its rows, its columns, its filters.

    Attributes:
        axis: The axis, in TensorFlow's order.
        count: How many slices.
    """

    axis: int
    count: int


@dataclass(frozen=True)
class PartEntry:
    """What a parameter has of a flat tensor.

    Attributes:
        parameter: The parameter.
        elements: How many elements: as many as are stored of it.
    """

    parameter: str
    elements: int


@dataclass(frozen=True)
class StateEntry:
    """One tensor that lives from step to step.

    Attributes:
        name: Its name in the graphs and in the state files.
        role: What it is.
        shape: The shape as TensorFlow has it; see `stored_shape`.
        dtype: numpy's name of the dtype.
        updated: Whether the training step yields `new/NAME`.
        permutation: Where not None: stored = numpy.transpose(tensorflow_value, permutation).
        object_path: The variable's path in the SavedModel, for parameters and model state.
        parameter: The parameter that an optimizer state belongs to, where it belongs to one.
        trainable: Of a parameter: whether `gradients` yields `gradient/NAME`.
        elements: How many elements it has; of every parameter, and of a model state with frozen elements.
        frozen_elements: How many of them are frozen.
        form: The form of the masked read, where elements are frozen.
        constrained: Of a parameter: True where the step ends with a constraint of it.
        trained_slices: Where not None: what is stored, of a parameter or of an optimizer state of it, are only these
            slices, in their order; the others are frozen as a whole. The plan says which.
        parts: Where not None: an optimizer state of several parameters, one behind the other in a flat tensor. The
            elements of each are in the order of its stored tensor.
    """

    name: str
    role: StateRole
    shape: tuple[int, ...]
    dtype: str
    updated: bool
    permutation: tuple[int, ...] | None = None
    object_path: str | None = None
    parameter: str | None = None
    trainable: bool | None = None
    elements: int | None = None
    frozen_elements: int | None = None
    form: str | None = None
    constrained: bool | None = None
    trained_slices: SlicesEntry | None = None
    parts: tuple[PartEntry, ...] | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in the state files and in the graphs."""
        if self.trained_slices is None:
            return self.whole_stored_shape
        shape = list(self.shape)
        shape[self.trained_slices.axis] = self.trained_slices.count
        return self._permuted(shape)

    @property
    def whole_stored_shape(self) -> tuple[int, ...]:
        """The shape with the slices that are not stored, in the stored order of the axes."""
        return self._permuted(self.shape)

    def _permuted(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape if self.permutation is None else (shape[axis] for axis in self.permutation))


@dataclass(frozen=True)
class FrozenEntry:
    """A variable that is frozen as a whole: a constant of the graphs, not a state."""

    name: str
    object_path: str
    elements: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GraphEntry:
    """One ONNX file.

    Attributes:
        file: Its name in the artifact's directory.
        inputs: Names of its inputs, in order.
        outputs: Names of its outputs, in order.
        host_side: Nodes that carry floating-point data and still belong on the CPU when the rest runs on a GPU.
    """

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host_side: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds, for which model, made with what.

    Attributes:
        graphfreeze: The version of graphfreeze that wrote it.
        versions: Versions of the libraries that took part.
        opset: The opset of the default ONNX domain.
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint that `forward` computes.
        losses: The Keras loss of the only output, or of each output that has one.
        optimizers: The Keras optimizer of all parameters, or of each part of them.
        seed: The seed of everything random.
        batch: What a batch holds.
        state: What lives from step to step.
        frozen: The variables that are frozen as a whole.
        graphs: The ONNX files, by the names of `GRAPH_NAMES`.
        files: sha256 of every other file of the artifact, by name; filled in by `write_artifact`.
    """

    graphfreeze: str
    versions: Mapping[str, str]
    opset: int
    endpoint: str
    forward_endpoint: str
    losses: tuple[LossEntry, ...]
    optimizers: tuple[OptimizerEntry, ...]
    seed: int
    batch: tuple[BatchEntry, ...]
    state: tuple[StateEntry, ...]
    frozen: tuple[FrozenEntry, ...]
    graphs: Mapping[str, GraphEntry]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def output_losses(self) -> tuple[str, ...]:
        """The names of the single losses among the graphs' outputs: none where the endpoint has one output."""
        return tuple(f"loss/{entry.output}" for entry in self.losses if entry.output is not None)

    @property
    def parameters(self) -> tuple[StateEntry, ...]:
        """The state entries that are parameters, in order."""
        return tuple(entry for entry in self.state if entry.role == "parameter")

    @property
    def trainable_parameters(self) -> tuple[StateEntry, ...]:
        """The parameters that have a gradient, in order."""
        return tuple(entry for entry in self.parameters if entry.trainable)

    def find_state(self, name: str) -> StateEntry | None:
        """The state entry of that name, or None."""
        return next((entry for entry in self.state if entry.name == name), None)
