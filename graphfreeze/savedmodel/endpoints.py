"""The callables of a SavedModel: its signatures, and the functions that hang on its root (`serve`, `__call__`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.savedmodel.dtypes import dtype_name
from graphfreeze.savedmodel.object_graph import concrete_functions_of

__all__ = ["Endpoint", "TensorSpec", "list_endpoints"]

INITIALISER_SIGNATURE = "__saved_model_init_op"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that an endpoint takes. `shape` is None where the rank is unknown, a dimension where its size is."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A callable of the SavedModel.

    Attributes:
        name: The signature's key, or the attribute of the loaded object.
        kind: Which of the two it is; a name may occur in both kinds.
        functions: Its concrete functions (a signature has one, a function one per trace); none without objects.
        inputs: What its first concrete function takes, sorted by name.
        outputs: The names of what that yields.
    """

    name: str
    kind: Literal["function", "signature"]
    functions: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """How reports name it: `signature serving_default`, `function serve`."""
        return f"{self.kind} {self.name}"


def list_endpoints(meta_graph: meta_graph_pb2.MetaGraphDef) -> tuple[Endpoint, ...]:
    """All endpoints: the functions of the root in its order, then the signatures by name."""
    graph = meta_graph.object_graph_def
    if not graph.nodes:
        keys = sorted(set(meta_graph.signature_def) - {INITIALISER_SIGNATURE})
        return tuple(_signature(key, meta_graph.signature_def[key], ()) for key in keys)
    functions = [
        _function(graph, child.local_name, names)
        for child in graph.nodes[0].children
        if (names := [name for name in concrete_functions_of(graph, child.node_id) if name in graph.concrete_functions])
    ]
    wrappers = _signature_functions(graph)
    signatures = [
        _signature(name, meta_graph.signature_def[name], wrappers[name])
        for name in sorted(meta_graph.signature_def)
        if name in wrappers
    ]
    return tuple(functions + signatures)


def _signature_functions(graph: Any) -> dict[str, tuple[str, ...]]:
    """Signature key -> its concrete function, from the root's signature map."""
    return {
        child.local_name: tuple(concrete_functions_of(graph, child.node_id))
        for entry in graph.nodes[0].children
        if graph.nodes[entry.node_id].user_object.identifier == "signature_map"
        for child in graph.nodes[entry.node_id].children
    }


def _signature(name: str, signature: meta_graph_pb2.SignatureDef, functions: tuple[str, ...]) -> Endpoint:
    inputs = [
        TensorSpec(key, _shape(info.tensor_shape), dtype_name(info.dtype))
        for key, info in sorted(signature.inputs.items())
    ]
    return Endpoint(name, "signature", functions, tuple(inputs), tuple(sorted(signature.outputs)))


def _function(graph: Any, name: str, functions: list[str]) -> Endpoint:
    first = graph.concrete_functions[functions[0]]
    specs = [
        TensorSpec(spec.name or path, _shape(spec.shape), dtype_name(spec.dtype))
        for path, spec in _tensor_specs(first.canonicalized_input_signature, "")
    ]
    outputs = [
        path or f"output_{i}" for i, (path, _) in enumerate(_tensor_specs(first.output_signature, "", "output_"))
    ]
    return Endpoint(name, "function", tuple(functions), tuple(sorted(specs, key=lambda s: s.name)), tuple(outputs))


def _tensor_specs(value: Any, path: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of a structured value, each with the key or position that leads to it."""
    kind = value.WhichOneof("kind")
    if kind in ("tensor_spec_value", "bounded_tensor_spec_value"):
        yield path, getattr(value, kind)
    elif kind == "dict_value":
        for key in sorted(value.dict_value.fields):
            yield from _tensor_specs(value.dict_value.fields[key], key, prefix)
    elif kind in ("tuple_value", "list_value", "named_tuple_value"):
        values = (
            [p.value for p in value.named_tuple_value.values]
            if kind == "named_tuple_value"
            else getattr(value, kind).values
        )
        for i, item in enumerate(values):
            yield from _tensor_specs(item, f"{prefix}{i}", prefix)


def _shape(shape: tensor_shape_pb2.TensorShapeProto) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if d.size < 0 else int(d.size) for d in shape.dim)
