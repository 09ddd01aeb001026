"""Everything around the nodes: versions, signatures, object graph, collections, saver."""

from __future__ import annotations

from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.keras_notes import is_noted
from graphfreeze.prover.masked_read import OUTPUTS
from graphfreeze.prover.messages import differing_fields
from graphfreeze.prover.pair import Consumer

__all__ = ["captured_tensors", "compare_envelopes", "signature_outputs"]


def _same(what: str, before: Message, after: Message, skip: tuple[str, ...] = ()) -> None:
    different = differing_fields(before, after, skip)
    if different:
        refuse(f"expected {what} to stay as it is, found another {', '.join(different)}", fields=different)


def compare_envelopes(original: saved_model_pb2.SavedModel, rewritten: saved_model_pb2.SavedModel) -> None:
    """Prove that both models agree in all that is neither a node, nor a function, nor the name of a masked tensor.

    Raises:
        VerificationError: Something else differs.
    """
    _same("the SavedModel", original, rewritten, ("meta_graphs",))
    before, after = original.meta_graphs[0], rewritten.meta_graphs[0]
    _same("the meta graph", before, after, ("meta_info_def", "graph_def", "signature_def", "object_graph_def"))
    _same("the meta graph's information", before.meta_info_def, after.meta_info_def, ("stripped_op_list",))
    _compare_operations(before.meta_info_def, after.meta_info_def)
    _same("the graph", before.graph_def, after.graph_def, ("node", "library"))
    _same("the function library", before.graph_def.library, after.graph_def.library, ("function",))
    _compare_signatures(before, after)
    _compare_objects(before, after)


def _compare_operations(
    before: meta_graph_pb2.MetaGraphDef.MetaInfoDef, after: meta_graph_pb2.MetaGraphDef.MetaInfoDef
) -> None:
    """The list of used operations may gain those of a masked read."""
    old = {op.name: op for op in before.stripped_op_list.op}
    new = {op.name: op for op in after.stripped_op_list.op}
    for name in [*old, *new]:
        if name not in new or (name not in old and name not in OUTPUTS):
            refuse(f"expected the list of used operations to stay as it is, found a difference at {name!r}")
        if name in old:
            _same(f"the definition of operation {name}", old[name], new[name])


def _compare_signatures(before: meta_graph_pb2.MetaGraphDef, after: meta_graph_pb2.MetaGraphDef) -> None:
    if set(before.signature_def) != set(after.signature_def):
        names = sorted(set(before.signature_def) ^ set(after.signature_def))
        refuse(f"expected the same signatures, found a difference at {', '.join(names)}", signatures=names)
    for name in before.signature_def:
        old, new = before.signature_def[name], after.signature_def[name]
        _same(f"signature {name!r}", old, new, ("outputs",))
        if set(old.outputs) != set(new.outputs):
            refuse(f"expected signature {name!r} to keep its outputs, found {', '.join(sorted(new.outputs))}")
        for key in old.outputs:
            before_output, after_output = old.outputs[key], new.outputs[key]
            _same(f"output {key!r} of signature {name!r}", before_output, after_output, ("name", "dtype"))
            # What a reference held is a value where it is masked.
            plain = before_output.dtype - types_pb2.DT_FLOAT_REF + types_pb2.DT_FLOAT
            if after_output.dtype not in (
                before_output.dtype,
                plain if before_output.name != after_output.name else -1,
            ):
                refuse(f"expected output {key!r} of signature {name!r} to keep its dtype, found another")


def _compare_objects(before: meta_graph_pb2.MetaGraphDef, after: meta_graph_pb2.MetaGraphDef) -> None:
    old, new = before.object_graph_def, after.object_graph_def
    _same("the object graph", old, new, ("nodes",))
    if len(old.nodes) != len(new.nodes):
        refuse(f"expected {len(old.nodes)} nodes in the object graph, found {len(new.nodes)}")
    for position, (a, b) in enumerate(zip(old.nodes, new.nodes, strict=True)):
        what = f"node {position} of the object graph"
        captured = a.WhichOneof("kind") == "captured_tensor" == b.WhichOneof("kind")
        # What Keras 2 notes of an object is compared elsewhere.
        noted = is_noted(a) and b.WhichOneof("kind") == "user_object"
        _same(what, a, b, ("captured_tensor",) if captured else ("user_object",) if noted else ())
        if captured:
            _same(what, a.captured_tensor, b.captured_tensor, ("name",))
        elif noted:
            _same(what, a.user_object, b.user_object, ("identifier", "metadata"))


def signature_outputs(
    before: meta_graph_pb2.MetaGraphDef, after: meta_graph_pb2.MetaGraphDef, live: frozenset[str]
) -> list[Consumer]:
    """The main graph's tensors that signatures give out; those outside of `live` have to stay as they are."""
    consumers = []
    for name in sorted(before.signature_def):
        for key in sorted(before.signature_def[name].outputs):
            old = before.signature_def[name].outputs[key].name
            new = after.signature_def[name].outputs[key].name
            if name in live:
                consumers.append(Consumer(f"output {key!r} of signature {name!r}", old, new))
                parts = before.signature_def[name].outputs[key]
                consumers += [Consumer(f"a part of output {key!r} of signature {name!r}", t, t) for t in _parts(parts)]
            elif old != new:
                refuse(f"expected output {key!r} of signature {name!r} to be {old!r}, found {new!r}")
    return consumers


def _parts(info: meta_graph_pb2.TensorInfo) -> list[str]:
    """The tensors of an output that is not dense."""
    sparse = info.coo_sparse
    named = [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    return [name for name in (*named, *(part.name for part in info.composite_tensor.components)) if name]


def captured_tensors(
    before: meta_graph_pb2.MetaGraphDef, after: meta_graph_pb2.MetaGraphDef
) -> dict[str, list[Consumer]]:
    """By function, the tensors that custom gradients capture from it."""
    found: dict[str, list[Consumer]] = {}
    nodes = zip(before.object_graph_def.nodes, after.object_graph_def.nodes, strict=True)
    for position, (old, new) in enumerate(nodes):
        if old.WhichOneof("kind") == "captured_tensor":
            consumer = Consumer(
                f"the captured tensor of object {position}", old.captured_tensor.name, new.captured_tensor.name
            )
            found.setdefault(old.captured_tensor.concrete_function, []).append(consumer)
    return found
