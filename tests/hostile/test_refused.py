"""Models made to do harm, one at a time: each is refused in one line, in little time and memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2

import graphfreeze
from graphfreeze.errors import GraphfreezeError, ModelReadError, UnsupportedError
from graphfreeze.savedmodel.checkpoint import Checkpoint

from .checkpoints import masked_crc, write_index

SHARD = Path("variables") / "variables.data-00000-of-00001"


class Lookup(tf.Module):
    """Two variables, a function that calls another one with them, and a table that reads an asset."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        self.a = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="a")
        self.b = tf.Variable([[5.0, 6.0], [7.0, 8.0]], name="b")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function
    def product(self, x: Any, v: Any, w: Any) -> Any:
        return tf.matmul(tf.matmul(x, v), w)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None], tf.string)])
    def serve(self, x: Any, words: Any) -> Any:
        return self.product(x, self.a, self.b) + tf.cast(self.table.lookup(words), tf.float32)[:, None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    (directory / "words.txt").write_text("one\ntwo\n")
    tf.saved_model.save(Lookup(directory / "words.txt"), str(directory / "model"))
    return directory / "model"


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(whole, tmp_path / "model")
    start = time.monotonic()
    yield tmp_path / "model"
    assert time.monotonic() - start < 60
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("secret", "out")) == ["model"]


def rewrite(model: Path, selector: str = "**") -> None:
    selection = graphfreeze.Selection("freeze", selector)
    graphfreeze.rewrite(model, model.parent / "out", [selection], onnx=False, checks="static")


def refused(model: Path, kind: type[GraphfreezeError] = ModelReadError, selector: str = "**") -> str:
    with pytest.raises(kind) as caught:
        rewrite(model, selector)
    assert "\n" not in str(caught.value)
    assert not (model.parent / "out").exists()
    return str(caught.value)


def change(model: Path, edit: Callable[[Any], None]) -> None:
    proto = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    edit(proto.meta_graphs[0])
    (model / "saved_model.pb").write_bytes(proto.SerializeToString())


def test_tables_and_assets_are_kept(model: Path) -> None:
    (model / "assets.extra").mkdir()
    (model / "assets.extra" / "notes.txt").write_text("mine")
    rewrite(model)
    out = model.parent / "out" / "saved_model"
    assert (out / "assets" / "words.txt").read_text() == "one\ntwo\n"
    assert (out / "assets.extra" / "notes.txt").read_text() == "mine"
    x, words = tf.constant([[1.0, -1.0]]), tf.constant(["two"])
    before, after = tf.saved_model.load(str(model)), tf.saved_model.load(str(out))
    np.testing.assert_array_equal(after.serve(x, words), before.serve(x, words))


# -- files


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "sub/../../secret", "..\\secret", "C:\\secret", ""])
def test_assets_elsewhere(model: Path, name: str) -> None:
    change(model, lambda graph: setattr(graph.asset_file_def[0], "filename", name))
    assert "is no path below" in refused(model)


def test_missing_assets(model: Path) -> None:
    (model / "assets" / "words.txt").unlink()
    assert "words.txt is missing" in refused(model)


def test_assets_that_no_list_has(model: Path) -> None:
    change(model, lambda graph: graph.asset_file_def.pop())
    assert "is asset 0 of 0" in refused(model)


@pytest.mark.parametrize("name", ["assets/words.txt", "assets.extra", "notes.txt"])
def test_links_to_elsewhere(model: Path, name: str) -> None:
    secret = model.parent / "secret"
    secret.write_text("a password\n")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    assert "symbolic link to what lies outside" in refused(model)


def test_links_to_folders(model: Path) -> None:
    (model / "again").symlink_to(model)
    assert "symbolic link to a folder" in refused(model)


def test_links_to_nowhere(model: Path) -> None:
    (model / "loop").symlink_to(model / "loop")
    assert "leads nowhere" in refused(model)


def test_pipes(model: Path) -> None:
    os.mkfifo(model / "pipe")
    assert "neither a file nor a folder" in refused(model)


def test_files_of_a_cache_of_models(model: Path) -> None:
    """Such caches keep the files elsewhere and link to them."""
    secret = model.parent / "secret"
    secret.mkdir()
    for name in ("saved_model.pb", "variables/variables.index", SHARD.as_posix()):
        kept = (model / name).rename(secret / name.replace("/", "_"))
        (model / name).symlink_to(kept)
    rewrite(model)
    assert not (model.parent / "out" / "saved_model" / SHARD).is_symlink()


# -- the checkpoint


def test_wrong_checksums(model: Path) -> None:
    content = bytearray((model / SHARD).read_bytes())
    content[1] ^= 1
    (model / SHARD).write_bytes(content)
    assert "Checksum does not match" in refused(model)


def entry(**fields: Any) -> tensor_bundle_pb2.BundleEntryProto:
    made = tensor_bundle_pb2.BundleEntryProto(**{"dtype": 1, "size": 16, "crc32c": masked_crc(bytes(16)), **fields})
    if not made.HasField("shape"):
        made.shape.dim.add(size=4)
    return made


def shape(*sizes: int, unknown_rank: bool = False) -> Any:
    return {"dim": [{"size": size} for size in sizes], "unknown_rank": unknown_rank}


ABSURD = {
    "huge": entry(shape=shape(2**40), size=2**42),
    "negative": entry(shape=shape(-4)),
    "overflow": entry(shape=shape(2**40, 2**40)),
    "overflow behind zero": entry(shape=shape(0, 2**62, 2**62), size=0),
    "rank": entry(shape=shape(*[1] * 300)),
    "no rank": entry(shape=shape(unknown_rank=True)),
    "dtype": entry(dtype=99),
    "no dtype": entry(dtype=0),
    "many texts": entry(dtype=7, shape=shape(2**28)),
    "many variants": entry(dtype=21, shape=shape(2**28)),
    "behind the end": entry(offset=8),
    "before the start": entry(offset=-8),
    "negative size": entry(size=-16),
    "too small": entry(size=8),
    "another shard": entry(shard_id=7),
    "parts of nothing": entry(shape=shape(2**40), size=0, slices=[{"extent": [{"start": 0, "length": 2**40}]}]),
    "parts outside": entry(size=0, slices=[{"extent": [{"start": 3, "length": 2}]}]),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_entries(tmp_path: Path, name: str) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / SHARD).write_bytes(bytes(16))
    write_index(tmp_path / "variables" / "variables.index", {"v": ABSURD[name]})
    with pytest.raises(ModelReadError, match=r"variables\.index cannot be read: its entry 'v'"):
        _ = Checkpoint(tmp_path).shapes


def test_good_entries(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / SHARD).write_bytes(bytes(16))
    write_index(tmp_path / "variables" / "variables.index", {"v": entry()})
    np.testing.assert_array_equal(Checkpoint(tmp_path).read("v"), np.zeros(4, np.float32))


# -- the graph


@pytest.mark.parametrize("selector", ["**", "a[0]", "a where w > 0"])
def test_absurd_shapes(model: Path, selector: str) -> None:
    def inflate(graph: Any) -> None:
        for node in graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "variable":
                node.variable.shape.dim[0].size = 2**40

    change(model, inflate)
    assert "but its value in" in refused(model, selector=selector)


def test_functions_that_call_themselves(model: Path) -> None:
    def recurse(graph: Any) -> None:
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if "f" in node.attr and len(node.input) == len(function.signature.input_arg):
                    node.attr["f"].func.name = function.signature.name

    change(model, recurse)
    assert "calls itself" in refused(model)


def test_contexts_without_number(model: Path) -> None:
    """Functions that hand ten variables on in two orders run with 10! orders of them, in the end."""
    names = [f"f{i}" for i in range(40)]

    def permute(graph: Any) -> None:
        library = graph.graph_def.library
        for name, callee in zip(names, [*names[1:], ""], strict=True):
            function = library.function.add()
            function.signature.name = name
            for i in range(10):
                function.signature.input_arg.add(name=f"x{i}", type=tf.resource.as_datatype_enum)
            for order in (range(10), [1, 0, *range(2, 10)], [*range(1, 10), 0]) if callee else ():
                node = function.node_def.add(name=f"call{len(function.node_def)}", op="StatefulPartitionedCall")
                node.input.extend(f"x{i}" for i in order)
                node.attr["f"].func.name = callee
        objects = graph.object_graph_def
        variable = next(n for n in objects.nodes if n.WhichOneof("kind") == "variable")
        first = len(objects.nodes)
        for i in range(10):
            objects.nodes[0].children.add(node_id=first + i, local_name=f"extra{i}")
            objects.nodes.add().CopyFrom(variable)
        objects.concrete_functions["f0"].bound_inputs.extend(range(first, first + 10))

    change(model, permute)
    assert "run with too many different variables" in str_of(lambda: graphfreeze.inspect(model))


def str_of(call: Callable[[], object]) -> str:
    with pytest.raises(UnsupportedError) as caught:
        call()
    return str(caught.value)


def test_objects_nested_without_end(model: Path) -> None:
    def nest(graph: Any) -> None:
        objects = graph.object_graph_def.nodes
        for _ in range(20000):
            parent = objects.add()
            parent.user_object.identifier = "_generic_user_object"
            parent.children.add(node_id=len(objects), local_name="child")
        objects.add().user_object.identifier = "_generic_user_object"
        objects[0].children.add(node_id=len(objects) - 20001, local_name="child")

    change(model, nest)
    assert "paths of its objects" in refused(model)


def test_garbage(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(np.random.default_rng(0).bytes(1 << 20))
    assert "not a SavedModel proto" in refused(model)


def two_handles(graph: Any) -> None:
    handles = [node.name for node in graph.graph_def.node if node.op == "VarHandleOp"]
    for node in graph.graph_def.node:
        if node.op == "StatefulPartitionedCall":
            for i, reference in enumerate(node.input):
                if reference in handles:
                    node.input[i] = handles[0]


def no_handle(graph: Any) -> None:
    for node in graph.graph_def.node:
        if node.op == "VarHandleOp":
            node.op = "Placeholder"


def other_dtype(graph: Any) -> None:
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "ReadVariableOp":
                node.attr["dtype"].type = tf.float64.as_datatype_enum


@pytest.mark.parametrize(
    ("edit", "reason"),
    [(two_handles, "stands for another variable"), (no_handle, "something else"), (other_dtype, "as another dtype")],
)
def test_variables_that_are_not_what_they_seem(model: Path, edit: Callable[[Any], None], reason: str) -> None:
    change(model, edit)
    assert reason in refused(model, UnsupportedError)


def without_name(graph: Any) -> None:
    graph.graph_def.library.function[0].node_def[0].name = "elsewhere"


def twice(graph: Any) -> None:
    function = next(f for f in graph.graph_def.library.function if f.node_def)
    function.node_def.add().CopyFrom(function.node_def[0])


def function_twice(graph: Any) -> None:
    graph.graph_def.library.function.add().CopyFrom(graph.graph_def.library.function[0])


def without_value(graph: Any) -> None:
    graph.graph_def.node[0].attr["nothing"].SetInParent()


def constant_without_dtype(graph: Any) -> None:
    next(node for node in graph.graph_def.node if node.op == "Const").attr.pop("dtype")


def call_without_function(graph: Any) -> None:
    next(node for node in graph.graph_def.node if node.op == "StatefulPartitionedCall").attr.pop("f")


def call_of_nothing(graph: Any) -> None:
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if "f" in node.attr:
                node.attr["f"].func.name = "missing"


def unknown_dtype(graph: Any) -> None:
    for node in graph.object_graph_def.nodes:
        if node.WhichOneof("kind") == "variable":
            node.variable.dtype = 77


@pytest.mark.parametrize(
    "edit",
    [
        without_name,
        twice,
        function_twice,
        without_value,
        constant_without_dtype,
        call_without_function,
        call_of_nothing,
        unknown_dtype,
    ],
)
def test_references_that_do_not_fit(model: Path, edit: Callable[[Any], None]) -> None:
    change(model, edit)
    assert "is corrupt" in refused(model)
