"""Variables that are frozen at what the checkpoint holds of them: where these bytes lie in the rewritten model."""

from __future__ import annotations

from pathlib import Path

from tensorflow.core.protobuf import trackable_object_graph_pb2

from graphfreeze.prover.bundle import read_bundle
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.targets import objects_at
from graphfreeze.selection.plan import FreezePlan

__all__ = ["own_bytes"]


def own_bytes(plan: FreezePlan, original: Path, rewritten: Path) -> dict[str, tuple[str, int]]:
    """Find the values that the plan leaves in the checkpoint.

    That the rewritten checkpoint keeps the original's shards and index entries is proven elsewhere.

    Args:
        plan: What is frozen.
        original: The original's directory.
        rewritten: The rewritten model's directory.

    Returns:
        Object path -> the file, and the offset in it. What is not found must be read and compared.

    Raises:
        VerificationError: The original holds another value than the plan froze.
    """
    left = [frozen for frozen in plan.variables if frozen.checksum is not None]
    if not left:
        return {}
    old, new = read_bundle(original), read_bundle(rewritten)
    objects = old.objects()
    places = {}
    for frozen in left:
        variable = frozen.variable
        keys = _keys(objects, variable.object_path)
        entry = old.entries.get(keys.pop().encode()) if len(keys) == 1 else None
        if entry is None or len(entry.slices) or entry.size != variable.nbytes:
            continue
        if entry.crc32c != frozen.checksum:
            refuse(
                f"expected a value with the checksum {frozen.checksum}, at which the plan froze it, in the original's "
                f"checkpoint, found {entry.crc32c}",
                variable=variable.name,
            )
        places[variable.object_path] = (str(new.shard(entry.shard_id)), int(entry.offset))
    return places


def _keys(objects: trackable_object_graph_pb2.TrackableObjectGraph, path: str) -> set[str]:
    return {
        attribute.checkpoint_key
        for node in objects_at(objects, path)
        for attribute in objects.nodes[node].attributes
        if attribute.name == "VARIABLE_VALUE"
    }
