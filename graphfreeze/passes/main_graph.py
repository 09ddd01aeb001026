"""The main graph in the shape of a function, for the passes over functions.

A graph of TensorFlow 1 reads its variables in the main graph. What a function returns is there what signatures give
out: a tensor that is replaced gets its new name in the signatures.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.savedmodel.main_graph import signature_outputs

__all__ = ["FunctionLike", "MainGraph"]

_REFERENCE = 100


class FunctionLike(Protocol):
    """What the passes need of a function: a `FunctionDef`, or the main graph."""

    node_def: Any
    signature: Any
    ret: Any
    control_ret: Any


@dataclass(frozen=True)
class _Argument:
    name: str


@dataclass(frozen=True)
class _Signature:
    output_arg: tuple[_Argument, ...]
    input_arg: tuple[_Argument, ...] = ()


class _Outputs(MutableMapping[str, str]):
    """The tensors that signatures give out, by `KEY/NAME`."""

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
        self._info: dict[str, Any] = {
            f"{key}/{name}": meta_graph.signature_def[key].outputs[name] for key, name in signature_outputs(meta_graph)
        }

    def __getitem__(self, output: str) -> str:
        return str(self._info[output].name)

    def __setitem__(self, output: str, tensor: str) -> None:
        info = self._info[output]
        info.name = tensor
        # A masked read yields a value, also that of a reference.
        info.dtype = info.dtype - _REFERENCE if info.dtype > _REFERENCE else info.dtype

    def __delitem__(self, output: str) -> None:
        del self._info[output]

    def __iter__(self) -> Iterator[str]:
        return iter(self._info)

    def __len__(self) -> int:
        return len(self._info)


class MainGraph:
    """The main graph of a SavedModel.

    Args:
        meta_graph: The graph; changes go there.
    """

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
        self.node_def: Any = meta_graph.graph_def.node
        self.ret = _Outputs(meta_graph)
        self.signature = _Signature(tuple(_Argument(output) for output in self.ret))
        self.control_ret: dict[str, str] = {}
