"""Runs the rewritten model's own training steps in TensorFlow: frozen elements must stay in storage, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphfreeze.checks.behaviour import Report
from graphfreeze.checks.side import Batch, Side
from graphfreeze.errors import CheckFailedError, UnsupportedError
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable

__all__ = ["STEPS", "check_updates", "conclude_updates", "held_record"]

STEPS = 3


def check_updates(
    rewritten: Path,
    variables: Sequence[Variable],
    plan: FreezePlan,
    updated: Mapping[str, Mapping[str, str]],
    *,
    data: Batch | None = None,
    seed: int = 0,
) -> Report:
    """Run each endpoint that updates what is frozen, and compare storage before and after.

    Args:
        rewritten: The rewritten SavedModel.
        variables: The model's variables.
        plan: What is frozen.
        updated: By endpoint, the object paths of the variables and slots that it updates, each with the object path of
            the targeted variable whose mask holds.
        data: Inputs by name, for the endpoints that take all of them. Random ones otherwise.
        seed: Where random inputs come from.

    Returns:
        A check for the report.

    Raises:
        CheckFailedError: A frozen element moved.
    """
    names = {variable.object_path: variable.name for variable in variables}
    compared: list[Report] = []
    skipped: list[Report] = []
    for endpoint, held in sorted(updated.items()):
        try:
            compared += _compare(rewritten, variables, plan, endpoint, held, data, seed)
        except (UnsupportedError, tf.errors.OpError) as error:
            skipped.append({"endpoint": endpoint, "reason": f"it cannot be run: {error}".splitlines()[0]})
    return conclude_updates(compared, names, skipped)


def conclude_updates(compared: list[Report], names: Mapping[str, str], skipped: list[Report]) -> Report:
    """The check for the report.

    Args:
        compared: A record for each variable and slot in each endpoint.
        names: Object path -> name.
        skipped: Endpoints that cannot be run.

    Raises:
        CheckFailedError: A frozen element moved.
    """
    for record in compared:
        record["variable"] = names[record["object_path"]]
    moved = [record for record in compared if record["moved_frozen_elements"]]
    message = f"{len(compared)} variables and slots keep their frozen elements over {STEPS} steps of the model's own"
    if skipped:
        message += f"; left out are the endpoints {', '.join(s['endpoint'] for s in skipped)}"
    check = {
        "name": "the model's own training steps leave frozen elements as they are stored",
        "passed": not moved,
        "message": message,
        "evidence": {"compared": compared, "skipped": skipped},
    }
    if moved:
        raise CheckFailedError(
            f"{check['name']}: not so for {moved[0]['variable']!r} in the endpoint {moved[0]['endpoint']!r}, where "
            f"{moved[0]['moved_frozen_elements']} elements moved. Nothing was written. This is an error in "
            "graphfreeze: please report it with the model",
            {"checks": [check]},
        )
    return check


def _compare(
    rewritten: Path,
    variables: Sequence[Variable],
    plan: FreezePlan,
    endpoint: str,
    held: Mapping[str, str],
    data: Batch | None,
    seed: int,
) -> list[Report]:
    side = Side.load(rewritten, endpoint, variables)
    # The slots of some optimizers cannot be reached once they are loaded.
    before = {path: side.resources[path].numpy() for path in sorted(held) if path in side.resources}
    batch = side.batch(data, seed)
    for _ in range(STEPS):
        side.step(batch)
    return [
        held_record(endpoint, path, stored, side.resources[path].numpy(), plan, held) for path, stored in before.items()
    ]


def held_record(endpoint: str, path: str, before: Any, now: Any, plan: FreezePlan, held: Mapping[str, str]) -> Report:
    """How many frozen elements of a variable or slot moved in storage."""
    frozen = plan.find(held[path])
    assert frozen is not None, "only targeted variables and their slots are held"
    mask = frozen.full_mask
    moved = [a.tobytes() != b.tobytes() for a, b in zip(before[~mask], now[~mask], strict=True)]
    return {
        "endpoint": endpoint,
        "object_path": path,
        "frozen_elements": int(np.count_nonzero(~mask)),
        "moved_frozen_elements": sum(moved),
    }
