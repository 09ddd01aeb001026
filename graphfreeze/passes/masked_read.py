"""The nodes that replace a read of a targeted variable inside one function.

Around a ReadVariableOp `R` of variable `V`:

    blend     graphfreeze/V/mask          Const, in the variable's dtype: 1 trainable, 0 frozen
              graphfreeze/V/frozen        Const: the frozen values, -0.0 where trainable
              graphfreeze/V/stop_gradient StopGradient(frozen)
              R/graphfreeze/mul           Mul(mask, R)
              R/graphfreeze/add           AddV2(mul, stop_gradient)        replaces R
    select    graphfreeze/V/mask          Const, bool
              graphfreeze/V/frozen        Const: the frozen values
              R/graphfreeze/select        SelectV2(mask, R, frozen)        replaces R

Adding -0.0 changes no bit of any number. Around a gather `G` of rows, mask and frozen values are gathered with the
same indices (`G/graphfreeze/mask`, `G/graphfreeze/frozen`), so that gradients stay sparse. Constants are shared by all
reads of a variable in a function on one device, or in a loop of TensorFlow 1: there they wait for what brings the
variable into the loop, which brings them in too. Those that are too large for the graph are read from variables of
their own, of the same names, with a ReadVariableOp instead of the Const.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, node_def_pb2

from graphfreeze.passes.main_graph import FunctionLike, MainGraph
from graphfreeze.passes.size_budget import SizeBudget
from graphfreeze.passes.storage import StoredConstant, placeholder
from graphfreeze.selection.plan import FrozenVariable
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["MaskedReadBuilder", "scope"]

_INVALID = re.compile(r"[^A-Za-z0-9_.\-/]")
_NODE_OVERHEAD = 256


class MaskedReadBuilder:
    """Adds the nodes of masked reads to one function.

    Args:
        function: The function; nodes are appended to it.
        budget: What the graph may grow to.
    """

    def __init__(self, function: FunctionLike, budget: SizeBudget) -> None:
        self._function = function
        self._in_function = not isinstance(function, MainGraph)
        self._budget = budget
        self._names = {node.name for node in function.node_def}
        self._names.update(argument.name for argument in function.signature.input_arg)
        self._made_in: dict[str | None, dict[tuple[Any, ...], str]] = {}
        self.entered_by: str | None = None
        """The node by which what is to be masked entered a loop of TensorFlow 1: constants have to be in there too."""
        self.gathers: list[node_def_pb2.NodeDef] = []
        """The gathers that were added: their indices are tensors of the function."""

    @property
    def _made(self) -> dict[tuple[Any, ...], str]:
        """What can be shared in the present loop."""
        return self._made_in.setdefault(self.entered_by, {})

    def value(self, name: str, reference: str, controls: Iterable[str], device: str, frozen: FrozenVariable) -> str:
        """Add a read of a reference.

        Args:
            name: What takes the value.
            reference: The tensor that is the reference.
            controls: What the read waits for.
            device: Where it is.
            frozen: The variable.

        Returns:
            The tensor that the read yields, in need of masking.
        """
        inputs = [reference, *controls]
        return self._add("Identity", f"{name}/graphfreeze/read", inputs, device, "output", T=_type(frozen))

    def whole(self, read: node_def_pb2.NodeDef, raw: str, frozen: FrozenVariable) -> str:
        """Mask the whole value of a variable.

        Args:
            read: The node that reads it.
            raw: Its output tensor.
            frozen: The variable.

        Returns:
            The tensor to use instead of `raw`.
        """
        mask = self._mask(frozen, frozen.mask, read.device)
        values = self._frozen(frozen, read.device)
        if frozen.form == "blend":
            key = ("stop_gradient", frozen.variable.object_path, read.device)
            if key not in self._made:
                name = f"{scope(frozen)}/stop_gradient"
                self._made[key] = self._add("StopGradient", name, [values], read.device, "output", T=_type(frozen))
            values = self._made[key]
        return self._combine(read, raw, mask, values, frozen)

    def rows(self, gather: node_def_pb2.NodeDef, raw: str, frozen: FrozenVariable) -> str:
        """Mask the rows that a ResourceGather, or a GatherV2 of a whole read, takes along the first axis.

        Args:
            gather: The node; its second input is the indices.
            raw: Its output tensor.
            frozen: The variable.

        Returns:
            The tensor to use instead of `raw`.
        """
        batch_dims = gather.attr["batch_dims"].i if "batch_dims" in gather.attr else 0
        axis_key = ("axis", batch_dims, gather.device)
        if axis_key not in self._made:
            axis = np.array(batch_dims, np.int32)
            self._made[axis_key] = self._const("graphfreeze/axis", axis, "int32", gather.device)
        taken = [gather.input[1], self._made[axis_key]]
        types = {"Tindices": _indices_type(gather), "Taxis": tf.int32.as_datatype_enum}
        if batch_dims:
            types["batch_dims"] = attr_value_pb2.AttrValue(i=batch_dims)
        if frozen.mask.size == 1 or (batch_dims == 0 and frozen.mask.shape[0] == 1):
            # The same for every row: what is left broadcasts against the gathered rows.
            rest = frozen.mask.reshape(() if frozen.mask.size == 1 else frozen.mask.shape[1:])
            mask = self._mask(frozen, rest, gather.device)
        else:
            table = frozen.full_mask if batch_dims else frozen.mask
            tables = self._mask(frozen, table, gather.device)
            mask = self._gather("GatherV2", gather, "mask", [tables, *taken], Tparams=self._mask_type(frozen), **types)
        values = self._frozen(frozen, gather.device)
        values = self._gather("GatherV2", gather, "frozen", [values, *taken], Tparams=_type(frozen), **types)
        return self._combine_gathered(gather, raw, mask, values, frozen)

    def elements(self, gather: node_def_pb2.NodeDef, raw: str, frozen: FrozenVariable) -> str:
        """Mask what a ResourceGatherNd takes (arguments and result as for `rows`)."""
        indices = gather.input[1]
        types = {"Tindices": _indices_type(gather)}
        if frozen.mask.size == 1:
            mask = self._mask(frozen, frozen.mask.reshape(()), gather.device)
        else:
            table = self._mask(frozen, frozen.full_mask, gather.device)
            mask = self._gather("GatherNd", gather, "mask", [table, indices], Tparams=self._mask_type(frozen), **types)
        values = self._frozen(frozen, gather.device)
        values = self._gather("GatherNd", gather, "frozen", [values, indices], Tparams=_type(frozen), **types)
        return self._combine_gathered(gather, raw, mask, values, frozen)

    def _combine_gathered(
        self, gather: node_def_pb2.NodeDef, raw: str, mask: str, values: str, frozen: FrozenVariable
    ) -> str:
        if frozen.form == "blend":
            name = f"{gather.name}/graphfreeze/stop_gradient"
            values = self._add("StopGradient", name, [values], gather.device, "output", T=_type(frozen))
        return self._combine(gather, raw, mask, values, frozen)

    def _combine(self, read: node_def_pb2.NodeDef, raw: str, mask: str, values: str, frozen: FrozenVariable) -> str:
        prefix = f"{read.name}/graphfreeze"
        attributes: dict[str, Any] = {"T": _type(frozen)}
        if "_output_shapes" in read.attr:
            attributes["_output_shapes"] = read.attr["_output_shapes"]
        if frozen.form == "select":
            return self._add("SelectV2", f"{prefix}/select", [mask, raw, values], read.device, "output", **attributes)
        product = self._add("Mul", f"{prefix}/mul", [mask, raw], read.device, "z", **attributes)
        return self._add("AddV2", f"{prefix}/add", [product, values], read.device, "z", **attributes)

    def _gather(
        self, operation: str, gather: node_def_pb2.NodeDef, name: str, inputs: list[str], **attributes: Any
    ) -> str:
        tensor = self._add(
            operation, f"{gather.name}/graphfreeze/{name}", inputs, gather.device, "output", **attributes
        )
        self.gathers.append(self._function.node_def[-1])
        return tensor

    def _mask_type(self, frozen: FrozenVariable) -> int:
        return _type(frozen) if frozen.form == "blend" else int(tf.bool.as_datatype_enum)

    def _mask(self, frozen: FrozenVariable, mask: npt.NDArray[np.bool_], device: str) -> str:
        """The mask as a constant, in the shape given, which is the plan's or one made from it."""
        key = ("mask", frozen.variable.object_path, mask.shape, device)
        if key not in self._made:
            dtype = frozen.variable.dtype if frozen.form == "blend" else "bool"
            name = f"{scope(frozen)}/mask"
            if frozen.variable.object_path in self._budget.stored.paths:
                self._made[key] = self._from_checkpoint(name, frozen, "mask", mask.shape, dtype, device)
            else:
                self._made[key] = self._const(name, mask.astype(numpy_dtype(dtype)), dtype, device)
        return self._made[key]

    def _frozen(self, frozen: FrozenVariable, device: str) -> str:
        """The frozen values as a constant."""
        key = ("frozen", frozen.variable.object_path, device)
        if key not in self._made and frozen.variable.object_path in self._budget.stored.paths:
            shape, dtype = frozen.variable.shape, frozen.variable.dtype
            self._made[key] = self._from_checkpoint(f"{scope(frozen)}/frozen", frozen, "frozen", shape, dtype, device)
        elif key not in self._made:
            values = frozen.value
            if frozen.form == "blend":
                values = np.where(frozen.full_mask, -np.zeros((), values.dtype), values)
            self._made[key] = self._const(f"{scope(frozen)}/frozen", values, frozen.variable.dtype, device)
        return self._made[key]

    def _from_checkpoint(
        self, name: str, frozen: FrozenVariable, role: str, shape: tuple[int, ...], dtype: str, device: str
    ) -> str:
        """A constant that is to be read from the checkpoint: for now, a placeholder."""
        constant = StoredConstant(frozen.variable.object_path, role, shape, dtype)
        output = self._add("Const", name, [], device, "output", dtype=tf.as_dtype(dtype).as_datatype_enum)
        placeholder(self._function.node_def[-1], self._budget.stored.number_of(constant))
        return output

    def _const(self, name: str, array: npt.NDArray[Any], dtype: str, device: str) -> str:
        self._budget.take(array.nbytes)
        enum = tf.as_dtype(dtype).as_datatype_enum
        frame = [] if self.entered_by is None else [f"^{self.entered_by}"]
        output = self._add("Const", name, frame, device, "output", dtype=enum)
        tensor = self._function.node_def[-1].attr["value"].tensor
        tensor.dtype = enum
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        # Not make_tensor_proto, which writes booleans one by one.
        tensor.tensor_content = array.tobytes()
        return output

    def _add(self, operation: str, name: str, inputs: list[str], device: str, output: str, **attributes: Any) -> str:
        """Append a node; an integer attribute is a data type. Returns its output tensor."""
        self._budget.take(_NODE_OVERHEAD)
        name = self._unique(name)
        node = self._function.node_def.add(name=name, op=operation, device=device)
        node.input.extend(inputs)
        for key in sorted(attributes):
            value = attributes[key]
            node.attr[key].CopyFrom(attr_value_pb2.AttrValue(type=value) if isinstance(value, int) else value)
        return f"{name}:{output}:0" if self._in_function else f"{name}:0"

    def _unique(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate


def scope(frozen: FrozenVariable) -> str:
    """The start of the names of a variable's constants."""
    return f"graphfreeze/{_INVALID.sub('_', frozen.variable.name)}"


def _type(frozen: FrozenVariable) -> int:
    return int(tf.as_dtype(frozen.variable.dtype).as_datatype_enum)


def _indices_type(gather: node_def_pb2.NodeDef) -> int:
    return int(gather.attr["Tindices"].type)
