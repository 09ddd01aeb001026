"""Recognise the masked reads among the nodes that the rewritten model has more than the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from tensorflow.core.framework import node_def_pb2, types_pb2

from graphfreeze.prover.constants import Array, broadcasts, check_mask, check_value, decode, place_of
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, Tensor, entered_by, integer_attr
from graphfreeze.prover.messages import dtype_name
from graphfreeze.prover.targets import Target

__all__ = ["MaskedReads", "RawRead"]

OUTPUTS = {
    "Mul": "z",
    "AddV2": "z",
    "StopGradient": "output",
    "SelectV2": "output",
    "Const": "output",
    "GatherV2": "output",
    "GatherNd": "output",
}
"""The operations of a masked read, and the name of their one output inside a function."""


@dataclass(frozen=True)
class RawRead:
    """A tensor with unmasked elements of a targeted variable.

    Attributes:
        node: The node that makes it, in the rewritten model: a read, or a GatherV2 right behind a ReadVariableOp; or
            an added Identity that reads a reference.
        target: The variable.
        of: The reference, or the read of one, that an added Identity takes; None for all others.
    """

    node: node_def_pb2.NodeDef
    target: Target
    of: Tensor | None = None

    @property
    def gathers(self) -> bool:
        """Whether it holds gathered elements instead of the whole variable."""
        return str(self.node.op) not in ("ReadVariableOp", "Identity")

    @property
    def batch_dims(self) -> int:
        """How many leading axes are batch axes; a resource gather's axis equals it."""
        return integer_attr(self.node, "batch_dims")


@dataclass(frozen=True)
class _Operand:
    """A constant operand of a masked read: its Const, and the gather between, if any."""

    const: node_def_pb2.NodeDef
    gather: node_def_pb2.NodeDef | None
    stops_gradient: bool


class MaskedReads:
    """The masked reads of one function body.

    Args:
        original: The body in the original model.
        rewritten: The body in the rewritten model.
        raws: The tensors to be masked, by tensor key.
    """

    def __init__(self, original: GraphView, rewritten: GraphView, raws: Mapping[tuple[str, int], RawRead]) -> None:
        self._view = rewritten
        self._original = original
        self._raws = raws
        self._devices = {node.device for node in original.nodes.values()} | {""}
        self._results: dict[str, Tensor] = {}
        self._checked: set[tuple[str, str, int]] = set()
        self.added = frozenset(name for name in rewritten.nodes if name not in original.nodes)
        self.accounted: set[str] = set()

    def raw_behind(self, text: str) -> Tensor:
        """Prove that a tensor of an added node is a masked read, and say of which raw tensor.

        Raises:
            VerificationError: It is none, or not the one that the plan asks for.
        """
        name = self._node(text).name
        if name not in self._results:
            self._results[name] = self._recognise(name)
        return self._results[name]

    def added_read(self, text: str) -> RawRead | None:
        """The added read behind a masked tensor; None where it masks a read of the original."""
        raw = self._raws[self.raw_behind(text).key]
        if raw.of is None:
            return None
        # Its control inputs are what the consumer waits for, which is proven there.
        plain = type(raw.node)()
        plain.CopyFrom(raw.node)
        del plain.input[1:]
        self._attributes(plain, {"T": raw.target.dtype}, raw)
        return raw

    def account_for_all(self) -> None:
        """Prove that every added node belongs to a masked read. A complete one that nobody consumes is harmless.

        Raises:
            VerificationError: An added node has another purpose.
        """
        consumed = {Tensor.parse(t.lstrip("^")).node for node in self._view.nodes.values() for t in node.input}
        for name in sorted(self.added - self.accounted):
            node = self._view.nodes[name]
            if node.op in ("AddV2", "SelectV2") and name not in consumed and name not in self._results:
                self._results[name] = self._recognise(name)
        left = sorted(self.added - self.accounted)
        if left:
            node = self._view.nodes[left[0]]
            refuse(
                f"expected every added node to belong to a masked read, found {len(left)} that do not, "
                f"the first of operation {node.op}",
                function=self._view.name,
                node=node.name,
                nodes=left,
            )

    def _fail(self, message: str, node: node_def_pb2.NodeDef, raw: RawRead | None = None) -> NoReturn:
        refuse(message, variable=raw.target.name if raw else None, function=self._view.name, node=node.name)

    def _node(self, text: str) -> node_def_pb2.NodeDef:
        """The added node that makes a tensor, with the output's name checked."""
        tensor = Tensor.parse(text)
        node = self._view.nodes[tensor.node]
        expected = OUTPUTS.get(node.op, "") if self._view.definition is not None else ""
        if node.op not in OUTPUTS or tensor.position != 0 or tensor.output not in ("", expected):
            self._fail(f"expected a masked read, found a consumer of {text!r} of the added operation {node.op}", node)
        return node

    def _is_added(self, text: str) -> bool:
        return Tensor.parse(text).node in self.added

    def _recognise(self, name: str) -> Tensor:
        node = self._view.nodes[name]
        if node.op == "SelectV2":
            return self._select(node)
        if node.op != "AddV2":
            self._fail(f"expected AddV2 or SelectV2 as the result of a masked read, found {node.op}", node)
        return self._blend(node)

    # The two forms.

    def _select(self, node: node_def_pb2.NodeDef) -> Tensor:
        if len(node.input) != 3:
            self._fail(f"expected SelectV2(mask, read, value), found {len(node.input)} inputs", node)
        mask, read, value = node.input
        raw = self._raw(read, node, "select")
        self._attributes(node, {"T": raw.target.dtype}, raw)
        self._operand(mask, raw, "mask", types_pb2.DT_BOOL)
        self._operand(value, raw, "value", raw.target.dtype)
        return Tensor.parse(read)

    def _blend(self, node: node_def_pb2.NodeDef) -> Tensor:
        products = [t for t in node.input if self._is_added(t) and self._node(t).op == "Mul"]
        values = [t for t in node.input if t not in products]
        if len(node.input) != 2 or len(products) != 1 or not self._is_added(values[0]):
            self._fail("expected AddV2(Mul(mask, read), StopGradient(value)), found other operands", node)
        product = self._node(products[0])
        reads = [t for t in product.input if not self._is_added(t) or Tensor.parse(t).key in self._raws]
        masks = [t for t in product.input if t not in reads]
        if len(product.input) != 2 or len(reads) != 1:
            self._fail("expected Mul(mask, read) with a constant mask, found other operands", product)
        raw = self._raw(reads[0], product, "blend")
        self._attributes(node, {"T": raw.target.dtype}, raw)
        self._attributes(product, {"T": raw.target.dtype}, raw)
        self._operand(masks[0], raw, "mask", raw.target.dtype)
        if not self._operand(values[0], raw, "value", raw.target.dtype).stops_gradient:
            self._fail("expected StopGradient on the frozen values of a blend, found none", node, raw)
        return Tensor.parse(reads[0])

    def _raw(self, text: str, node: node_def_pb2.NodeDef, form: str) -> RawRead:
        raw = self._raws.get(Tensor.parse(text).key)
        if raw is None:
            self._fail(f"expected only reads of the plan's variables to be masked, found {text!r} masked", node)
        if raw.target.frozen.form != form:
            self._fail(f"expected the form {raw.target.frozen.form}, found {form}", node, raw)
        return raw

    # The operands.

    def _operand(self, text: str, raw: RawRead, role: str, dtype: int) -> _Operand:
        operand = self._peel(text, raw, dtype)
        const = operand.const
        if role == "mask" and operand.stops_gradient:
            self._fail("expected no StopGradient on a mask, found one", const, raw)
        array = self._array(const, dtype, raw)
        shape = raw.target.shape
        if not broadcasts(array.shape, shape):
            self._fail(f"expected a {role} that broadcasts to {shape}, found shape {array.shape}", const, raw)
        if operand.gather is not None:
            self._check_gather(operand.gather, array.shape, raw, role)
        elif raw.gathers:
            # Without a gather of its own the constant must say the same for every index.
            free = 0 if raw.node.op == "ResourceGatherNd" else max(len(shape) - 1 - raw.batch_dims, 0)
            if array.ndim > free:
                self._fail(f"expected the {role} gathered with the read's indices, found it ungathered", const, raw)
        key = (const.name, role, raw.target.node_id)
        if key not in self._checked and not (role == "value" and self._is_own_value(const, array, raw)):
            check = check_mask if role == "mask" else check_value
            check(raw.target, array, self._view.name, const.name)
            self._checked.add(key)
        return operand

    def _is_own_value(self, const: node_def_pb2.NodeDef, array: Array, raw: RawRead) -> bool:
        """Whether a constant is the variable's own stored value, at which the plan says that it is frozen.

        That is proven by where the bytes lie: the shards are those of the original, byte for byte.
        """
        place = place_of(const.attr["value"].tensor)
        whole = raw.target.frozen.form == "select" and array.shape == raw.target.shape
        return whole and place is not None and place == raw.target.own_bytes

    def _peel(self, text: str, raw: RawRead, dtype: int) -> _Operand:
        gather: node_def_pb2.NodeDef | None = None
        stops_gradient = False
        while True:
            if not self._is_added(text):
                self._fail(f"expected a constant of its own in the masked read, found {text!r}", raw.node, raw)
            node = self._node(text)
            if node.op == "Const":
                return _Operand(node, gather, stops_gradient)
            if node.op == "StopGradient" and len(node.input) == 1 and not stops_gradient:
                stops_gradient = True
                self._attributes(node, {"T": dtype}, raw)
            elif node.op in ("GatherV2", "GatherNd") and len(node.input) >= 2 and gather is None:
                gather = node
                indices = raw.node.attr["Tindices"].type if "Tindices" in raw.node.attr else types_pb2.DT_INVALID
                types = {"Tparams": dtype, "Tindices": indices}
                if node.op == "GatherV2":
                    types["Taxis"] = node.attr["Taxis"].type if "Taxis" in node.attr else types_pb2.DT_INVALID
                self._attributes(node, types, raw)
            else:
                self._fail(f"expected a constant, its gather or StopGradient, found {node.op}", node, raw)
            text = node.input[0]

    def _array(self, const: node_def_pb2.NodeDef, dtype: int, raw: RawRead) -> Array:
        self._attributes(const, {"dtype": dtype}, raw)
        array = decode(const.attr["value"].tensor) if "value" in const.attr else None
        if array is None or const.attr["value"].tensor.dtype != dtype:
            self._fail(f"expected a constant of dtype {dtype_name(dtype)}, found none", const, raw)
        return array

    def _check_gather(self, gather: node_def_pb2.NodeDef, shape: tuple[int, ...], raw: RawRead, role: str) -> None:
        full = raw.target.shape
        if not raw.gathers:
            self._fail(f"expected the {role} as a whole behind ReadVariableOp, found it gathered", gather, raw)
        expected = "GatherNd" if raw.node.op == "ResourceGatherNd" else "GatherV2"
        if gather.op != expected:
            self._fail(f"expected the {role} to be gathered by {expected}, found {gather.op}", gather, raw)
        if gather.input[1] != raw.node.input[1]:
            self._fail(
                f"expected the {role} to be gathered with the read's indices {raw.node.input[1]!r}, "
                f"found {gather.input[1]!r}",
                gather,
                raw,
            )
        indexed = len(full)
        if expected == "GatherV2":
            self._check_axis(gather, raw, role)
            indexed = raw.batch_dims + 1
        if len(shape) != len(full) or shape[:indexed] != full[:indexed]:
            self._fail(
                f"expected a {role} of the variable's size {full} along the gathered axes, found shape {shape}",
                gather,
                raw,
            )

    def _check_axis(self, gather: node_def_pb2.NodeDef, raw: RawRead, role: str) -> None:
        batch_dims = integer_attr(gather, "batch_dims")
        axis: int | None = None
        if len(gather.input) == 3:
            node = self._view.nodes.get(Tensor.parse(gather.input[2]).node)
            if node is not None and node.op == "Const" and "value" in node.attr:
                array = decode(node.attr["value"].tensor)
                axis = int(array) if array is not None and array.ndim == 0 and array.dtype.kind == "i" else None
                if node.name in self.added:
                    self._attributes(node, {"dtype": gather.attr["Taxis"].type}, raw)
        if (axis, batch_dims) != (raw.batch_dims, raw.batch_dims):
            self._fail(
                f"expected the {role} to be gathered along axis {raw.batch_dims} with {raw.batch_dims} batch axes, "
                f"found axis {axis} with {batch_dims}",
                gather,
                raw,
            )

    def _attributes(self, node: node_def_pb2.NodeDef, types: Mapping[str, int], raw: RawRead) -> None:
        """Prove that an added node holds nothing but its operation, data inputs, these dtypes, and its value."""
        self.accounted.add(node.name)
        free = {"value"} if node.op == "Const" else {"batch_dims"} if node.op == "GatherV2" else set()
        if "_output_shapes" in node.attr and node.op in ("Mul", "AddV2", "SelectV2"):
            # A note on the raw read's shape, which masking keeps.
            shapes = raw.node.attr.get("_output_shapes")
            if shapes == node.attr["_output_shapes"]:
                free.add("_output_shapes")
        for name in node.attr:
            if name not in types and name not in free:
                self._fail(f"expected a plain {node.op} in the masked read, found the attribute {name!r}", node, raw)
        for name, dtype in types.items():
            found = node.attr[name].type if name in node.attr else types_pb2.DT_INVALID
            if found != dtype:
                self._fail(
                    f"expected {name}={dtype_name(dtype)}, found {dtype_name(found)}",
                    node,
                    raw,
                )
        known = {"name", "op", "input", "device", "attr"}
        extra = [field.name for field, _ in node.ListFields() if field.name not in known]
        # A constant is in a loop because it waits for what brought the variable there.
        frame = self._frame_of(raw) if node.op == "Const" else None
        inputs = [text for text in node.input if text != f"^{frame}"]
        if extra or node.device not in self._devices or any(text.startswith("^") for text in inputs):
            self._fail(f"expected a plain {node.op}, found control inputs, another device or {extra}", node, raw)
        if node.op == "Const" and inputs:
            self._fail("expected a constant without inputs, found some", node, raw)

    def _frame_of(self, raw: RawRead) -> str | None:
        node = raw.node
        if node.op == "GatherV2":
            node = self._view.nodes[Tensor.parse(node.input[0]).node]
        return entered_by(self._view, node.input[0])
