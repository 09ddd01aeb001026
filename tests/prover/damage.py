"""Damage to one node after the other, and what of it the prover does not find."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tensorflow.core.framework import node_def_pb2

from graphfreeze.errors import VerificationError

__all__ = ["damaged", "surviving"]


def damaged(node: node_def_pb2.NodeDef, other: str) -> dict[str, node_def_pb2.NodeDef]:
    """Copies of a node with one thing changed in each. `other` is a tensor that the node could take as well."""
    copies: dict[str, node_def_pb2.NodeDef] = {}

    def copy(what: str) -> node_def_pb2.NodeDef:
        return copies.setdefault(what, node_def_pb2.NodeDef.FromString(node.SerializeToString()))

    copy("operation").op = "Abs"
    copy("device").device = "/device:CPU:7"
    copy("name").name += "_renamed"
    for position, text in enumerate(node.input):
        if text.split(":")[0] != other.split(":")[0]:
            copy(f"input {position}").input[position] = other
        copy(f"no input {position}").input.pop(position)
    for key in node.attr:
        copy(f"attribute {key}").attr[key].Clear()
        # A masked read need not repeat what it knows of shapes.
        if not (key == "_output_shapes" and "/graphfreeze/" in node.name):
            copy(f"no attribute {key}").attr.pop(key)
    return copies


def surviving(
    node: node_def_pb2.NodeDef, damages: Iterable[tuple[str, node_def_pb2.NodeDef]], prove: Callable[[], object]
) -> list[str]:
    """Put damaged copies in the place of a node, one at a time; returns those with which the proof does not fail."""
    whole = node_def_pb2.NodeDef.FromString(node.SerializeToString())
    found = []
    for what, damage in damages:
        node.CopyFrom(damage)
        try:
            prove()
        except VerificationError:
            continue
        finally:
            node.CopyFrom(whole)
        found.append(f"{what} of {node.op} {node.name}")
    return found
