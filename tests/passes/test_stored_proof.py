"""The prover understands masks and values that are variables, and finds every way in which they can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.storage import Storage
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.checkpoint_index import CheckpointIndex, read_index
from graphfreeze.savedmodel.checkpoint_index_writer import write_index
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import make_plan
from .models import MODELS

Made = tuple[Path, Path, FreezePlan]


@pytest.fixture(scope="module")
def made(saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Made]:
    @cache
    def make(name: str, form: Any) -> Made:
        model = SavedModel.load(saved(name))
        plan = make_plan(model, MODELS[name].targets, form)
        out = tmp_path_factory.mktemp(name) / "out"
        write(freeze_reads(model, plan, storage=Storage(total=0, each=0)), out)
        return saved(name), out, plan

    return make


@pytest.mark.parametrize("form", ["blend", "select"])
@pytest.mark.parametrize("name", MODELS)
def test_it_proves_what_the_pass_writes(made: Callable[[str, Any], Made], name: str, form: Any) -> None:
    original, out, plan = made(name, form)
    evidence = prove(original, out, plan)
    assert evidence["stored_constants"] >= 2 * len(plan.variables)
    assert all(variable["masked_reads"] for variable in evidence["variables"])


def handles(meta: Any) -> list[Any]:
    return [n for n in meta.graph_def.node if n.op == "VarHandleOp" and n.name.startswith("graphfreeze/")]


def threaded(meta: Any) -> list[Any]:
    found = []
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            ours = [i for i, text in enumerate(node.input) if text.startswith("graphfreeze_constant_")]
            if len(ours) > 1:
                found.append((node, ours))
    return found


def swap_captures(meta: Any) -> None:
    for concrete in meta.object_graph_def.concrete_functions.values():
        if len(concrete.bound_inputs) > 3:
            concrete.bound_inputs[-1], concrete.bound_inputs[-3] = concrete.bound_inputs[-3], concrete.bound_inputs[-1]
            return


def swap_passed(meta: Any) -> None:
    node, ours = threaded(meta)[0]
    node.input[ours[0]], node.input[ours[-1]] = node.input[ours[-1]], node.input[ours[0]]


def swap_main(meta: Any) -> None:
    names = {node.name for node in handles(meta)}
    call = next(n for n in meta.graph_def.node if len(names & set(n.input)) > 2 and n.op == "StatefulPartitionedCall")
    ours = [i for i, text in enumerate(call.input) if text in names]
    call.input[ours[0]], call.input[ours[2]] = call.input[ours[2]], call.input[ours[0]]


def swap_restored(meta: Any) -> None:
    node = next(n for n in meta.graph_def.node if n.name == "graphfreeze/saver/keys")
    strings = node.attr["value"].tensor.string_val
    strings[0], strings[2] = strings[2], strings[0]


def swap_saved(meta: Any) -> None:
    node = next(n for n in meta.graph_def.node if n.name == "graphfreeze/saver/save")
    node.input[3], node.input[5] = node.input[5], node.input[3]


def share_a_handle(meta: Any) -> None:
    first, second = handles(meta)[:2]
    first.attr["shared_name"].s = second.attr["shared_name"].s


def share_with_the_model(meta: Any) -> None:
    theirs = next(n for n in meta.graph_def.node if n.op == "VarHandleOp" and not n.name.startswith("graphfreeze/"))
    handles(meta)[0].attr["shared_name"].s = theirs.attr["shared_name"].s or theirs.name.encode()


def write_to_a_mask(meta: Any) -> None:
    node = meta.graph_def.node.add(name="graphfreeze/evil", op="AssignVariableOp")
    node.input.extend([handles(meta)[0].name, handles(meta)[0].name])


def write_in_a_function(meta: Any) -> None:
    for function in meta.graph_def.library.function:
        for argument in function.signature.input_arg:
            if argument.name.startswith("graphfreeze_constant_"):
                node = function.node_def.add(name="evil", op="DestroyResourceOp")
                node.input.append(argument.name)
                return


def read_another(meta: Any) -> None:
    for function in meta.graph_def.library.function:
        reads = [n for n in function.node_def if n.op == "ReadVariableOp" and n.input[0].startswith("graphfreeze_")]
        if len(reads) > 2:
            reads[0].input[0], reads[2].input[0] = reads[2].input[0], reads[0].input[0]
            return


def let_a_mask_train(meta: Any) -> None:
    meta.object_graph_def.nodes[-1].variable.trainable = True


def forget_the_others(meta: Any) -> None:
    node = next(n for n in meta.graph_def.node if n.name == "graphfreeze/saver/restore_all")
    del node.input[0]


def saved_objects(meta: Any) -> Any:
    return next(n for n in meta.graph_def.node if n.name == "graphfreeze/saver/objects").attr["value"].tensor


def save_the_old_objects(meta: Any) -> None:
    name = "graphfreeze/saver/objects"
    call = next(n for n in meta.graph_def.node if name in n.input)
    old = next(n for n in meta.graph_def.node if n.op == "Const" and b"VARIABLE_VALUE" in b"".join(strings_of(n)))
    call.input[list(call.input).index(name)] = old.name


def strings_of(node: Any) -> list[bytes]:
    return list(node.attr["value"].tensor.string_val)


def save_objects_with_swapped_keys(meta: Any) -> None:
    tensor = saved_objects(meta)
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(tensor.string_val[0])
    first, second = graph.nodes[-1].attributes[0], graph.nodes[-3].attributes[0]
    first.checkpoint_key, second.checkpoint_key = second.checkpoint_key, first.checkpoint_key
    tensor.string_val[0] = graph.SerializeToString()


def save_objects_with_another_key(meta: Any) -> None:
    tensor = saved_objects(meta)
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(tensor.string_val[0])
    node = next(node for node in graph.nodes if node.attributes)
    node.attributes[0].checkpoint_key += "_"
    tensor.string_val[0] = graph.SerializeToString()


def save_no_objects(meta: Any) -> None:
    saved_objects(meta).string_val[0] = b"nonsense"


def name_a_file(meta: Any) -> None:
    function = next(f for f in meta.graph_def.library.function if any(n.op == "Const" for n in f.node_def))
    node = next(n for n in function.node_def if n.op == "Const")
    node.attr["value"].tensor.string_val.append(b"graphfreeze: the bytes lie in a shard")


def in_saver(meta: Any, name: str) -> Any:
    return next(n for n in meta.graph_def.node if n.name == f"graphfreeze/saver/{name}")


def further_argument(meta: Any) -> Any:
    arguments = [argument for function in meta.graph_def.library.function for argument in function.signature.input_arg]
    return next(argument for argument in arguments if argument.name.startswith("graphfreeze_constant_"))


def take_no_handle(meta: Any) -> None:
    further_argument(meta).type = types_pb2.DT_FLOAT


def take_a_handle_of_another_shape(meta: Any) -> None:
    further_argument(meta).handle_data[0].shape.dim[0].size += 1


def note_another_shape(meta: Any) -> None:
    functions = [f for f in meta.graph_def.library.function if f.signature.input_arg]
    named = next(f for f in functions if f.signature.input_arg[-1].name.startswith("graphfreeze_constant_"))
    named.attr["_input_shapes"].list.shape[-1].dim.add(size=3)


def pass_no_handle(meta: Any) -> None:
    threaded(meta)[0][0].attr["T" if threaded(meta)[0][0].op == "While" else "Tin"].list.type[-1] = types_pb2.DT_FLOAT


def pass_what_is_written(meta: Any) -> None:
    calls = [n for n, _ in threaded(meta) if "_read_only_resource_inputs" in n.attr]
    del calls[0].attr["_read_only_resource_inputs"].list.i[-1]


def restore_another_type(meta: Any) -> None:
    in_saver(meta, "restore").attr["dtypes"].list.type[0] = types_pb2.DT_DOUBLE


def assign_another_type(meta: Any) -> None:
    in_saver(meta, "assign_0").attr["dtype"].type = types_pb2.DT_DOUBLE


def save_another_type(meta: Any) -> None:
    in_saver(meta, "save").attr["dtypes"].list.type[-1] = types_pb2.DT_DOUBLE


def restore_one_key_twice(meta: Any) -> None:
    in_saver(meta, "keys").attr["value"].tensor.tensor_shape.dim[0].size += 1


def save_on_another_device(meta: Any) -> None:
    in_saver(meta, "merge").device = "/device:GPU:7"


def name_a_node_twice(meta: Any) -> None:
    meta.graph_def.node.add().CopyFrom(in_saver(meta, "restore"))


GRAPHS = [
    *(swap_captures, swap_passed, swap_main, swap_restored, swap_saved, share_a_handle, share_with_the_model),
    *(write_to_a_mask, write_in_a_function, read_another, let_a_mask_train, forget_the_others, name_a_file),
    *(save_the_old_objects, save_objects_with_swapped_keys, save_objects_with_another_key, save_no_objects),
    *(take_no_handle, take_a_handle_of_another_shape, note_another_shape, pass_no_handle, pass_what_is_written),
    *(restore_another_type, assign_another_type, save_another_type, restore_one_key_twice, save_on_another_device),
    name_a_node_twice,
]


@pytest.mark.parametrize("damage", GRAPHS)
def test_a_damaged_graph_is_found(
    made: Callable[[str, Any], Made], tmp_path: Path, damage: Callable[[Any], None]
) -> None:
    original, out, plan = made("lstm", "select")
    shutil.copytree(out, tmp_path / "out")
    proto = saved_model_pb2.SavedModel.FromString((out / "saved_model.pb").read_bytes())
    before = proto.SerializeToString(deterministic=True)
    damage(proto.meta_graphs[0])
    assert proto.SerializeToString(deterministic=True) != before
    (tmp_path / "out" / "saved_model.pb").write_bytes(proto.SerializeToString(deterministic=True))
    with pytest.raises(VerificationError):
        prove(original, tmp_path / "out", plan)


def flip_bit(directory: Path) -> None:
    shard = max((directory / "variables").glob("*data*"))
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)


def index_of(directory: Path) -> tuple[str, CheckpointIndex]:
    prefix = str(directory / "variables" / "variables")
    return prefix, read_index(prefix)


def swap_entries(directory: Path) -> None:
    prefix, index = index_of(directory)
    keys = sorted(key for key in index.entries if b"graphfreeze/frozen" in key)
    index.entries[keys[0]], index.entries[keys[1]] = index.entries[keys[1]], index.entries[keys[0]]
    write_index(index, prefix)


def move_a_weight(directory: Path) -> None:
    prefix, index = index_of(directory)
    key = next(key for key in sorted(index.entries) if key.startswith(b"variables/"))
    index.entries[key].offset += 4
    write_index(index, prefix)


def add_a_key(directory: Path) -> None:
    prefix, index = index_of(directory)
    index.entries[b"graphfreeze/more"] = index.entries[next(k for k in sorted(index.entries) if b"mask" in k)]
    write_index(index, prefix)


def cut_a_shard(directory: Path) -> None:
    shard = max((directory / "variables").glob("*data*"))
    shard.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_bit, swap_entries, move_a_weight, add_a_key, cut_a_shard])
def test_a_damaged_checkpoint_is_found(
    made: Callable[[str, Any], Made], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    original, out, plan = made("lstm", "blend")
    shutil.copytree(out, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(VerificationError):
        prove(original, tmp_path / "out", plan)
