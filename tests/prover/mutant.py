"""A rewritten model that a test damages before the prover sees it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.prover import prove
from graphfreeze.selection.plan import Form, FreezePlan

__all__ = ["FORMS", "Make", "Masked", "Mutant", "const_of", "flip", "redirect"]

FORMS: tuple[Form, ...] = ("blend", "select")


@dataclass
class Masked:
    """One masked read of the rewritten model, found through the prover's evidence.

    Attributes:
        function: The function that holds it.
        read: The node whose output is masked.
        first: The Mul or SelectV2 that takes it.
        result: The AddV2, or the SelectV2 again.
    """

    function: function_pb2.FunctionDef
    read: node_def_pb2.NodeDef
    first: node_def_pb2.NodeDef
    result: node_def_pb2.NodeDef

    def node(self, tensor: str) -> node_def_pb2.NodeDef:
        """The node of the function that makes a tensor."""
        return next(node for node in self.function.node_def if node.name == tensor.split(":")[0])

    @property
    def mask(self) -> node_def_pb2.NodeDef:
        """The mask's operand: a Const, or its gather."""
        return self.node(self.first.input[0])

    @property
    def value(self) -> node_def_pb2.NodeDef:
        """The frozen values' operand: a Const, its gather, or StopGradient of either."""
        return self.node(self.result.input[-1])

    def consumers(self, tensor_of: node_def_pb2.NodeDef) -> list[tuple[node_def_pb2.NodeDef, int]]:
        """Who takes the output of a node, and at which input."""
        return [
            (node, position)
            for node in self.function.node_def
            for position, text in enumerate(node.input)
            if text.split(":")[0] == tensor_of.name
        ]

    def raw_tensor(self) -> str:
        """The unmasked tensor."""
        return next(str(text) for text in self.first.input if text.split(":")[0] == self.read.name)


@dataclass
class Mutant:
    """Copies of an original and its rewritten model, with the plan.

    Attributes:
        original: The original's directory.
        rewritten: The rewritten model's directory.
        plan: The plan that it was rewritten by.
        proto: The rewritten model's graph; `failure` writes it before it proves.
    """

    original: Path
    rewritten: Path
    plan: FreezePlan
    proto: saved_model_pb2.SavedModel

    @classmethod
    def copy(cls, original: Path, rewritten: Path, plan: FreezePlan, into: Path) -> Self:
        """Copy both models."""
        before, after = shutil.copytree(original, into / "original"), shutil.copytree(rewritten, into / "rewritten")
        return cls(Path(before), Path(after), plan, _load(rewritten))

    @property
    def meta(self) -> meta_graph_pb2.MetaGraphDef:
        """The rewritten meta graph."""
        return self.proto.meta_graphs[0]

    def function(self, name: str) -> function_pb2.FunctionDef:
        """A function of the rewritten model."""
        return next(f for f in self.meta.graph_def.library.function if f.signature.name == name)

    def evidence(self) -> dict[str, Any]:
        """The proof of the model as it is on disk."""
        return prove(self.original, self.rewritten, self.plan)

    def masked(self, path: str | None = None, operation: str | None = None) -> list[Masked]:
        """The masked reads of a variable, by object path, or of all."""
        found = [
            self._masked(read["function"], read["node"])
            for variable in self.evidence()["variables"]
            for read in variable["masked_reads"]
            if path in (None, variable["object_path"]) and operation in (None, read["operation"])
        ]
        assert found, f"no masked read of {path} by {operation}"
        return found

    def _masked(self, function: str, node: str) -> Masked:
        body = self.function(function)
        read = next(n for n in body.node_def if n.name == node)
        masked = Masked(body, read, read, read)
        operations = [n for n, _ in masked.consumers(read) if n.op in ("Mul", "SelectV2") and "graphfreeze" in n.name]
        masked.first = masked.result = operations[0]
        if masked.first.op == "Mul":
            masked.result = masked.consumers(masked.first)[0][0]
        return masked

    def edit_both(self) -> list[meta_graph_pb2.MetaGraphDef]:
        """The meta graphs of the original and the rewritten model, to be changed alike; the first is saved on proof."""
        self._original_proto = _load(self.original)
        return [self._original_proto.meta_graphs[0], self.meta]

    def save(self) -> None:
        """Write what was changed."""
        (self.rewritten / "saved_model.pb").write_bytes(self.proto.SerializeToString(deterministic=True))
        before = getattr(self, "_original_proto", None)
        if before is not None:
            (self.original / "saved_model.pb").write_bytes(before.SerializeToString(deterministic=True))

    def failure(self, match: str) -> dict[str, Any]:
        """Save, expect the proof to fail with that message, and return the error's details."""
        self.save()
        with pytest.raises(VerificationError, match=match) as caught:
            prove(self.original, self.rewritten, self.plan)
        return caught.value.details


Make = Callable[[str, Form], Mutant]
"""What the fixture `mutant` is: model name and form -> a copy that a test may change."""


def redirect(masked: Masked, to: str) -> str:
    """Let the first consumer of a masked read take another tensor; returns the consumer's name."""
    node, position = masked.consumers(masked.result)[0]
    node.input[position] = to
    return str(node.name)


def const_of(masked: Masked, node: node_def_pb2.NodeDef) -> node_def_pb2.NodeDef:
    """The Const behind gathers and StopGradient."""
    while node.op != "Const":
        node = masked.node(node.input[0])
    return node


def flip(const: node_def_pb2.NodeDef, byte: int, bit: int = 0) -> None:
    """Flip one bit of a constant."""
    tensor = const.attr["value"].tensor
    content = bytearray(tensor.tensor_content)
    content[byte] ^= 1 << bit
    tensor.tensor_content = bytes(content)


def _load(directory: Path) -> saved_model_pb2.SavedModel:
    return saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
