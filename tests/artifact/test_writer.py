from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphfreeze.artifact.constants import CONSTANTS_FILE, externalised
from graphfreeze.artifact.reader import read_artifact
from graphfreeze.artifact.tensors import TensorFile, write_tensors
from graphfreeze.artifact.writer import write_artifact
from graphfreeze.errors import ArtifactReadError, OutputError
from graphfreeze.selection.variable import numpy_dtype
from tests.artifact.toy import (
    PROJECTION,
    STATE,
    build_graphs,
    build_manifest,
    build_reference,
    random_batch,
    stored,
    write_toy,
)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (contents(write_toy(tmp_path / name)) for name in ("a", "b"))
    assert first == second
    assert len(first) == 10


def test_models_of_onnx_ir_and_onnx_give_the_same_bytes(tmp_path: Path) -> None:
    graphs = build_graphs()
    reference = build_reference(random_batch(6))
    for name, models in (("a", graphs), ("b", {key: ir.from_proto(model) for key, model in graphs.items()})):
        write_artifact(tmp_path / name, build_manifest(), models, stored(STATE), reference)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_large_constant_lies_once_in_the_shared_file(out: Path) -> None:
    offsets = set()
    for name in ("train_step", "gradients", "forward"):
        model = onnx.load(out / "training" / f"{name}.onnx", load_external_data=False)
        (external,) = (t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
        info = {entry.key: entry.value for entry in external.external_data}
        assert info["location"] == CONSTANTS_FILE
        offsets.add((info["offset"], info["length"]))
    assert offsets == {("0", str(PROJECTION.nbytes))}
    assert (out / "training" / CONSTANTS_FILE).read_bytes() == PROJECTION.tobytes()


def test_the_files_are_valid_onnx_with_the_constant_in_place(out: Path) -> None:
    for name in build_graphs():
        path = out / "training" / f"{name}.onnx"
        onnx.checker.check_model(path, full_check=True)
        values = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
        assert any(np.array_equal(v, PROJECTION) for v in values) == (name != "apply_gradients")


def test_every_node_has_a_name_of_its_own(out: Path) -> None:
    for name in build_graphs():
        names = [node.name for node in onnx.load(out / "training" / f"{name}.onnx").graph.node]
        assert all(names)
        assert len(set(names)) == len(names)


def _constants_model(*arrays: np.ndarray) -> ir.Model:
    """A graph with the arrays as initializers, the last of them inside a branch."""
    *outer, inner = [numpy_helper.from_array(a, f"c{i}") for i, a in enumerate(arrays)]
    output = helper.make_tensor_value_info("inner_out", inner.data_type, list(inner.dims))
    branch = helper.make_graph(
        [helper.make_node("Identity", [inner.name], ["inner_out"])], "branch", [], [output], [inner]
    )
    nodes = [helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)]
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", inner.data_type, list(inner.dims))
    return ir.from_proto(helper.make_model(helper.make_graph(nodes, "g", [condition], [y], outer)))


def test_constants_are_aligned_and_shared_by_content_and_the_model_is_left_alone(tmp_path: Path) -> None:
    small, large = np.arange(4, dtype=np.float32), np.arange(301, dtype=np.float32)
    huge = np.ones(1 << 18, np.float32)
    model = _constants_model(small, large, huge, large.view(np.int32).copy(), large + 1)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with externalised([model], tmp_path):
        external = [
            v.const_value
            for graph in model.graphs()
            for v in graph.initializers.values()
            if isinstance(v.const_value, ir.ExternalTensor)
        ]
        # The branch stands twice in the model: its constant is shared as well.
        assert [t.offset for t in external] == [0, 1 << 16, 0, (1 << 16) + huge.nbytes, (1 << 16) + huge.nbytes]
        np.testing.assert_array_equal(external[1].numpy(), huge)
        np.testing.assert_array_equal(external[2].numpy(), large.view(np.int32))
        np.testing.assert_array_equal(external[3].numpy(), large + 1)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_no_large_constant_no_file(tmp_path: Path) -> None:
    with externalised([_constants_model(np.zeros(256, np.float32))], tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_the_sizes_of_many_parts_can_be_read_when_a_session_infers_shapes(tmp_path: Path) -> None:
    sizes = np.ones(200, np.int64)
    whole = helper.make_tensor_value_info("x", TensorProto.FLOAT, [200])
    parts = [helper.make_tensor_value_info(f"part_{index}", TensorProto.FLOAT, [1]) for index in range(200)]
    split = helper.make_node("Split", ["x", "sizes"], [part.name for part in parts])
    graph = helper.make_graph([split], "g", [whole], parts, [numpy_helper.from_array(sizes, "sizes")])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    with externalised([model], tmp_path):
        ir.save(model, tmp_path / "split.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "split.onnx", providers=["CPUExecutionProvider"])
    assert [part.item() for part in session.run(None, {"x": np.arange(200, dtype=np.float32)})] == [*range(200)]


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float32", "float64", "int8", "int64", "uint32", "uint64", "bool"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_tensors_survive_the_file_with_shape_and_dtype(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    tensor = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(numpy_dtype(dtype))
    write_tensors(tmp_path / "t", {"a/b": tensor})
    found = TensorFile(tmp_path / "t")["a/b"]
    assert (found.dtype, found.shape, found.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())


def test_transposed_views_are_written_in_their_own_order(tmp_path: Path) -> None:
    view = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_tensors(tmp_path / "t", {"view": view, "big_endian": view.astype(">f4")})
    found = TensorFile(tmp_path / "t")
    np.testing.assert_array_equal(found["view"], view)
    np.testing.assert_array_equal(found["big_endian"], view)
    assert found["big_endian"].dtype == np.dtype("<f4")


def test_the_state_is_kept_bit_by_bit(out: Path) -> None:
    state = read_artifact(out).state
    assert set(state) == set(STATE)
    for name, value in stored(STATE).items():
        assert (state[name].dtype, state[name].shape) == (value.dtype, value.shape)
        assert state[name].tobytes() == value.tobytes()
    assert state["conv/kernel"].shape == (3, 2, 2, 2)


def test_arguments_that_contradict_the_manifest_are_refused(tmp_path: Path) -> None:
    graphs, reference = build_graphs(), build_reference(random_batch(6))
    state = stored(STATE)
    del graphs["gradients"].graph.output[-1]
    cases = [
        (graphs, state, reference, "gradients.onnx has the outputs"),
        (build_graphs(), {**state, "seed": state["seed"].astype(np.int64)}, reference, r"seed is int64\[2\]"),
        (build_graphs(), {**state, "extra": state["seed"]}, reference, "extra is in the state but not in the manifest"),
        (build_graphs(), STATE, reference, r"conv/kernel is float32\[2, 2, 2, 3\]"),
        (build_graphs(), state, {k: v for k, v in reference.items() if k != "noise/loss"}, "lacks noise/loss"),
    ]
    for models, values, expected, message in cases:
        with pytest.raises(OutputError, match=message):
            write_artifact(tmp_path / "out", build_manifest(), models, values, expected)
        assert not (tmp_path / "out").exists()


def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    manifest = build_manifest()
    twice = dataclasses.replace(manifest, state=(*manifest.state, manifest.state[1]))
    with pytest.raises(OutputError, match="conv/bias is listed twice"):
        write_artifact(tmp_path / "out", twice, build_graphs(), stored(STATE), build_reference(random_batch(6)))


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_artifact(
            tmp_path / "file" / "out", build_manifest(), build_graphs(), stored(STATE), build_reference(random_batch(6))
        )


def test_a_broken_tensor_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(ArtifactReadError, match="not a readable safetensors file"):
        TensorFile(tmp_path / "t")
    with pytest.raises(ArtifactReadError, match="is missing"):
        TensorFile(tmp_path / "u")
