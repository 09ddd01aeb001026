"""The prover itself is tested: each damage around the graph (objects, signatures, files) is found, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow.core.protobuf import fingerprint_pb2

from graphfreeze.selection.plan import Form
from tests.prover.mutant import FORMS, Make

pytestmark = pytest.mark.parametrize("form", FORMS)


def test_the_object_graph(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    concrete = model.meta.object_graph_def.concrete_functions
    name = next(name for name in sorted(concrete) if len(concrete[name].bound_inputs) == 3)
    bound = concrete[name].bound_inputs
    bound[0], bound[1] = bound[1], bound[0]
    model.failure("expected the object graph to stay as it is, found another concrete_functions")


def test_an_object(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    node = next(n for n in model.meta.object_graph_def.nodes if n.WhichOneof("kind") == "variable")
    node.variable.trainable = not node.variable.trainable
    model.failure("expected node .* of the object graph to stay as it is, found another variable")


def test_a_signature(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    model.meta.signature_def["serving_default"].method_name = "another"
    model.failure("expected signature 'serving_default' to stay as it is, found another method_name")


def test_a_signature_call(mutant: Make, form: Form) -> None:
    """Session loaders run the main graph: its calls must lead to the masked bodies, too."""
    model = mutant("shared", form)
    node = next(n for n in model.meta.graph_def.node if n.op == "StatefulPartitionedCall" and len(n.input) == 4)
    node.input[1], node.input[2] = node.input[2], node.input[1]
    details = model.failure("expected input 1 to be")
    assert details["function"] == "the main graph"


def test_the_saver(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    model.meta.saver_def.max_to_keep += 1
    model.failure("expected the meta graph to stay as it is, found another saver_def")


def test_the_versions(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    model.meta.graph_def.versions.producer += 1
    model.failure("expected the graph to stay as it is, found another versions")


@pytest.mark.parametrize("file", ["variables/variables.data-00000-of-00001", "variables/variables.index"])
def test_an_altered_checkpoint(mutant: Make, form: Form, file: str) -> None:
    model = mutant("shared", form)
    path = Path(model.rewritten / file)
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(bytes(content))
    details = model.failure("byte-identical to the original's, found a difference at byte 17")
    assert details == {"file": file, "offset": 17}


def test_missing_and_added_files(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    own = model.rewritten / "assets.extra" / "graphfreeze" / "plan.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    assert model.evidence()["proven"]
    shard = model.rewritten / "variables" / "variables.data-00000-of-00001"
    added = shard.rename(shard.with_name("another"))
    assert model.failure("found none in the rewritten model")["file"] == "variables/variables.data-00000-of-00001"
    shard.write_bytes(added.read_bytes() + b"more")
    model.failure("found the added file variables/another")
    added.unlink()
    model.failure("byte-identical")


def test_the_fingerprint(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    path = model.rewritten / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.checkpoint_hash += 1
    path.write_bytes(fingerprint.SerializeToString())
    assert model.failure("expected fingerprint.pb to keep checkpoint_hash")["field"] == "checkpoint_hash"
    path.write_bytes(b"\xff")
    model.failure("expected a FingerprintDef")
    # Older versions of TensorFlow hash otherwise, or not at all.
    fingerprint.version.producer += 1
    path.write_bytes(fingerprint.SerializeToString())
    assert model.evidence()["proven"]
    (model.original / "fingerprint.pb").unlink()
    assert model.evidence()["proven"]
