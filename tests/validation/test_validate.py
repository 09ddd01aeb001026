from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphfreeze.errors import ArtifactReadError, DataError, UsageError, ValidationError
from graphfreeze.runtime.cuda import why_no_cuda
from graphfreeze.validation import validate
from tests.artifact.toy import (
    MASK,
    PROJECTION,
    STATE,
    Mask,
    build_graphs,
    build_reference,
    expected_gradients,
    random_batch,
    stored,
    write_plan,
    write_toy,
)

CHECKS = [
    "loss equals TensorFlow's",
    "gradients equal TensorFlow's",
    "gradients of frozen elements are exactly zero",
    "frozen elements keep their bits",
    "trainable elements move",
    "train_step equals gradients and apply_gradients",
    "every node ran on the device",
]


def scaled(models: dict[str, onnx.ModelProto], output: str, factor: float, graphs: Iterable[str]) -> None:
    """Multiply an output of some graphs by a factor."""
    for name in graphs:
        graph = models[name].graph
        (node,) = (node for node in graph.node if output in node.output)
        node.output[list(node.output).index(output)] = "unscaled"
        graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
        graph.node.append(helper.make_node("Mul", ["unscaled", "factor"], [output]))


def with_one_more(mask: Mask, index: tuple[int, ...], value: bool) -> Mask:
    changed = mask.copy()
    changed[index] = value
    return changed


def failed_checks(out: Path) -> tuple[str, dict[str, str]]:
    """The message of the failed validation, and the failed checks with what they found."""
    with pytest.raises(ValidationError) as caught:
        validate(out, device="cpu")
    report = json.loads(json.dumps(caught.value.details))
    assert report["passed"] is False
    assert [check["name"] for check in report["checks"]] == CHECKS
    return str(caught.value), {check["name"]: check["message"] for check in report["checks"] if not check["passed"]}


def test_a_right_artifact_passes_with_evidence(out: Path) -> None:
    report = validate(out, device="cpu", steps=3)
    assert json.loads(json.dumps(report)) == report
    assert report["schema_version"] == 1
    assert report["passed"] is True
    assert report["message"] == "7 of 7 checks passed on cpu, over 2 gradients and 3 steps"
    assert [check["name"] for check in report["checks"]] == CHECKS
    assert all(check["passed"] for check in report["checks"])
    assert (report["device"], report["device_reason"], report["reference"]) == ("cpu", "requested", "stored")
    assert report["frozen_elements"] == 9 + PROJECTION.size
    assert report["loss"] == pytest.approx(float(expected_gradients(STATE, random_batch(6))["loss"]), rel=1e-6)
    assert report["losses"][0] == pytest.approx(report["loss"], rel=1e-6)
    assert len(report["losses"]) == report["steps"] == 3
    kernel, bias = report["parameters"]
    assert (kernel["name"], kernel["frozen_elements"], kernel["trainable_elements"], kernel["moved"]) == (
        "conv/kernel", 9, 15, 15
    )  # fmt: skip
    assert (bias["name"], bias["frozen_elements"], bias["moved"]) == ("conv/bias", 0, 3)
    for record in report["parameters"]:
        assert record["rule"] in ("exact", "rounding")
        assert record["error"] <= 1e-6 * record["scale"]
        assert 0 < record["noise"] < 1e-6 * record["scale"]
    assert set(report["placement"]) == {"train_step", "gradients", "apply_gradients", "forward"}
    assert report["placement"]["train_step"]["operators"]["CPUExecutionProvider"]["Where"] == 1
    assert {"tensorflow", "keras", "onnxruntime", "graphfreeze"} == set(report["versions"])


def test_a_gradient_that_is_one_percent_off_is_named_with_its_error(tmp_path: Path) -> None:
    graphs = build_graphs()
    scaled(graphs, "gradient/conv/bias", 1.01, ["gradients"])
    message, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert set(failed) == {"gradients equal TensorFlow's", "train_step equals gradients and apply_gradients"}
    difference = failed["gradients equal TensorFlow's"]
    found = re.match(r"conv/bias differs by ([\d.e-]+) where ([\d.e-]+) is allowed", difference)
    assert found is not None
    bias = expected_gradients(STATE, random_batch(6))["conv/bias"]
    assert float(found[1]) == pytest.approx(0.01 * np.abs(bias).max(), rel=1e-2)
    assert difference in message
    assert "conv/kernel" not in difference


def test_a_wrong_reference_is_as_bad(tmp_path: Path) -> None:
    reference = build_reference(random_batch(6))
    reference["gradient/conv/kernel"][0, 1, 1, 1] += 1e-2 * np.abs(reference["gradient/conv/kernel"]).max()
    _, failed = failed_checks(write_toy(tmp_path / "out", reference=reference))
    assert list(failed) == ["gradients equal TensorFlow's"]


def test_a_loss_that_is_off_is_found(tmp_path: Path) -> None:
    graphs = build_graphs()
    scaled(graphs, "loss", 1.001, ["train_step", "gradients"])
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert list(failed) == ["loss equals TensorFlow's"]
    assert "loss differs by" in failed["loss equals TensorFlow's"]


def test_a_gradient_at_a_frozen_element_is_found(tmp_path: Path) -> None:
    graphs = build_graphs(gradient_mask=with_one_more(MASK, (1, 0, 1, 1), True))
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert set(failed) == {"gradients equal TensorFlow's", "gradients of frozen elements are exactly zero"}
    found = failed["gradients of frozen elements are exactly zero"]
    assert found.startswith("conv/kernel: 1 of 9 frozen elements have a gradient, up to ")


def test_a_frozen_element_that_moves_is_found(tmp_path: Path) -> None:
    mask = with_one_more(MASK, (1, 0, 1, 1), True)
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=build_graphs(gradient_mask=mask, update_mask=mask)))
    assert failed["frozen elements keep their bits"] == (
        "1 frozen elements of conv/kernel do not have the bits of the plan after 1 steps"
    )


def test_a_trainable_element_that_the_step_holds_is_found(tmp_path: Path) -> None:
    graphs = build_graphs(update_mask=with_one_more(MASK, (1, 0, 1, 2), False))
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert list(failed) == ["trainable elements move"]
    assert "1 of 15 trainable elements of conv/kernel did not move" in failed["trainable elements move"]


def test_a_trainable_element_without_gradient_in_the_graphs_is_found(tmp_path: Path) -> None:
    graphs = build_graphs(gradient_mask=with_one_more(MASK, (1, 0, 1, 2), False))
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert list(failed) == ["gradients equal TensorFlow's"]


@pytest.mark.parametrize("index", [(1, 0, 1, 1), (1, 0, 1, 2)])
def test_a_flipped_mask_is_refused_by_count(out: Path, index: tuple[int, ...]) -> None:
    write_plan(out, with_one_more(MASK, index, not MASK[index]))
    with pytest.raises(ArtifactReadError, match=r"has (8|10) frozen elements in the plan, 9 in the manifest"):
        validate(out, device="cpu")


def test_exchanged_mask_elements_are_found(out: Path) -> None:
    mask = with_one_more(with_one_more(MASK, (1, 0, 1, 1), True), (1, 0, 1, 2), False)
    write_plan(out, mask)
    _, failed = failed_checks(out)
    assert set(failed) == {
        "gradients of frozen elements are exactly zero",
        "frozen elements keep their bits",
    }


def test_a_step_that_is_not_its_parts_is_found(tmp_path: Path) -> None:
    graphs = build_graphs()
    scaled(graphs, "new/momentum/conv/bias", 1.01, ["train_step"])
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert list(failed) == ["train_step equals gradients and apply_gradients"]
    assert "new/momentum/conv/bias differs by" in failed["train_step equals gradients and apply_gradients"]


def test_a_small_update_that_the_step_gets_wrong_is_found(tmp_path: Path) -> None:
    """A ten-thousandth of a parameter is much of its update."""
    graphs = build_graphs()
    scaled(graphs, "new/conv/bias", 1.00008, ["train_step"])
    _, failed = failed_checks(write_toy(tmp_path / "out", graphs=graphs))
    assert "new/conv/bias differs by" in failed["train_step equals gradients and apply_gradients"]


def test_a_flipped_byte_is_refused_before_anything_runs(out: Path) -> None:
    path = out / "training" / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)
    with pytest.raises(ArtifactReadError, match=r"state\.safetensors is corrupt"):
        validate(out, device="cpu")


def test_without_the_plan_nothing_is_claimed(out: Path) -> None:
    (out / "plan").rename(out / "elsewhere")
    with pytest.raises(ArtifactReadError, match="plan is missing, which says what is frozen"):
        validate(out, device="cpu")


def test_another_reference_may_be_given(out: Path) -> None:
    report = validate(out, device="cpu", reference=build_reference(random_batch(11, 5)))
    assert (report["reference"], report["examples"]) == ("given", 11)
    wrong = build_reference(random_batch(11, 5)) | {"loss": np.array(1, np.float32)}
    with pytest.raises(ValidationError, match="loss differs by"):
        validate(out, device="cpu", reference=wrong)
    del wrong["gradient/conv/bias"]
    with pytest.raises(DataError, match="the reference lacks gradient/conv/bias"):
        validate(out, device="cpu", reference=wrong)


def test_a_stored_batch_that_does_not_fit_is_a_corrupt_artifact(tmp_path: Path) -> None:
    reference = build_reference(random_batch(6))
    reference["batch/y"] = reference["batch/y"][:, 1:]
    out = write_toy(tmp_path / "out", reference=reference)
    with pytest.raises(
        ArtifactReadError, match=r"The reference batch of .* is not what its manifest says: y has the shape"
    ):
        validate(out, device="cpu")
    with pytest.raises(DataError, match="y has the shape"):
        validate(out, device="cpu", reference=reference)


def test_outputs_in_the_reference_are_compared_too(out: Path) -> None:
    batch = random_batch(6)
    z = batch["image"].reshape(6, 8) @ STATE["conv/kernel"].reshape(8, 3) + STATE["conv/bias"] + STATE["conv/offset"]
    reference = build_reference(batch) | {"output/prediction": z @ PROJECTION}
    names = [check["name"] for check in validate(out, device="cpu", reference=reference)["checks"]]
    assert "outputs equal TensorFlow's" in names
    reference["output/prediction"][2, 5] += 0.1
    with pytest.raises(ValidationError, match=r"output/prediction differs by 0\.1 "):
        validate(out, device="cpu", reference=reference)


def test_elements_that_cannot_move_are_explained(tmp_path: Path) -> None:
    """A gradient of zero (an input that is always zero), and an update far below the value's last place."""
    batch = random_batch(6)
    batch["image"][:, 1, 1, 1] = 0
    out = write_toy(tmp_path / "out", reference=build_reference(batch))
    kernel, _ = validate(out, device="cpu")["parameters"]
    assert (kernel["moved"], kernel["not_moved_zero_gradient"]) == (13, 2)

    graphs = build_graphs()
    bias = np.full(3, 1e12, np.float32)
    state = {**STATE, "conv/bias": bias, "conv/offset": -bias}
    reference = {f"batch/{name}": value for name, value in batch.items()}
    gradients = expected_gradients(state, batch)
    for name, value in stored(gradients).items():
        reference["loss" if name == "loss" else f"gradient/{name}"] = np.asarray(value, np.float32)
        reference[f"noise/{name}"] = np.zeros((), np.float32)
    out = write_toy(tmp_path / "large", graphs=graphs, reference=reference, state=state)
    _, moved = validate(out, device="cpu")["parameters"]
    assert (moved["moved"], moved["not_moved_rounded_away"], moved["stuck"]) == (0, 3, 0)


def test_cuda_is_demanded_or_refused_never_replaced(out: Path) -> None:
    missing = why_no_cuda()
    if missing is None:
        report = validate(out, device="cuda")
        assert report["device"] == "cuda"
        assert "CUDAExecutionProvider" in report["placement"]["train_step"]["kernels"]
    else:
        with pytest.raises(ValidationError, match="CUDA was demanded and cannot be used"):
            validate(out, device="cuda")


def test_no_steps_is_a_usage_error(out: Path) -> None:
    with pytest.raises(UsageError, match="steps must be 1 or more"):
        validate(out, steps=0)
