"""SavedModels with several graphs, which share one checkpoint and are told apart by their tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import ModelReadError, UnsupportedError, UsageError

__all__ = ["choose_graph", "join_graphs", "single_graph", "split_graphs"]

_GRAPHS_FIELD = saved_model_pb2.SavedModel.DESCRIPTOR.fields_by_name["meta_graphs"].number
_VARINT, _BYTES = 0, 2


def choose_graph(proto: saved_model_pb2.SavedModel, tags: Iterable[str] | None, directory: Path) -> int:
    """The position of the graph with exactly these tags; of a single graph, where none are given.

    Raises:
        UsageError: There is no such graph, or there are several and no tags.
        UnsupportedError: There are several, and one of them has objects, or two have the same tags.
    """
    found = [tuple(sorted(graph.meta_info_def.tags)) for graph in proto.meta_graphs]
    if len(found) == 1 and tags is None:
        return 0
    listed = "; ".join(",".join(graph) or "(none)" for graph in found)
    if tags is None:
        raise UsageError(f"{directory} holds {len(found)} graphs, tagged {listed}. Choose one: --tags TAG[,TAG].")
    chosen = tuple(sorted(set(tags)))
    if chosen not in found:
        raise UsageError(f"{directory} has no graph tagged {','.join(chosen) or '(none)'}. It has: {listed}.")
    if len(found) > 1 and any(graph.object_graph_def.nodes for graph in proto.meta_graphs):
        raise UnsupportedError(
            f"{directory} holds {len(found)} graphs, tagged {listed}, and one of them has an object graph. Several "
            "graphs are supported as TensorFlow 1 writes them, without. Save the one that you want alone."
        )
    if Counter(found)[chosen] > 1 or max(Counter(found).values()) > 1:
        raise UnsupportedError(f"{directory} holds graphs with the same tags: {listed}. Only one of each can be told.")
    return found.index(chosen)


def single_graph(proto: saved_model_pb2.SavedModel, index: int) -> saved_model_pb2.SavedModel:
    """The SavedModel with one of its graphs alone; the same object where it has no other."""
    if len(proto.meta_graphs) == 1:
        return proto
    single = saved_model_pb2.SavedModel(saved_model_schema_version=proto.saved_model_schema_version)
    single.meta_graphs.add().CopyFrom(proto.meta_graphs[index])
    return single


def split_graphs(content: bytes) -> list[bytes]:
    """The bytes of each graph in a serialised SavedModel.

    Raises:
        ModelReadError: It is no such thing.
    """
    graphs: list[bytes] = []
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        value, position = _varint(content, position)
        if key == _GRAPHS_FIELD << 3 | _BYTES:
            graphs.append(content[position : position + value])
        elif key & 7 not in (_VARINT, _BYTES):
            raise ModelReadError("The SavedModel is corrupt: it holds an unknown field. Export it again.")
        position += value if key & 7 == _BYTES else 0
    return graphs


def join_graphs(content: bytes, changed: Mapping[int, bytes]) -> bytes:
    """A serialised SavedModel with some of its graphs replaced; the others keep their bytes."""
    version = saved_model_pb2.SavedModel.FromString(content).saved_model_schema_version
    head: bytes = saved_model_pb2.SavedModel(saved_model_schema_version=version).SerializeToString()
    graphs = [changed.get(i, graph) for i, graph in enumerate(split_graphs(content))]
    key = bytes([_GRAPHS_FIELD << 3 | _BYTES])
    return head + b"".join(key + _encoded(len(graph)) + graph for graph in graphs)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ModelReadError("The SavedModel is truncated. Export it again.")


def _encoded(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
