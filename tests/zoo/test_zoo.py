"""The whole product on models as Keras exports them: frozen elements keep their bits, everything else trains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf

from graphfreeze import fold
from graphfreeze.validation.tolerance import NOISE_FACTOR, compare, scale_of
from tests.zoo.data import Array
from tests.zoo.movement import FOLLOWED, Gradient, Movement, same_bits
from tests.zoo.onnxruntime_side import OnnxruntimeSide
from tests.zoo.rewriting import Rewritten, variables_of
from tests.zoo.tensorflow_side import TensorFlowSide

pytestmark = pytest.mark.zoo

STEPS = 20
BATCH_SIZE = 8
CHECKS = {
    "proof",
    "the rewritten model computes what the original computes",
    "gradients are the original's where trainable, zero where frozen",
    "single optimizer steps equal TensorFlow's",
    "validation",
}


def batches(rewritten: Rewritten) -> list[tuple[Array, Array]]:
    """Two batches in turn."""
    return [rewritten.model.batch(BATCH_SIZE, seed=step % 2) for step in range(STEPS)]


def _nodes(graph: Any) -> list[Any]:
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _nodes(attribute.g)
    return found


class ModelTests:
    """What must hold for every model."""

    model: str

    def test_what_is_frozen(self, rewritten: Rewritten) -> None:
        """The report counts what the selectors mean, and every check has passed."""
        counts = {v["name"]: v["frozen_elements"] for v in rewritten.report["variables"]}
        assert {name: count for name, count in counts.items() if count} == {
            name: np.count_nonzero(mask) for name, mask in rewritten.frozen.items()
        }
        assert all(check["passed"] for check in rewritten.report["checks"])
        assert {check["name"] for check in rewritten.report["checks"]} >= CHECKS

    def test_validates(self, rewritten: Rewritten) -> None:
        """Every gradient of the artifact is TensorFlow's, and exactly zero where it is frozen."""
        checks = {check["name"]: check for check in rewritten.report["checks"]}
        found = checks["validation"]["evidence"]
        assert found["passed"] and found["device"] == "cpu"
        assert all(parameter["passed"] and not parameter["frozen_not_zero"] for parameter in found["parameters"])
        wholly = [name for name, mask in rewritten.frozen.items() if mask.all()]
        assert len(found["parameters"]) == len(rewritten.trainable) - len(wholly)

    def test_graphs_are_standard(self, rewritten: Rewritten) -> None:
        """Every graph is ONNX as any runtime knows it."""
        paths = sorted((rewritten.out / "training").glob("*.onnx"))
        assert [path.stem for path in paths] == ["apply_gradients", "forward", "gradients", "train_step"]
        for path in paths:
            onnx.checker.check_model(str(path), full_check=True)
            model = onnx.load(str(path), load_external_data=False)
            onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
            assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
            assert not model.functions
            assert not [node.op_type for node in _nodes(model.graph) if node.domain]

    def test_trains_in_tensorflow(self, rewritten: Rewritten, tensorflow_side: TensorFlowSide) -> None:
        """With each optimizer the model computes with frozen values, wherever their storage has drifted to."""
        original = tf.saved_model.load(str(rewritten.original))
        inputs, _ = rewritten.model.batch(BATCH_SIZE, seed=9)
        for text in rewritten.model.optimizers:
            trained = tensorflow_side.train(text, batches(rewritten))
            assert np.isfinite(trained.losses).all(), text
            for name, variable in variables_of(original).items():
                variable.assign(trained.values[name])
            assert same_bits(tensorflow_side.serve(inputs), original.serve(inputs).numpy()).all()

    def test_trains_in_onnxruntime_and_folds(
        self, rewritten: Rewritten, tensorflow_side: TensorFlowSide, tmp_path: Path
    ) -> None:
        """What onnxruntime has trained is what TensorFlow serves, folded or not."""
        artifact = OnnxruntimeSide(rewritten.out)
        first = artifact.state()
        wholly = {name for name, mask in rewritten.frozen.items() if mask.all()}
        partly = {name: mask for name, mask in rewritten.frozen.items() if name not in wholly}
        movement = Movement(rewritten.model.optimizers[0], first, partly)
        for step, batch in enumerate(batches(rewritten)):
            expected, gradients = artifact.gradients(*batch) if step < FOLLOWED else (None, {})
            loss = artifact.step(*batch)
            last = artifact.state()
            if step < FOLLOWED:
                movement.step(last, {name: Gradient.of(gradient) for name, gradient in gradients.items()})
            assert np.isfinite(loss) and (expected is None or loss == pytest.approx(expected, rel=1e-5))
        movement.check(last)

        # What is wholly frozen is a constant of the graphs; of the rest the state itself keeps its bits.
        assert wholly.isdisjoint(first)
        assert {*wholly, *first} >= set(rewritten.trainable)
        assert all(same_bits(first[name], rewritten.initial[name]).all() for name in rewritten.trainable - wholly)

        artifact.trainer.save(tmp_path / "trained.safetensors")
        fold(rewritten.out, tmp_path / "deploy", state=tmp_path / "trained.safetensors")
        tensorflow_side.assign(tensorflow_side.initial | {n: last[n] for n in tensorflow_side.variables if n in last})
        inputs, _ = rewritten.model.batch(BATCH_SIZE, seed=9)
        deployed = tf.saved_model.load(str(tmp_path / "deploy"))
        assert same_bits(deployed.serve(inputs).numpy(), tensorflow_side.serve(inputs)).all()
        original_graph = (rewritten.original / "saved_model.pb").read_bytes()
        assert (tmp_path / "deploy" / "saved_model.pb").read_bytes() == original_graph

    def test_batch_sizes(self, rewritten: Rewritten, tensorflow_side: TensorFlowSide) -> None:
        """One artifact, any batch size: its gradients are TensorFlow's up to rounding.

        Where an input of relu is within rounding of zero, TensorFlow and onnxruntime may take different sides, and all
        gradients before it jump. That may happen to one batch, if gradients of TensorFlow itself jump as far.
        """
        artifact = OnnxruntimeSide(rewritten.out)
        at_kink = []
        for size in (1, 3, 9):
            batch = rewritten.model.batch(size, seed=size)
            expected_loss, expected = tensorflow_side.gradients(*batch)
            loss, gradients = artifact.gradients(*batch)
            assert loss == pytest.approx(expected_loss, rel=1e-4), size
            largest = max(scale_of(gradient) for gradient in expected.values())
            noise = tensorflow_side.noise(*batch)
            verdicts = {n: compare(g, expected[n], largest=largest, noise=noise[n]) for n, g in gradients.items()}
            print(f"batch size {size}: {Counter(verdict.rule for verdict in verdicts.values())}")
            errors = {name: verdict.error for name, verdict in verdicts.items() if not verdict.accepted}
            if errors:
                at_kink.append(size)
                jumps = tensorflow_side.noise(*batch, units=8, draws=8)
                assert not {n: error for n, error in errors.items() if error > NOISE_FACTOR * jumps[n]}, size
        assert len(at_kink) <= 1, at_kink


class TestMobileNetV2(ModelTests):
    model = "mobilenet_v2"


class TestResNet50(ModelTests):
    model = "resnet50"


class TestEfficientNetB0(ModelTests):
    model = "efficientnet_b0"


class TestLSTM(ModelTests):
    model = "lstm"


class TestGRU(ModelTests):
    model = "gru"


class TestTransformer(ModelTests):
    model = "transformer"


class TestPruned(ModelTests):
    model = "pruned"


class TestSequences(ModelTests):
    model = "sequences"


class TestConvolutions(ModelTests):
    model = "convolutions"


class TestTrainingMode(ModelTests):
    model = "training_mode"
