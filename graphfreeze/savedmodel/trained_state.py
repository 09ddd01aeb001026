"""Trained values of a rewritten model's variables, from a checkpoint or a SavedModel that TensorFlow saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.protobuf import trackable_object_graph_pb2

from graphfreeze.errors import DataError
from graphfreeze.savedmodel.checkpoint import OBJECT_GRAPH_KEY, VARIABLE_VALUE, Checkpoint
from graphfreeze.savedmodel.lazy_arrays import LazyArrays
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.object_graph import captured_nodes
from graphfreeze.savedmodel.session_keys import session_keys
from graphfreeze.selection.variable import Variable

__all__ = ["TrainedState", "checkpoint_of", "read_trained_state"]

Array = npt.NDArray[Any]

_INDEX = ".index"


@dataclass(frozen=True)
class TrainedState:
    """What a checkpoint has for a model, read when it is asked for.

    Attributes:
        variables: Object path -> trained value.
        others: Key in the model's own checkpoint -> the value of what is no variable: tables, iterators.
    """

    variables: LazyArrays
    others: LazyArrays


def checkpoint_of(state: Path) -> Checkpoint | None:
    """The checkpoint that a path stands for, or None where it is none.

    Args:
        state: A SavedModel's directory, the OUT of a rewrite, the prefix of a checkpoint (`ckpt-3`), its index, or a
            directory of checkpoints, of which the latest counts.
    """
    for directory in (state, state / "saved_model"):
        if (directory / "saved_model.pb").is_file():
            return Checkpoint(directory)
    if (state / "checkpoint").is_file():
        # Imported here: the rest works on files alone.
        import tensorflow as tf

        latest = tf.train.latest_checkpoint(str(state))
        state = state if latest is None else Path(latest)
    if state.suffix == _INDEX:
        state = state.with_suffix("")
    return Checkpoint(state.parent, state.name) if state.with_name(state.name + _INDEX).is_file() else None


def read_trained_state(model: SavedModel, checkpoint: Checkpoint) -> TrainedState:
    """The values that a checkpoint has for the variables and other objects of a model.

    The checkpoint may be of a loaded model (`tf.train.Checkpoint(model)`), of an object that holds it at any depth
    (`tf.train.Checkpoint(model=model, optimizer=...)`), or what a session or `tf.saved_model.save` wrote. A session
    trains a Keras 3 export's second copy of each variable; where only that one moved, it is what counts. Of a model of
    TensorFlow 1, it is what a saver wrote.

    What no function of the model takes may be missing, as the optimizer's variables and the metrics of a Keras 2 save
    that was trained with others: then nothing of that object is taken, so that it keeps the values that it has.

    Args:
        model: The model before training, with its checkpoint.
        checkpoint: The trained values.

    Raises:
        DataError: The checkpoint is not one of this model.
        ModelReadError: It is corrupt.
    """
    if not model.has_objects:
        return _of_graph(model, checkpoint)
    if OBJECT_GRAPH_KEY not in checkpoint.shapes:
        raise DataError(
            f"{checkpoint.prefix} names its values without the objects that they belong to (a name-based checkpoint of "
            "TensorFlow 1). Give one of tf.train.Checkpoint, or a SavedModel."
        )
    start, keys = _matching_object(model, checkpoint)
    for_sessions = session_keys(model)
    readers: dict[str, Callable[[], Array]] = {}
    for node, variable in model.variables_by_node.items():
        if node in keys:
            own = model.key_of_node.get(node)
            copies = [key for key in for_sessions.get(node, ()) if key != own and key in checkpoint.shapes]
            readers[variable.object_path] = _reader(model.checkpoint, checkpoint, own, keys[node], copies)
    return TrainedState(LazyArrays(readers), LazyArrays(_other_readers(model, checkpoint, start)))


def _of_graph(model: SavedModel, checkpoint: Checkpoint) -> TrainedState:
    """What a saver of TensorFlow 1 wrote: the model's own keys."""
    readers: dict[str, Callable[[], Array]] = {}
    places = {found.variable.object_path: found for found in model.graph_variables.values() if found.stored is not None}
    for path, found in places.items():
        place, variable = found.stored, found.variable
        assert place is not None, "these are left out"
        whole = model.checkpoint.shapes[place.key]
        if place.key not in checkpoint.shapes or checkpoint.shapes[place.key] != whole:
            raise DataError(
                f"{checkpoint.prefix} is no checkpoint of this model: expected {place.key!r} of shape {whole}, found "
                f"{checkpoint.shapes.get(place.key, 'none')}. Give what a saver of TensorFlow 1 wrote "
                "(tf.compat.v1.train.Saver), or the model saved again by a session."
            )
        if place.part:
            readers[path] = partial(checkpoint.read_part, place.key, place.part, variable.dtype)
        else:
            readers[path] = partial(checkpoint.read, place.key)
    own = {found.stored.key for found in places.values() if found.stored is not None}
    others = {key: partial(checkpoint.read, key) for key in model.checkpoint.shapes if key not in own}
    return TrainedState(LazyArrays(readers), LazyArrays({k: v for k, v in others.items() if k in checkpoint.shapes}))


def _other_readers(model: SavedModel, checkpoint: Checkpoint, start: int) -> dict[str, Callable[[], Array]]:
    """Readers of what is no variable, by the keys in the model's checkpoint.

    An object notes a name for all its values, to which the keys of these add: `table/.ATTRIBUTES/table` for
    `...table-keys` and `...table-values`.
    """
    own = model.checkpoint.attributes_of(model.object_graph)
    trained = checkpoint.attributes_of(model.object_graph, start)
    stems = {own[place]: trained[place] for place in own if place in trained and place[1] != VARIABLE_VALUE}
    readers: dict[str, Callable[[], Array]] = {}
    for key in model.checkpoint.shapes:
        stem = max((stem for stem in stems if key.startswith(stem)), key=len, default=None)
        if stem is not None and (found := stems[stem] + key[len(stem) :]) in checkpoint.shapes:
            readers[key] = partial(checkpoint.read, found)
    return readers


def _reader(
    before: Checkpoint, after: Checkpoint, own: str | None, trained: str, copies: list[str]
) -> Callable[[], Array]:
    def read() -> Array:
        value = after.read(trained)
        if own is None or own != trained or not copies or not _same(value, before.read(own)):
            return value
        # The variable itself did not move; its copy may have, in a session.
        moved = next((copy for key in copies if not _same(copy := after.read(key), value)), value)
        return moved if moved.shape == value.shape else value

    return read


def _same(left: Array, right: Array) -> bool:
    """Whether two arrays have the same bits."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype.hasobject:
        return bool(left.tolist() == right.tolist())
    a, b = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (left, right))
    return np.array_equal(a, b)


def _matching_object(model: SavedModel, checkpoint: Checkpoint) -> tuple[int, dict[int, str]]:
    """The one object in the checkpoint that is the model, and its keys by the model's object nodes."""
    objects = checkpoint.objects
    wanted = {n: v for n, v in model.variables_by_node.items() if n in model.key_of_node}
    captured = captured_nodes(model.object_graph)
    # Without functions, the variables are all that there is.
    needed = wanted.keys() & captured or wanted.keys()
    first_names = {v.object_path.split("/", 1)[0] for v in wanted.values() if not v.object_path.startswith("#")}
    best: dict[int, str] = {}
    matches: list[_Match] = []
    for depth, candidate in _by_depth(objects):
        if matches and matches[0].is_whole and depth > matches[0].depth:
            break
        names = {child.local_name for child in objects.nodes[candidate].children}
        if names.isdisjoint(first_names):
            continue
        keys = checkpoint.keys_of(model.object_graph, candidate)
        found = {
            n: keys[n] for n, v in wanted.items() if n in keys and tuple(checkpoint.shapes.get(keys[n], ())) == v.shape
        }
        if needed <= found.keys():
            match = _Match(len(found) == len(wanted), depth, candidate, found)
            matches = [other for other in matches if other.rank == min(match.rank, other.rank)]
            if not matches or match.rank == matches[0].rank:
                matches.append(match)
        best = max(best, found, key=len)
    if len(matches) > 1 and any(other.keys != matches[0].keys for other in matches):
        raise DataError(
            f"{checkpoint.prefix} holds {len(matches)} objects with all variables of this model: it cannot be "
            "told which is the trained one. Save the model alone: tf.train.Checkpoint(model).save(PREFIX)."
        )
    if matches:
        return matches[0].candidate, _without_incomplete(matches[0].keys, wanted, captured)
    missing = [v for n, v in wanted.items() if n in needed and n not in best]
    missing = missing or [v for n, v in wanted.items() if n not in best]
    raise DataError(
        f"{checkpoint.prefix} is no checkpoint of this model: of {len(needed)} variables it lacks {len(missing)}, "
        f"{missing[0].name} ({missing[0].object_path}, shape {missing[0].shape}) for example. Give a checkpoint of the "
        "loaded model, or of an object that holds it."
    )


@dataclass(frozen=True)
class _Match:
    """An object of a checkpoint that has all variables which the model's functions take.

    Attributes:
        is_whole: Whether it has the others, too.
        depth: How far from the root it is.
        candidate: Its node.
        keys: The keys of what it has, by the model's object nodes.
    """

    is_whole: bool
    depth: int
    candidate: int
    keys: dict[int, str]

    @property
    def rank(self) -> tuple[bool, int]:
        """The lower, the better."""
        return not self.is_whole, self.depth


def _without_incomplete(keys: dict[int, str], wanted: Mapping[int, Variable], captured: Set[int]) -> dict[int, str]:
    """Leave out what no function takes of an object, a child of the root, of which something is missing."""
    incomplete = {_child(variable) for node, variable in wanted.items() if node not in keys}
    return {n: key for n, key in keys.items() if n in captured or _child(wanted[n]) not in incomplete}


def _child(variable: Variable) -> str:
    return variable.object_path.split("/", 1)[0]


def _by_depth(objects: trackable_object_graph_pb2.TrackableObjectGraph) -> Iterator[tuple[int, int]]:
    """The nodes that the root reaches, those near to it first, each after its depth."""
    queue, seen = deque([(0, 0)] if objects.nodes else []), {0}
    while queue:
        depth, node = queue.popleft()
        yield depth, node
        for child in objects.nodes[node].children:
            if child.node_id not in seen:
                seen.add(child.node_id)
                queue.append((depth + 1, child.node_id))
