"""The masked inputs of directions in one function body: all that computes with such a tensor takes it with zeros.

`SelectV2(mask, input, 0)`, where only a write of the tensor as it is takes what it took
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs
from graphfreeze.prover.influence import Beginning
from graphfreeze.prover.masked_read import MaskedReads
from graphfreeze.prover.update_nodes import Update, UpdateNodes
from graphfreeze.prover.writes import NORM, write_of

__all__ = ["MaskedDirections"]


class MaskedDirections:
    """The masked inputs of directions in one function body.

    Args:
        original: The body in the original model.
        rewritten: The body in the rewritten model.
        beginnings: The inputs, by node and position.
        reads: The masked reads; the nodes that mask inputs are accounted for there.
    """

    def __init__(
        self,
        original: GraphView,
        rewritten: GraphView,
        beginnings: Mapping[tuple[str, int], Beginning],
        reads: MaskedReads,
    ) -> None:
        self._original = original
        self._beginnings = beginnings
        self._nodes = UpdateNodes(original, rewritten, reads)

    @property
    def evidence(self) -> list[tuple[int, str, str]]:
        """Of each input: the object node of the variable, and the node that yields it with its operation."""
        found = ((begun.target.node_id, name) for (name, _), begun in self._beginnings.items())
        return [(variable, name, str(self._original.nodes[name].op)) for variable, name in found]

    def takes(self, node: node_def_pb2.NodeDef, position: int) -> bool:
        """Whether a node of the original computes with the input of a direction that it takes there."""
        inputs = data_inputs(node) if self._beginnings else []
        if position >= len(inputs) or Tensor.parse(inputs[position]).key not in self._beginnings:
            return False
        write = write_of(node)
        return write is None or position != write.value

    def masked(self, node: node_def_pb2.NodeDef, position: int, after: node_def_pb2.NodeDef) -> str:
        """Prove that such a node takes zeros at frozen elements.

        Args:
            node: The node in the original.
            position: Which of its inputs it is.
            after: The node in the rewritten model.

        Returns:
            The tensor that it takes elsewhere.

        Raises:
            VerificationError: It does not.
        """
        target, dtype = self._beginnings[Tensor.parse(node.input[position]).key]
        update = Update(after, NORM, (target,))
        kept = self._nodes.added(after.input[position], "SelectV2", "output", update)
        if kept is None or len(kept.input) != 3:
            self._nodes.fail(f"expected input {position}, of a direction, to be masked, found it unmasked", update)
        self._nodes.plain(kept, {"T": dtype}, update)
        mask, value, zero = kept.input
        self._nodes.prove_mask(mask, target, update)
        self._nodes.prove_unchanged(zero, target, update, 0.0, dtype)
        return str(value)
