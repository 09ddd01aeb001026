"""Large updates tile by tile: on a CPU, what an optimizer does to a parameter then stays in the processor's caches.

An optimizer is a dozen element-wise operators. onnxruntime runs each over the whole tensor, so that a parameter beyond
the caches goes through memory a dozen times. A Scan over tiles goes through memory once, and gives the same bits.

The artifact does not hold such graphs: on a GPU each tile would cost a dozen kernels. They are made when a session is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from graphfreeze.runtime.elementwise import Chain, Shape, find_chains, read_names

__all__ = ["tile_updates", "tiled_model"]

# Half a megabyte of float32: a core's cache holds a few such tensors, and the cost of a tile is small beside its work.
_TILE = 1 << 17
_SMALLEST_TILE = 1 << 14
# What is made of names: as tiles, as tiles that a Scan gives, as a whole.
_TILED, _GIVEN, _WHOLE = "/tiles", "/given", "/whole"


def tiled_model(path: Path) -> onnx.ModelProto | None:
    """Read a graph and let its large updates run tile by tile; None if it has none. External data stay where they are.

    Args:
        path: The ONNX file.
    """
    model = onnx.load(str(path), load_external_data=False)
    return model if tile_updates(model) else None


def tile_updates(model: onnx.ModelProto) -> bool:
    """Replace each chain of element-wise operators over large tensors by a Scan over tiles.

    An output of the graph that such a chain writes gets the shape of the tiles: the same elements in the same order.

    Args:
        model: The model, which is changed.

    Returns:
        Whether there was any.
    """
    types = _tensor_types(model)
    shapes = {name: shape for name, tensor in types.items() if (shape := _static_shape(tensor)) is not None}
    graph = model.graph
    chains = [(chain, tiles) for chain in find_chains(graph.node, shapes) if (tiles := _tiles(chain.shape)) is not None]
    if not chains:
        return False
    scans = _Scans(graph, {name: tensor.elem_type for name, tensor in types.items()}, shapes)
    for chain, tiles in chains:
        scans.split_outputs(chain, tiles)
    for chain, tiles in chains:
        scans.replace(chain, tiles)
    nodes = _in_order(scans.nodes())
    del graph.node[:]
    graph.node.extend(nodes)
    return True


class _Scans:
    """Makes Scans of chains of one graph."""

    def __init__(self, graph: onnx.GraphProto, types: Mapping[str, int], shapes: Mapping[str, Shape]) -> None:
        self._graph = graph
        self._types = dict(types)
        self._shapes = dict(shapes)
        self._outputs = {output.name: output for output in graph.output}
        self._readers: dict[str, list[int]] = {}
        for place, node in enumerate(graph.node):
            for name in read_names(node):
                self._readers.setdefault(name, []).append(place)
        self._replaced: set[int] = set()
        self._added: list[onnx.NodeProto] = []
        self._reshaped: dict[tuple[str, Shape], str] = {}

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes that are left, and those that were added, in any order."""
        left = [node for place, node in enumerate(self._graph.node) if place not in self._replaced]
        return left + self._added

    def split_outputs(self, chain: Chain, tiles: Shape) -> None:
        """Give the graph's outputs that a chain makes the shape of tiles, and what else reads them the whole.

        An output of the graph is written where it is bound: in another shape it would have to be copied.
        """
        for name in (name for place in chain.nodes for name in self._graph.node[place].output):
            if name not in self._outputs:
                continue
            _set_shape(self._outputs[name], tiles)
            readers = [place for place in self._readers.pop(name, ()) if place not in chain.nodes]
            if readers:
                whole = self._reshape(name, chain.shape, name + _WHOLE)
                self._types[whole], self._shapes[whole] = self._types[name], chain.shape
                for place in readers:
                    _rename(self._graph.node[place], name, whole)

    def replace(self, chain: Chain, tiles: Shape) -> None:
        """Put a Scan in the place of a chain.

        Args:
            chain: The chain.
            tiles: Its shape, as a row of tiles that have its rank.
        """
        members = [self._graph.node[place] for place in chain.nodes]
        made = [node.output[0] for node in members]
        read = dict.fromkeys(name for node in members for name in node.input)
        taken = [name for name in read if name not in made and self._shapes[name] == chain.shape]
        given = [
            name for name in made if name in self._outputs or not set(self._readers.get(name, ())) <= set(chain.nodes)
        ]
        for name in given:
            if name not in self._outputs:
                self._reshape(name + _GIVEN, chain.shape, name)
        scan = onnx.helper.make_node(
            "Scan",
            [self._reshape(name, tiles, name + _TILED) for name in taken],
            [name if name in self._outputs else name + _GIVEN for name in given],
            name=made[-1] + _TILED,
            body=self._body(members, taken, given, tiles[1:]),
            num_scan_inputs=len(taken),
        )
        self._replaced.update(chain.nodes)
        self._added.append(scan)

    def _body(self, members: list[onnx.NodeProto], taken: list[str], given: list[str], tile: Shape) -> onnx.GraphProto:
        """The chain for one tile. Single numbers are read from the graph around it."""
        inner = {name: f"{name}/tile" for name in [*taken, *(node.output[0] for node in members)]}
        nodes = []
        for member in members:
            node = onnx.NodeProto()
            node.CopyFrom(member)
            node.input[:] = [inner.get(name, name) for name in member.input]
            node.output[:] = [inner[name] for name in member.output]
            nodes.append(node)
        values = {
            name: onnx.helper.make_tensor_value_info(inner[name], self._types[name], tile) for name in (*taken, *given)
        }
        return onnx.helper.make_graph(nodes, "tile", [values[name] for name in taken], [values[name] for name in given])

    def _reshape(self, name: str, shape: Shape, reshaped: str) -> str:
        """The same elements in another shape, which copies nothing."""
        if (name, shape) not in self._reshaped:
            sizes = f"{reshaped}/shape"
            self._graph.initializer.append(
                onnx.helper.make_tensor(sizes, onnx.TensorProto.INT64, [len(shape)], list(shape))
            )
            self._added.append(onnx.helper.make_node("Reshape", [name, sizes], [reshaped], name=f"{reshaped}/Reshape"))
            self._reshaped[name, shape] = reshaped
        return self._reshaped[name, shape]


def _tensor_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    for constant in graph.initializer:
        value = onnx.helper.make_tensor_value_info(constant.name, constant.data_type, list(constant.dims))
        types[constant.name] = value.type.tensor_type
    return types


def _static_shape(tensor: onnx.TypeProto.Tensor) -> Shape | None:
    if not tensor.HasField("shape"):
        return None
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None


def _set_shape(value: onnx.ValueInfoProto, shape: Shape) -> None:
    tensor = value.type.tensor_type
    value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, tensor.elem_type, shape))


def _tiles(shape: Shape) -> Shape | None:
    """A shape for a row of tiles of the tensor, each of its rank; None where its size has no fitting divisor."""
    size = math.prod(shape)
    count = next((count for count in range(-(-size // _TILE), size // _SMALLEST_TILE + 1) if size % count == 0), None)
    return None if count is None else (count, *[1] * (len(shape) - 1), size // count)


def _rename(node: onnx.NodeProto, name: str, other: str) -> None:
    """Let a node, and its bodies, read another tensor."""
    node.input[:] = [other if read == name else read for read in node.input]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                _rename(inner, name, other)


def _in_order(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes with each behind those that it reads from, else in the order that they have."""
    nodes = list(nodes)
    producers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    waiting = [{producers[name] for name in read_names(node) if name in producers} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for place, before in enumerate(waiting):
        for other in before:
            readers[other].append(place)
    ready = [place for place, before in enumerate(waiting) if not before]
    ordered = []
    while ready:
        place = heapq.heappop(ready)
        ordered.append(nodes[place])
        for other in readers[place]:
            waiting[other].discard(place)
            if not waiting[other]:
                heapq.heappush(ready, other)
    return ordered
