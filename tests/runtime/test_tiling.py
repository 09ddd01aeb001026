"""Updates tile by tile have the bits of updates as a whole, whatever surrounds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import parser

from graphfreeze.runtime import Trainer, elementwise, tiling
from tests.artifact.toy import random_batch

HEADER = '<ir_version: 10, opset_import: ["" : 18]>\n'
ADAM = """
    change = Sub (gradient, momentum)
    some = Mul (change, rate)
    new_momentum = Add (momentum, some)
    step = Mul (new_momentum, learning_rate)
    root = Sqrt (velocity)
    divided = Div (step, root)
    moved = Sub (w, divided)
    new_w = Where (mask, moved, w)
"""


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "_LARGE", 24)
    monkeypatch.setattr(tiling, "_TILE", 12)
    monkeypatch.setattr(tiling, "_SMALLEST_TILE", 4)


def parse(graph: str) -> onnx.ModelProto:
    model: onnx.ModelProto = parser.parse_model(HEADER + graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def adam(*, outputs: str = "", more: str = "", shape: str = "4,3,2,3") -> onnx.ModelProto:
    tensors = ", ".join(f"float[{shape}] {name}" for name in ("w", "gradient", "momentum", "velocity"))
    return parse(
        f"step ({tensors}, bool[{shape}] mask, float[1,1,1,1] rate, float learning_rate)"
        f" => (float[{shape}] new_w, float[{shape}] new_momentum{outputs}) {{{ADAM}{more}}}"
    )


def values_for(model: onnx.ModelProto, batch: int = 5) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(0)
    values = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [size.dim_value or batch for size in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        values[value.name] = np.asarray(
            random.random(shape) > 0.5 if dtype == np.bool_ else random.random(shape), dtype
        )
    return values


def run(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, values_for(model)), strict=True))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Reshape"]


def assert_same_bits(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    onnx.checker.check_model(after, full_check=True)
    found = run(after)
    for name, expected in run(before).items():
        assert found[name].dtype == expected.dtype
        assert found[name].tobytes() == expected.tobytes(), name


def tile(model: onnx.ModelProto) -> onnx.ModelProto:
    tiled = onnx.ModelProto()
    tiled.CopyFrom(model)
    assert tiling.tile_updates(tiled)
    return tiled


def test_an_update_is_one_scan() -> None:
    model = adam()
    tiled = tile(model)
    assert operators(tiled) == ["Scan"]
    assert [[size.dim_value for size in o.type.tensor_type.shape.dim] for o in tiled.graph.output] == [
        [6, 1, 1, 1, 12]
    ] * 2
    assert_same_bits(model, tiled)


def test_results_that_something_else_reads_are_whole() -> None:
    model = adam(
        outputs=", float[3,2,3] row, float branch",
        more="""
            index = Constant <value_int: int = 2> ()
            row = Gather (new_w, index)
            square = Mul (new_momentum, new_momentum)
            some_axes = Constant <value_ints: ints = [0,1,2,3]> ()
            sum = ReduceSum <keepdims: int = 0> (divided, some_axes)
            yes = Constant <value: tensor = bool {1}> ()
            branch = If (yes) <
                then_branch: graph = yes () => (float then) {
                    then = ReduceSum <keepdims: int = 0> (square, some_axes)
                },
                else_branch: graph = no () => (float otherwise) { otherwise = Identity (sum) }
            >
        """,
    )
    tiled = tile(model)
    assert operators(tiled).count("Scan") == 1
    assert not {"Sub", "Sqrt", "Mul"} & set(operators(tiled))
    assert_same_bits(model, tiled)


def test_no_path_leads_out_of_a_scan_and_back_in() -> None:
    """A norm of the gradient stands between the gradient's mask and what is done with it."""
    tensors = ", ".join(f"float[4,3,2] {name}" for name in ("w", "gradient", "mask"))
    model = parse(f"""step ({tensors}, float one) => (float[4,3,2] new_w) {{
        negative = Neg (mask)
        kept = Neg (negative)
        masked = Mul (gradient, kept)
        square = Mul (masked, masked)
        axes = Constant <value_ints: ints = [0,1,2]> ()
        sum = ReduceSum (square, axes)
        norm = Sqrt (sum)
        clipped = Div (masked, norm)
        step = Mul (clipped, one)
        moved = Sub (w, step)
        new_w = Abs (moved)
    }}""")
    tiled = tile(model)
    assert operators(tiled).count("Scan") == 2
    assert_same_bits(model, tiled)


@pytest.mark.parametrize("shape", ["29", "31,1"])
def test_what_cannot_be_divided_stays(shape: str) -> None:
    model = parse(f"""step (float[{shape}] w, float[{shape}] g) => (float[{shape}] new_w) {{
        a = Mul (g, g)
        b = Sqrt (a)
        new_w = Sub (w, b)
    }}""")
    assert not tiling.tile_updates(model)


@pytest.mark.parametrize(
    "graph",
    [
        "step (float[N,24] w) => (float[N,24] y) { a = Mul (w, w) b = Sqrt (a) y = Neg (b) }",
        "step (float[4,2] w) => (float[4,2] y) { a = Mul (w, w) b = Sqrt (a) y = Neg (b) }",
        "step (float[4,8] w) => (float[4,8] y) { a = Mul (w, w) y = Neg (a) }",
        "step (float[4,8] w, float[8] r) => (float[4,8] y) { a = Mul (w, r) b = Add (a, r) y = Sub (b, r) }",
        "step (float[4,8] w) => (float[4,8] y) { a = Exp (w) b = Tanh (a) y = Exp (b) }",
    ],
    ids=["size unknown", "small", "two nodes", "rows that repeat", "other bits for a part"],
)
def test_other_graphs_stay(graph: str) -> None:
    model = parse(graph)
    before = model.SerializeToString(deterministic=True)
    assert not tiling.tile_updates(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_scan_takes_what_another_gives() -> None:
    """Also where the later one begins earlier in the graph, and what it takes is an output."""
    model = parse("""step (float[4,8] v, float[4,8] w) => (float[4,8] y, float[4,8] new_w) {
        early = Neg (v)
        a = Mul (w, w)
        b = Sqrt (a)
        y = Add (w, b)
        axes = Constant <value_ints: ints = [0,1]> ()
        sum = ReduceSum (b, axes)
        c = Mul (y, sum)
        d = Add (c, early)
        new_w = Sub (d, b)
    }""")
    tiled = tile(model)
    assert operators(tiled).count("Scan") == 2
    assert_same_bits(model, tiled)


def test_nodes_out_of_order_stay() -> None:
    model = adam()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert not tiling.tile_updates(model)


def test_two_updates_of_the_same_shape_are_two_scans() -> None:
    outputs = "float[6,8] new_v, float[6,8] new_w, float[6] rows"
    model = parse(f"""step (float[6,8] v, float[6,8] w, float[6,8] g) => ({outputs}) {{
        a = Mul (v, v)
        b = Sqrt (a)
        new_v = Sub (v, b)
        axis = Constant <value_ints: ints = [1]> ()
        rows = ReduceSum <keepdims: int = 0> (new_v, axis)
        c = Mul (w, g)
        d = Abs (c)
        new_w = Sub (w, d)
    }}""")
    tiled = tile(model)
    assert operators(tiled).count("Scan") == 2
    assert_same_bits(model, tiled)


def test_a_trainer_gives_the_bits_of_whole_updates(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiled: list[bool] = []
    tile_updates = tiling.tile_updates

    def note(model: onnx.ModelProto) -> bool:
        tiled.append(tile_updates(model))
        return tiled[-1]

    monkeypatch.setattr(tiling, "tile_updates", note)
    states, losses = [], []
    for large in (1 << 20, 4):
        monkeypatch.setattr(elementwise, "_LARGE", large)
        monkeypatch.setattr(tiling, "_TILE", 6)
        monkeypatch.setattr(tiling, "_SMALLEST_TILE", 2)
        trainer = Trainer(out, device="cpu")
        losses.append([trainer.step(random_batch(4 + step % 2, step)) for step in range(5)])
        states.append({name: (array.shape, array.tobytes()) for name, array in trainer.state_dict().items()})
    assert tiled == [False, True]
    assert losses[0] == losses[1]
    assert states[0] == states[1]
