"""SavedModels of TensorFlow 1: reference and resource variables, trained by the graph's own operations in a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze import Selection, UnsupportedError
from graphfreeze.errors import UnsupportedVariableUseError
from graphfreeze.pipeline.report import Report
from tests.passes.tf1_models import BATCH, OPTIMIZERS, Session, save_graph, save_model, v1

KINDS = pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
X = {"x": BATCH["x"]}

Graph = Callable[[bool], tuple[dict[str, Any], dict[str, Any]]]


def rewrite(model: Path, out: Path, *selectors: str, **options: Any) -> Report:
    selections = [Selection("freeze", text) for text in selectors]
    report: Report = graphfreeze.rewrite(model, out, selections, onnx=False, **options)
    assert graphfreeze.verify(model, out)["passed"]
    return report


def build(graph: Graph, path: Path, *, resource: bool = False) -> Path:
    return save_graph(path, lambda: graph(resource))


def variable(name: str, shape: list[int], resource: bool) -> Any:
    return v1.get_variable(name, shape, use_resource=resource)


def inputs() -> Any:
    return v1.placeholder(tf.float32, [None, 4], "x")


def minimize(y: Any, optimizer: str = "momentum") -> None:
    tf.group(OPTIMIZERS[optimizer]().minimize(v1.reduce_sum(v1.square(y - 1.0))), name="train")


@contextmanager
def branches_of_tensorflow_1() -> Iterator[None]:
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()


def columns_held(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    """Whether the first two columns of a matrix kept their bits, and the others moved."""
    same = before[name].view(np.uint32) == after[name].view(np.uint32)
    return bool(same[:, :2].all() and not same[:, 2:].any())


@KINDS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_elements_stay_in_storage_and_slots(tmp_path: Path, resource: bool, optimizer: str) -> None:
    # Slots that are not zero move what is stored, even without a gradient.
    model = save_model(tmp_path / "model", resource=resource, optimizer=optimizer, warm=2)
    checks = "full" if optimizer == "momentum" else "static"
    report = rewrite(model, tmp_path / "out", "m/w[:, 0:2]", "m/e[[1, 2]]", "m/b[0]", checks=checks)
    assert [v["name"] for v in report["variables"]] == ["m/b", "m/e", "m/w"]
    masks = {v["name"]: np.zeros(v["shape"], bool) for v in report["variables"]}
    masks["m/w"][:, 0:2] = masks["m/e"][[1, 2]] = masks["m/b"][0] = True
    with Session(model) as session:
        expected, before = session.run("y:0"), session.stored()
    with Session(tmp_path / "out" / "saved_model") as session:
        assert session.run("y:0").tobytes() == expected.tobytes()
        for _ in range(20):
            session.run("train")
        after = session.stored()
    held = [name for name in before if name[:3] in masks and before[name].shape == masks[name[:3]].shape]
    assert len(held) >= 3
    for name in held:
        same = before[name].view(np.uint32) == after[name].view(np.uint32)
        frozen = masks[name[:3]].copy()
        assert same[frozen].all(), name
        # The batch names no row 3 of the embedding.
        frozen[3:4] |= name[:3] == "m/e"
        assert not same[~frozen].any(), name


@KINDS
def test_trainable_elements_train_as_in_the_original_that_puts_frozen_ones_back(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource, warm=1)
    rewrite(model, tmp_path / "out", "m/w[:, 0:2] := 0.25", checks="static")
    with Session(tmp_path / "out" / "saved_model") as session:
        for _ in range(3):
            session.run("train")
        found, output = session.stored(), session.run("y:0")
    with Session(model) as session:
        start = session.stored()
        held = {n: start[n].copy() for n in ("m/w", "m/w/Momentum")}
        assign = session.assigner(["m/w", "m/w/Momentum"])
        for _ in range(3):
            now = session.stored()["m/w"]
            now[:, :2] = 0.25
            assign("m/w", now)
            session.run("train")
            for name, value in held.items():
                now = session.stored()[name]
                now[:, :2] = value[:, :2]
                assign(name, now)
        expected = session.stored()
        now = expected["m/w"].copy()
        now[:, :2] = 0.25
        assign("m/w", now)
        assert session.run("y:0").tobytes() == output.tobytes()
    assert {name: value.tobytes() for name, value in found.items()} == {n: v.tobytes() for n, v in expected.items()}


@KINDS
def test_savers_keep_seeing_what_is_stored(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "m/w := 7.0", checks="static")
    with Session(tmp_path / "out" / "saved_model") as session:
        stored = session.stored()["m/w"]
        assert not (stored == 7.0).any()
        own = session.run_saver(tmp_path / "own")
        new = session.save(tmp_path / "new")
    for prefix in (own, new):
        assert tf.train.load_checkpoint(prefix).get_tensor("m/w").tobytes() == stored.tobytes()


@KINDS
def test_the_loader_of_tensorflow_2(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "m/w[:, 0:2]", "m/e[0]", checks="static")
    batch = {name: tf.constant(value) for name, value in BATCH.items()}
    expected = tf.saved_model.load(str(model)).signatures["serving_default"](**batch)["y"]
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    with tf.GradientTape() as tape:
        y = loaded.signatures["serving_default"](**batch)["y"]
        loss = tf.reduce_sum(tf.square(y))
    assert y.numpy().tobytes() == expected.numpy().tobytes()
    if resource:
        variables = {v.name: v for v in loaded.variables}
        gradient = tf.convert_to_tensor(tape.gradient(loss, variables["m/w:0"])).numpy()
        assert not gradient[:, :2].any()
        assert gradient[:, 2:].all()


def branches(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w, u = inputs(), variable("w", [4, 3], resource), variable("u", [4, 3], resource)
    y = v1.cond(v1.placeholder_with_default(True, []), lambda: x @ w, lambda: x @ u)
    y = tf.identity(y, "y")
    minimize(y)
    return {"x": x}, {"y": y}


def old_branches(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        return branches(resource)


def loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 4], resource)
    y = v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), (0, x))[1]
    y = tf.identity(y, "y")
    minimize(y)
    return {"x": x}, {"y": y}


def old_loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        x, w = inputs(), variable("w", [4, 4], resource)
        read = tf.identity(w)
        y = v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ read)), (0, x))[1]
        y = tf.identity(y, "y")
        minimize(y)
    return {"x": x}, {"y": y}


def reads_in_a_loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        x, w, e = inputs(), variable("w", [4, 4], True), variable("e", [3, 4], True)

        def body(i: Any, a: Any) -> tuple[Any, Any]:
            inner = v1.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, b @ w.read_value()), (0, a))[1]
            return i + 1, tf.tanh(inner + tf.nn.embedding_lookup(e, i) + a @ w.read_value())

        y = tf.identity(v1.while_loop(lambda i, a: i < 3, body, (0, x))[1], "y")
        minimize(y)
    return {"x": x}, {"y": y}


def updates_in_a_loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        x, w = inputs(), variable("w", [4, 4], True)
        v1.train.get_or_create_global_step()

        def body(i: Any, a: Any) -> tuple[Any, Any]:
            gradient = tf.fill([4, 4], 0.1) + tf.reduce_sum(a @ w.read_value())
            step = tf.raw_ops.ResourceApplyGradientDescent(var=w.handle, alpha=0.1, delta=gradient)
            with v1.control_dependencies([step]):
                more = v1.assign_sub(w, tf.ones([4, 4]))
            with v1.control_dependencies([more]):
                return i + 1, tf.identity(a)

        tf.group(v1.while_loop(lambda i, a: i < 3, body, (0, x)), name="train")
    return {"x": x}, {"y": tf.identity(x @ w, "y")}


def calls(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w, u = inputs(), variable("w", [4, 3], True), variable("u", [4, 3], True)
    product = tf.function(lambda a, b: a @ b)
    y = tf.identity(product(x, w) + product(2.0 * x, u) + product(x, w), "y")
    minimize(y)
    return {"x": x}, {"y": y}


def averages(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 3], resource)
    y = tf.identity(x @ w, "y")
    step = OPTIMIZERS["momentum"]().minimize(v1.reduce_sum(v1.square(y - 1.0)))
    with v1.control_dependencies([step]), branches_of_tensorflow_1():
        tf.group(v1.train.ExponentialMovingAverage(0.5).apply([w]), name="train")
    return {"x": x}, {"y": y}


def clipping(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 3], resource)
    y = tf.identity(x @ w, "y")
    optimizer = OPTIMIZERS["momentum"]()
    gradients, variables = zip(*optimizer.compute_gradients(v1.reduce_sum(v1.square(y - 1.0))), strict=True)
    clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
    tf.group(optimizer.apply_gradients(zip(clipped, variables, strict=True)), name="train")
    return {"x": x}, {"y": y}


def assignments(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 3], resource)
    given = v1.placeholder_with_default(tf.ones([4, 3]), [4, 3])
    with v1.control_dependencies([v1.assign(w, given)]):
        by_rows = v1.scatter_add(w, [0, 1, 2, 3], tf.ones([4, 3]))
    with v1.control_dependencies([by_rows]):
        every = [[i, j] for i in range(4) for j in range(3)]
        by_elements = v1.scatter_nd_sub(w, every, tf.range(0.5, 12.5))
    with v1.control_dependencies([by_elements]):
        tf.group(v1.assign_add(w, tf.ones([4, 3])), v1.scatter_mul(w, [1], [[2.0, 2.0, 2.0]]), name="train")
    return {"x": x}, {"y": tf.identity(x @ w, "y")}


@KINDS
@pytest.mark.parametrize(
    "graph",
    [
        branches,
        old_branches,
        loop,
        old_loop,
        reads_in_a_loop,
        updates_in_a_loop,
        calls,
        averages,
        clipping,
        assignments,
    ],
)
def test_graphs(tmp_path: Path, graph: Graph, resource: bool) -> None:
    model = build(graph, tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "w[:, 0:2]")
    with Session(model) as session:
        expected, before = session.run("y:0", X), session.stored()
    with Session(tmp_path / "out" / "saved_model") as session:
        assert session.run("y:0", X).tobytes() == expected.tobytes()
        for _ in range(5):
            session.run("train", X)
        assert columns_held(before, session.stored(), "w")


@KINDS
def test_averages_follow_what_was_just_trained(tmp_path: Path, resource: bool) -> None:
    model = build(averages, tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "w[0, 0]", checks="static")
    after = []
    for path in (model, tmp_path / "out" / "saved_model"):
        with Session(path) as session:
            before = session.stored()
            session.run("train", X)
            after.append(session.stored())
    for found in after:
        w, average = found["w"], found["w/ExponentialMovingAverage"]
        np.testing.assert_allclose(average, (w + before["w"]) / 2, rtol=1e-5, atol=1e-6)
    for name in ("w", "w/ExponentialMovingAverage"):
        assert after[0][name][1:].tobytes() == after[1][name][1:].tobytes()
    assert after[1]["w"][0, 0] == before["w"][0, 0] == after[1]["w/ExponentialMovingAverage"][0, 0]


@KINDS
def test_values_of_references_without_a_read(tmp_path: Path, resource: bool) -> None:
    def counter(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x, w = inputs(), variable("w", [4, 3], resource)
        more = v1.assign_add(w, tf.ones([4, 3]))
        more = tf.identity(more) if resource else more
        with v1.control_dependencies([v1.assign_add(w, tf.ones([4, 3]))]):
            later = v1.get_default_graph().get_tensor_by_name("w:0") * 2.0 if not resource else w.read_value() * 2.0
        return {"x": x}, {"y": tf.identity(x @ later, "y"), "more": more, "w": w.read_value() if resource else w._ref()}

    model = build(counter, tmp_path / "model", resource=resource)
    report = rewrite(model, tmp_path / "out", "w[:, 0:2]")
    held = [check for check in report["checks"] if "own training steps" in check["name"]]
    assert held
    assert held[0]["passed"]
    with Session(tmp_path / "out" / "saved_model") as session:
        before = session.stored()["w"]
        outputs = session.outputs()
        first = session.run(outputs["more"], X)
        assert (first[:, :2] == before[:, :2]).all()
        np.testing.assert_allclose(first[:, 2], before[:, 2] + 1.0, rtol=1e-6)
        y = session.run(outputs["y"], X)
        effective = before.copy()
        effective[:, 2] += 2.0
        np.testing.assert_allclose(y, X["x"] @ (2.0 * effective), rtol=1e-5, atol=1e-5)
        assert (session.run(outputs["w"], X)[:, :2] == before[:, :2]).all()


@KINDS
def test_partitioned_variables(tmp_path: Path, resource: bool) -> None:
    def partitioned(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x = inputs()
        with v1.variable_scope("s", partitioner=v1.fixed_size_partitioner(2), use_resource=resource):
            w = v1.get_variable("w", [4, 3])
        y = tf.identity(x @ tf.convert_to_tensor(w), "y")
        minimize(y, "adam")
        return {"x": x}, {"y": y}

    model = build(partitioned, tmp_path / "model", resource=resource)
    listed = {v["name"]: v for v in graphfreeze.inspect(model)["variables"]}
    assert listed["s/w/part_1"]["object_path"] == "s/w:2,2:0,3"
    assert listed["s/w/part_1"]["shape"] == [2, 3]
    rewrite(model, tmp_path / "out", "s/w/part_1[:, 0:2] := 0.5")
    with Session(model) as session:
        before = session.stored()
    with Session(tmp_path / "out" / "saved_model") as session:
        for _ in range(5):
            session.run("train", X)
        after, expected = session.stored(), session.run("y:0", X)
        prefix = session.run_saver(tmp_path / "trained")
    assert columns_held(before, after, "s/w/part_1")
    assert (before["s/w/part_0"] != after["s/w/part_0"]).all()
    graphfreeze.fold(tmp_path / "out", tmp_path / "folded", state=prefix)
    with Session(tmp_path / "folded") as session:
        assert session.run("y:0", X).tobytes() == expected.tobytes()
        assert (session.stored()["s/w/part_1"][:, :2] == 0.5).all()
        session.run("train", X)


@KINDS
def test_fold_and_rewrite_again(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "first", "m/w[:, 0] := 2.0", checks="static")
    again = rewrite(tmp_path / "first" / "saved_model", tmp_path / "out", "m/w[:, 1]", checks="static")
    assert again["frozen_before"] == 4
    with Session(tmp_path / "out" / "saved_model") as session:
        for _ in range(5):
            session.run("train")
        trained, expected = session.stored(), session.run("y:0")
        prefix = session.save(tmp_path / "trained")
    graphfreeze.fold(tmp_path / "out", tmp_path / "folded", state=prefix)
    original = (model / "saved_model.pb").read_bytes()
    assert (tmp_path / "folded" / "saved_model.pb").read_bytes() == original
    with Session(tmp_path / "folded") as session:
        assert session.run("y:0").tobytes() == expected.tobytes()
        folded = session.stored()
    assert (folded["m/w"][:, 0] == 2.0).all()
    assert folded["m/e"].tobytes() == trained["m/e"].tobytes()


def test_a_training_step_on_onnxruntime(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", resource=True)
    selections = [Selection("freeze", "m/w[:, 0:2]"), Selection("freeze", "m/e[[1, 2]]")]
    report = graphfreeze.rewrite(model, tmp_path / "out", selections, loss="mse", optimizer="adam", checks="static")
    assert report["training"]["endpoint"] == "serving_default"
    assert graphfreeze.validate(tmp_path / "out", device="cpu")["passed"]
    reference = save_model(tmp_path / "reference", resource=False)
    with pytest.raises(UnsupportedError, match=r"the reference variable 'm/b' .* --no-onnx"):
        graphfreeze.rewrite(reference, tmp_path / "refused", selections, loss="mse")
    assert not (tmp_path / "refused").exists()


def test_refusals(tmp_path: Path) -> None:
    def taken(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x, w = inputs(), variable("w", [4, 3], False)
        y = tf.identity(x @ w, "y")
        minimize(y, "sgd")
        graph = v1.get_default_graph()
        (update,) = [op for op in graph.get_operations() if op.type == "ApplyGradientDescent"]
        return {"x": x}, {"y": y, "updated": tf.identity(update.outputs[0])}

    def either(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x, w, u = inputs(), variable("w", [4, 3], False), variable("u", [4, 3], False)
        one = tf.raw_ops.RefSelect(index=0, inputs=[w._ref(), u._ref()])
        return {"x": x}, {"y": tf.identity(x @ one, "y")}

    for graph, message in ((taken, "its output is taken before"), (either, "taken by RefSelect")):
        model = build(graph, tmp_path / graph.__name__)
        with pytest.raises(UnsupportedVariableUseError, match=message):
            rewrite(model, tmp_path / "out", "w")
    model = save_model(tmp_path / "model", resource=True)
    with pytest.raises(UnsupportedError, match="cannot be limited"):
        rewrite(model, tmp_path / "out", "m/w", only_in=["serving_default"])
    assert not (tmp_path / "out").exists()


@KINDS
def test_the_prover_finds_every_defect(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource, warm=1)
    rewrite(model, tmp_path / "out", "m/w[:, 0:2]", "m/e[[1, 2]]", "m/b[0]", checks="static")
    file = tmp_path / "out" / "saved_model" / "saved_model.pb"
    content = file.read_bytes()

    def fails(change: Callable[[dict[str, Any], Any], None]) -> None:
        proto = saved_model_pb2.SavedModel.FromString(content)
        graph = proto.meta_graphs[0].graph_def
        change({node.name: node for node in graph.node}, graph)
        file.write_bytes(proto.SerializeToString())
        with pytest.raises(graphfreeze.VerificationError):
            graphfreeze.verify(model, tmp_path / "out")

    def original_input(taker: str, position: int, replacement: str, nodes: dict[str, Any], graph: Any) -> None:
        assert "graphfreeze" in nodes[taker].input[position]
        nodes[taker].input[position] = replacement

    def wait_for_nothing(name: str, nodes: dict[str, Any], graph: Any) -> None:
        nodes[name].input.pop()

    def consumers(nodes: dict[str, Any], ending: str) -> list[tuple[Any, int]]:
        return [
            (node, position)
            for node in nodes.values()
            for position, text in enumerate(node.input)
            if text.split(":")[0].endswith(ending) and "/graphfreeze/" in text and "graphfreeze" not in node.name
        ]

    proto = saved_model_pb2.SavedModel.FromString(content)
    nodes = {node.name: node for node in proto.meta_graphs[0].graph_def.node}
    masked = [*consumers(nodes, "/add"), *consumers(nodes, "/select")]
    assert len(masked) >= 3
    for node, position in masked:
        # The raw read, behind the product of a blend.
        text = node.input[position].split(":")[0]
        raw = next(
            t
            for t in nodes[nodes[text].input[0].split(":")[0]].input
            if "/graphfreeze" not in t[1:] and t[:11] != "graphfreeze"
        )
        fails(partial(original_input, node.name, position, raw))
    for name, node in nodes.items():
        if name.startswith("graphfreeze") and node.op == "Const" and node.attr["value"].tensor.tensor_content:

            def flip(nodes: dict[str, Any], graph: Any, name: str = name) -> None:
                tensor = nodes[name].attr["value"].tensor
                tensor.tensor_content = bytes([tensor.tensor_content[0] ^ 1]) + tensor.tensor_content[1:]

            fails(flip)
    for name, node in nodes.items():
        if node.op == "NoOp" and name.endswith("/graphfreeze/done"):
            update = name.removesuffix("/graphfreeze/done")

            def wait_for_less(nodes: dict[str, Any], graph: Any, name: str = name, update: str = update) -> None:
                for other in nodes.values():
                    for position, text in enumerate(other.input):
                        if text == f"^{name}":
                            other.input[position] = f"^{update}"

            fails(wait_for_less)
            fails(partial(wait_for_nothing, name))

    def read_more(nodes: dict[str, Any], graph: Any) -> None:
        node = graph.node.add(name="leak", op="ReadVariableOp" if resource else "Identity")
        node.input.append("m/w")
        node.attr["dtype" if resource else "T"].type = 1

    fails(read_more)
    file.write_bytes(content)
    graphfreeze.verify(model, tmp_path / "out")
