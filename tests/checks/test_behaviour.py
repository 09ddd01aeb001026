from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.checks.behaviour import check_behaviour
from graphfreeze.errors import CheckFailedError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import FreezePlan, Selection, resolve_plan

from .conftest import Exported

Model = Callable[[str], Exported]


def compare(model: Exported, rewritten: FreezePlan, expected: FreezePlan, **options: Any) -> list[dict[str, Any]]:
    """Rewrite by one plan, and check against another."""
    return check_behaviour(model.path, model.rewrite(rewritten), model.model.variables, expected, **options)


def failure(model: Exported, rewritten: FreezePlan, expected: FreezePlan) -> tuple[str, list[dict[str, Any]]]:
    with pytest.raises(CheckFailedError) as caught:
        compare(model, rewritten, expected)
    assert caught.value.exit_code == 1
    return str(caught.value), caught.value.details["checks"]


def records(check: dict[str, Any], status: str) -> list[dict[str, Any]]:
    return [record for record in check["evidence"]["compared"] if record["status"] == status]


@pytest.mark.parametrize("name", ["mlp", "embedding"])
def test_a_right_rewrite_passes(exported: Model, name: str) -> None:
    model = exported(name)
    checks = compare(model, model.plan(), model.plan())
    assert [check["passed"] for check in checks] == [True, True]
    for check in checks:
        compared = check["evidence"]["compared"]
        assert {record["endpoint"] for record in compared} >= {model.sample.endpoint, "serving_default"}
        assert records(check, "equal") == compared
    frozen = [record for record in checks[1]["evidence"]["compared"] if record["frozen_elements"]]
    assert {record["frozen_elements"] for record in frozen} == {model.plan().variables[0].frozen_elements}


def test_another_value_is_frozen_at(exported: Model) -> None:
    model = exported("mlp")
    plan = model.plan("**/hidden/kernel[:, 0] := 0.5", "**/scores/bias[0] := 2")
    assert all(check["passed"] for check in compare(model, plan, plan))


def test_one_unit_in_the_last_place_is_caught(exported: Model) -> None:
    model = exported("mlp")
    plan = model.plan()
    (frozen,) = plan.variables
    value = frozen.value.copy()
    largest = np.unravel_index(np.argmax(np.abs(value)), value.shape)
    value[largest] = np.nextafter(value[largest], np.float32(0))
    message, checks = failure(model, FreezePlan((replace(frozen, value=value),)), plan)
    assert "'output_0' of the endpoint" in message
    assert [check["passed"] for check in checks] == [False, False]
    differing = records(checks[0], "differs")
    assert {record["endpoint"] for record in differing} == {"serve", "train", "serving_default"}
    assert all(0 < record["largest_difference"] < 1e-6 for record in differing)


def test_a_leaking_gradient_is_caught(exported: Model) -> None:
    model = exported("mlp")
    message, checks = failure(model, model.plan("**/hidden/kernel[1:, 0:2]"), model.plan("**/hidden/kernel[:, 0:2]"))
    assert "'net/hidden/kernel' of the endpoint" in message
    assert "differs in 2 elements" in message
    assert [check["passed"] for check in checks] == [True, False]
    assert {record["tensor"] for record in records(checks[1], "differs")} == {"net/hidden/kernel"}


def test_a_gradient_that_is_cut_off_is_caught(exported: Model) -> None:
    model = exported("mlp")
    message, checks = failure(model, model.plan("**/hidden/kernel[:, 0:3]"), model.plan("**/hidden/kernel[:, 0:2]"))
    assert "'net/hidden/kernel'" in message
    assert checks[0]["passed"]


def test_variables_outside_the_plan_are_compared(exported: Model) -> None:
    model = exported("mlp")
    both = model.plan("**/hidden/kernel[:, 0:2]", "**/scores/bias[0]")
    message, _ = failure(model, both, model.plan())
    assert "'net/scores/bias' of the endpoint" in message
    assert "differs in 1 elements" in message


def test_given_data_are_used(exported: Model) -> None:
    model = exported("cnn")
    blank = {"x": np.zeros((3, 8, 8, 2), np.float32)}
    checks = compare(model, model.plan(), model.plan(), data=blank)
    assert {record["elements"] for record in checks[0]["evidence"]["compared"]} == {3 * 3}


# -- endpoints that say little or nothing


class Peculiar(tf.Module):
    """Endpoints of which each is out of the ordinary."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.eye(3) + 0.1, name="w")

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def clock(self, x: Any) -> Any:
        return tf.matmul(x, self.w) + tf.cast(tf.timestamp() % 1000, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def picky(self, x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_greater(x, 1e6)]):
            return tf.matmul(x, self.w)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.float32, name="x")])
    def any_length(self, x: Any) -> Any:
        return tf.matmul(tf.reduce_sum(x, 1), self.w)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string, name="text")])
    def text(self, text: Any) -> Any:
        return tf.strings.to_number(text) * self.w

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def without_gradient(self, x: Any) -> Any:
        return tf.matmul(x, tf.math.real(tf.raw_ops.MatrixLogarithm(input=tf.cast(self.w, tf.complex64))))


@pytest.fixture(scope="module")
def peculiar(tmp_path_factory: pytest.TempPathFactory) -> tuple[SavedModel, FreezePlan, Path]:
    directory = tmp_path_factory.mktemp("peculiar")
    tf.saved_model.save(Peculiar(), str(directory / "model"))
    model = SavedModel.load(directory / "model")
    plan = resolve_plan([Selection("freeze", "w[0]")], model, form="auto", only_in=())
    write(freeze_reads(model, plan), directory / "rewritten")
    return model, plan, directory / "rewritten"


def test_peculiar_endpoints_are_reported(peculiar: tuple[SavedModel, FreezePlan, Path]) -> None:
    model, plan, rewritten = peculiar
    outputs, gradients = check_behaviour(model.directory, rewritten, model.variables, plan)
    assert outputs["passed"]
    assert gradients["passed"]
    statuses = {record["endpoint"]: record["status"] for record in outputs["evidence"]["compared"]}
    assert statuses == {"clock": "not repeatable", "without_gradient": "equal", "any_length": "equal"}
    skipped = {entry["endpoint"]: entry["reason"] for entry in outputs["evidence"]["skipped"]}
    assert skipped.keys() == {"picky", "text"}
    assert "fails on random inputs" in skipped["picky"]
    assert "no random values" in skipped["text"]
    assert "that the original itself does not repeat" in outputs["message"]
    reasons = {entry["endpoint"]: entry["reason"] for entry in gradients["evidence"]["skipped"]}
    assert "MatrixLogarithm" in reasons["without_gradient"]


def test_a_leak_is_caught_where_gradients_do_not_repeat(
    peculiar: tuple[SavedModel, FreezePlan, Path], tmp_path: Path
) -> None:
    model, plan, _ = peculiar
    other = resolve_plan([Selection("freeze", "w[1]")], model, form="auto", only_in=())
    write(freeze_reads(model, other), tmp_path / "rewritten")
    with pytest.raises(CheckFailedError) as caught:
        check_behaviour(model.directory, tmp_path / "rewritten", model.variables, plan)
    differing = records(caught.value.details["checks"][1], "differs")
    assert "clock" in {record["endpoint"] for record in differing}
