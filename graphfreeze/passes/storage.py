"""Which masks and frozen values go into the checkpoint, because a graph cannot hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.core.protobuf import trackable_object_graph_pb2

from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.variable import numpy_dtype

__all__ = [
    "Storage",
    "StoredConstant",
    "StoredConstants",
    "StoredVariable",
    "extended_objects",
    "placeholder",
    "placeholder_number",
    "stored_paths",
]

_MARK = b"graphfreeze stored constant"


@dataclass(frozen=True)
class Storage:
    """When constants leave the graph.

    A protobuf ends at 2 GB, and a graph is in memory as a whole, twice while it is written; so the limit is far below.

    Attributes:
        total: The bytes of masks and frozen values that a graph may hold.
        each: With more than `total`, the variables of more bytes than this go into the checkpoint.
    """

    total: int = 1 << 27
    each: int = 1 << 20


@dataclass(frozen=True, order=True)
class StoredConstant:
    """A mask or the frozen values of a variable, as a variable of its own.

    Attributes:
        object_path: The targeted variable's object path.
        role: `mask` or `frozen`.
        shape: Its shape; a mask may be needed in several.
        dtype: Its dtype.
    """

    object_path: str
    role: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def proto_dtype(self) -> int:
        """Its dtype as protos have it."""
        return int(tf.as_dtype(self.dtype).as_datatype_enum)

    def array(self, frozen: FrozenVariable) -> npt.NDArray[Any]:
        """What it holds, made from the plan's entry."""
        if self.role == "mask":
            mask = frozen.mask
            whole = mask.reshape(self.shape) if mask.size == np.prod(self.shape) else frozen.full_mask
            return np.asarray(whole.astype(numpy_dtype(self.dtype)))
        value = frozen.value
        return np.where(frozen.full_mask, -np.zeros((), value.dtype), value) if frozen.form == "blend" else value


@dataclass(frozen=True)
class StoredVariable:
    """A constant as a variable of the rewritten model.

    Attributes:
        constant: What it is.
        node: Its node in the object graph.
        name: Its name, which is also that of its handle in the main graph.
        path: Its object path: `CHILD/NAME`.
        key: Its key in the checkpoint.
    """

    constant: StoredConstant
    node: int
    name: str
    path: tuple[str, str]

    @property
    def key(self) -> str:
        """The key of its value in the checkpoint."""
        return "/".join(self.path) + "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass
class StoredConstants:
    """The constants that go into the checkpoint, numbered as they are met.

    Attributes:
        paths: The object paths of the variables whose constants do.
        numbers: Constant -> its number.
    """

    paths: frozenset[str] = frozenset()
    numbers: dict[StoredConstant, int] = field(default_factory=dict)

    def number_of(self, constant: StoredConstant) -> int:
        """The number of a constant, a new one where it is met first."""
        return self.numbers.setdefault(constant, len(self.numbers))


def placeholder(node: node_def_pb2.NodeDef, number: int) -> None:
    """Make a Const stand for the stored constant of that number."""
    tensor = node.attr["value"].tensor
    tensor.dtype = types_pb2.DT_STRING
    tensor.string_val.extend([_MARK, str(number).encode()])


def placeholder_number(node: node_def_pb2.NodeDef) -> int | None:
    """The number of the constant that a node stands for, or None where it is no placeholder."""
    if node.op != "Const" or "value" not in node.attr:
        return None
    strings = node.attr["value"].tensor.string_val
    return int(strings[1]) if len(strings) == 2 and strings[0] == _MARK else None


def stored_paths(plan: FreezePlan, storage: Storage) -> frozenset[str]:
    """The object paths of the variables whose constants go into the checkpoint."""
    sizes = {v.variable.object_path: v.variable.nbytes for v in plan.variables}
    # Where only some endpoints freeze, the others must stay as they are, arguments included.
    if plan.only_in or sum(sizes.values()) <= storage.total:
        return frozenset()
    return frozenset(path for path, size in sizes.items() if size > storage.each)


def extended_objects(
    objects: trackable_object_graph_pb2.TrackableObjectGraph, stored: Iterable[StoredVariable]
) -> trackable_object_graph_pb2.TrackableObjectGraph:
    """A checkpoint's object graph with one more child of the root, which holds the variables."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.CopyFrom(objects)
    holders: dict[str, int] = {}
    for variable in stored:
        child, local = variable.path
        if child not in holders:
            holders[child] = len(graph.nodes)
            graph.nodes[0].children.add(node_id=len(graph.nodes), local_name=child)
            graph.nodes.add()
        graph.nodes[holders[child]].children.add(node_id=len(graph.nodes), local_name=local)
        node = graph.nodes.add()
        node.attributes.add(name="VARIABLE_VALUE", full_name=variable.name, checkpoint_key=variable.key)
        node.has_checkpoint_values.value = True
    return graph
