"""Runs the original and the rewritten model side by side in TensorFlow: outputs and gradients, bit for bit."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.graph_optimizer import optimizer_option
from graphfreeze.checks.loaded_pair import LoadedPair
from graphfreeze.checks.side import Batch, Side
from graphfreeze.errors import CheckFailedError, UnsupportedError
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.endpoint import choose_endpoint, endpoint_names

__all__ = ["check_behaviour", "compare_gradients", "compare_outputs", "conclude"]

Report = dict[str, Any]


# The arithmetic optimizer sorts the terms of an AddN by what made them. Where a variable is read several times, masked
# reads make it sort the gradients of these reads in another way, and a sum in another order has another last bit.
@optimizer_option("arithmetic_optimization", False)
def check_behaviour(
    original: Path,
    rewritten: Path,
    variables: Sequence[Variable],
    plan: FreezePlan,
    *,
    data: Batch | None = None,
    seed: int = 0,
    updating: Container[str] = (),
) -> list[Report]:
    """Compare every endpoint that can be called with dense tensors.

    The original gets the plan's frozen values first. Its outputs must then be the rewritten model's, bit for bit, and
    so must the gradients of the sum of squared outputs at trainable elements; at frozen ones they must be zero. What
    the original does not repeat from one run to the next says nothing, and is reported as such. Where the freeze is
    limited to some endpoints, the others are compared with the original as it is.

    Args:
        original: The original SavedModel.
        rewritten: The rewritten one.
        variables: The model's variables.
        plan: What is frozen.
        data: Inputs by name, for the endpoints that take all of them. Random ones otherwise.
        seed: Where random inputs come from.
        updating: Endpoints that update what is frozen: they are left out, for the original moves it.

    Returns:
        Two checks for the report: outputs and gradients.

    Raises:
        CheckFailedError: Something differs; `details` holds what and by how much.
    """
    pair = LoadedPair(original, rewritten, variables)
    endpoints, skipped = _endpoints(pair.original)
    outputs: list[Report] = []
    gradients: list[Report] = []
    undifferentiated: list[Report] = []
    names = {variable.object_path: variable.name for variable in variables}
    nothing = FreezePlan()
    for name in endpoints:
        if name in updating:
            reason = "it trains what is frozen in the rewritten model, so that the original goes another way"
            skipped.append({"endpoint": name, "reason": reason})
            continue
        frozen_here = plan if not plan.only_in or name in plan.only_in else nothing
        found = pair.compare(name, frozen_here, lambda before, after: _observe(before, after, data, seed))
        if isinstance(found.outputs, str):
            skipped.append({"endpoint": name, "reason": found.outputs})
            continue
        outputs += compare_outputs(name, *found.outputs)
        if isinstance(found.gradients, str):
            undifferentiated.append({"endpoint": name, "reason": found.gradients})
        else:
            gradients += compare_gradients(name, names, frozen_here, *found.gradients)
    return conclude(outputs, gradients, skipped, undifferentiated)


_Observed = tuple[Sequence[Batch], Batch]
"""What the original gives, twice, and what the rewritten model gives."""


@dataclass(frozen=True)
class _Comparison:
    """What both models give at an endpoint; or why they do not."""

    outputs: _Observed | str
    gradients: _Observed | str = ""

    @property
    def complete(self) -> bool:
        return not isinstance(self.outputs, str) and not isinstance(self.gradients, str)


def _observe(original: Side, rewritten: Side, data: Batch | None, seed: int) -> _Comparison:
    batch = original.batch(data, seed)
    try:
        twice = [original.run(batch), original.run(batch)]
    except tf.errors.OpError as error:
        return _Comparison(f"the original fails on random inputs, give it data: {error.message.splitlines()[0]}")
    outputs = twice, rewritten.run(batch)
    try:
        gradients = [original.gradients(batch), original.gradients(batch)]
    except (LookupError, tf.errors.OpError) as error:
        return _Comparison(outputs, f"the original has no gradients: {error}")
    return _Comparison(outputs, (gradients, rewritten.gradients(batch)))


def conclude(
    outputs: list[Report], gradients: list[Report], skipped: list[Report], undifferentiated: list[Report]
) -> list[Report]:
    """The checks for the report.

    Args:
        outputs: A record for each output of each endpoint.
        gradients: A record for each gradient.
        skipped: Endpoints that cannot be called, with the reason.
        undifferentiated: Endpoints without gradients, with the reason.

    Raises:
        CheckFailedError: Something differs; `details` holds what and by how much.
    """
    checks = [
        _check("the rewritten model computes what the original computes", "outputs, bit for bit", outputs, skipped),
        _check(
            "gradients are the original's where trainable, zero where frozen",
            "gradients, bit for bit",
            gradients,
            [*skipped, *undifferentiated],
        ),
    ]
    for check in checks:
        if not check["passed"]:
            worst = next(record for record in check["evidence"]["compared"] if record["status"] == "differs")
            raise CheckFailedError(
                f"{check['name']}: not so for {worst['tensor']!r} of the endpoint {worst['endpoint']!r}, which differs "
                f"in {worst['differing_elements']} elements, by up to {worst['largest_difference']:g}. "
                "Nothing was written. This is an error in graphfreeze: please report it with the model",
                {"checks": checks},
            )
    return checks


def _endpoints(loaded: Any) -> tuple[list[str], list[Report]]:
    """The names of the endpoints that can be compared, and why the others cannot."""
    names, skipped = [], []
    for name in endpoint_names(loaded):
        try:
            endpoint = choose_endpoint(loaded, name)
            odd = [f"{e.name} ({e.dtype})" for e in endpoint.inputs if e.dtype in ("string", "variant", "resource")]
            if odd:
                raise UnsupportedError(f"no random values for its inputs {', '.join(odd)}")
            names.append(name)
        except UnsupportedError as reason:
            skipped.append({"endpoint": name, "reason": str(reason)})
    return names, skipped


def compare_outputs(endpoint: str, twice: Sequence[Batch], rewritten: Batch) -> list[Report]:
    """A record for each output: of the original, twice, and of the rewritten model."""
    return [
        _record(endpoint, name, first, twice[1][name], rewritten[name], np.True_) for name, first in twice[0].items()
    ]


def compare_gradients(
    endpoint: str, names: Mapping[str, str], plan: FreezePlan, twice: Sequence[Batch], rewritten: Batch
) -> list[Report]:
    """A record for each gradient: of the original, twice, and of the rewritten model."""
    frozen = {v.variable.object_path: v for v in plan.variables}
    records = []
    for path in dict.fromkeys([*twice[0], *rewritten]):
        mask = frozen[path].full_mask if path in frozen else np.True_
        # A gradient that does not exist is zero; there, and where the plan says zero, either sign of zero is right.
        zero = np.zeros_like(twice[0][path] if path in twice[0] else rewritten[path])
        exact = mask & (path in twice[0] and path in rewritten)
        first, second = (np.where(exact, g, np.where(mask, g, zero) + zero) for g in (t.get(path, zero) for t in twice))
        found = rewritten.get(path, zero)
        records.append(_record(endpoint, names[path], first, second, np.where(exact, found, found + zero), mask))
    return records


def _record(
    endpoint: str,
    tensor: str,
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    rewritten: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_] | np.bool_,
) -> Report:
    differing = _differing(first, rewritten)
    status = "equal" if not differing.any() else "differs"
    # A frozen element's gradient is zero, however little the others repeat themselves.
    if status == "differs" and _differing(first, second).any() and not (differing & ~mask).any():
        status = "not repeatable"
    difference = 0.0
    if differing.any() and first.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            change = np.abs(first.astype(np.float64) - rewritten.astype(np.float64))
        difference = float(np.nanmax(change, initial=0.0))
    return {
        "endpoint": endpoint,
        "tensor": tensor,
        "status": status,
        "elements": int(first.size),
        "frozen_elements": int(np.size(mask) - np.count_nonzero(mask)),
        "differing_elements": int(np.count_nonzero(differing)),
        "largest_difference": difference,
    }


def _differing(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where the bits differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.ones(a.shape, np.bool_)
    if a.dtype == object:
        return np.asarray(a != b)
    unsigned = np.dtype(f"u{a.dtype.itemsize}") if a.dtype.itemsize in (1, 2, 4, 8) else None
    if unsigned is None:
        return np.asarray(a != b)
    return np.asarray(np.ascontiguousarray(a).view(unsigned) != np.ascontiguousarray(b).view(unsigned)).reshape(a.shape)


def _check(name: str, what: str, records: list[Report], skipped: list[Report]) -> Report:
    count = {status: sum(r["status"] == status for r in records) for status in ("equal", "differs", "not repeatable")}
    message = f"{count['equal']} {what} equal"
    if count["not repeatable"]:
        message += f"; {count['not repeatable']} that the original itself does not repeat"
    if skipped:
        message += f"; left out are the endpoints {', '.join(s['endpoint'] for s in skipped)}"
    return {
        "name": name,
        "passed": not count["differs"],
        "message": message,
        "evidence": {"compared": records, "skipped": skipped},
    }
