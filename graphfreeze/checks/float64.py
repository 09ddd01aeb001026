"""Compares the lowered graphs with TensorFlow in float64, where rounding hides nothing.

In float32 a wrong constant, or a term that is left out, may be as small as the rounding of a long sum. In float64 the
rounding is nine orders of magnitude smaller: what still differs is a difference between the two graphs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.float64_pair import Arrays, Float64Pair, NotAvailableError
from graphfreeze.checks.reference import optimizer_gradients, restored, run_results
from graphfreeze.errors import ValidationError
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.traced_step import TracedStep

__all__ = ["TOLERANCE", "check_float64", "check_step_in_float64"]

TOLERANCE = 1e-10
"""The largest relative difference in the Euclidean norm."""

Report = dict[str, Any]

_MOST_ELEMENTS = 2**26
"""How many elements parameters and state may have: half a gigabyte in float64."""
_MOST_OPERATIONS = 30_000
_NEGLIGIBLE = 2.0**-40
"""What is this much smaller than the largest tensor of its kind is analytically zero: the rounding of what cancels."""
_ROUNDINGS = 16
"""How many roundings a state may differ by where it hardly changes."""
_NOISE_FACTOR = 4.0
_NOISE_DRAWS = 3


def check_step_in_float64(
    step: TracedStep, batch: Arrays, *, filters: Collection[str] = (), opset: int = 18
) -> list[Report]:
    """Check the two halves of a training step: the gradients, and what the optimizer makes of them.

    The optimizer starts from the state after one step of TensorFlow's, where its moments are no longer zero.

    Args:
        step: The traced step; its variables are as before afterwards.
        batch: Arrays by the names of the data contract.
        filters: Names of the states that are kept as convolution filters.
        opset: The opset of the lowered graphs.

    Returns:
        Two checks for the report; see `check_float64`. A step that takes sequences of any length has a third one, of
        its gradients for sequences that are one shorter: what holds for odd lengths alone must not pass.

    Raises:
        ValidationError: A tensor differs; the message says which and by how much.
    """
    state = step.values()
    gradients = optimizer_gradients(step, run_results(step, batch))
    with restored(step):
        step.functions["apply_gradients"](*map(tf.constant, gradients.values()))
        later = step.values()
    runs = [("gradients", {**batch, **state}, ""), ("apply_gradients", {**gradients, **later}, "")]
    if (shorter := _shorter(step, batch)) is not None:
        runs.insert(1, ("gradients", {**shorter, **state}, ", for sequences one shorter"))
    return [
        check_float64(
            name, step.graphs[name], values, constants=step.constants, filters=filters, opset=opset, addition=addition
        )
        for name, values, addition in runs
    ]


def _shorter(step: TracedStep, batch: Arrays) -> Arrays | None:
    """The batch with sequences one shorter; None where their length is fixed, or 1."""
    open_axes = {e.name: [axis for axis, size in enumerate(e.shape) if axis and size is None] for e in step.batch}
    sizes = [batch[name].shape[axis] for name, axes in open_axes.items() for axis in axes]
    if min(sizes, default=1) < 2:
        return None
    cut = dict(batch)
    for name, axes in open_axes.items():
        for axis in axes:
            cut[name] = np.delete(cut[name], -1, axis)
    return cut


def check_float64(
    name: str,
    named: NamedGraph,
    values: Arrays,
    *,
    constants: Arrays | None = None,
    filters: Collection[str] = (),
    opset: int = 18,
    addition: str = "",
) -> Report:
    """Lower a graph once more with float64 in place of float32, and compare it with TensorFlow on one set of values.

    The reference is the functional graph itself, run by TensorFlow operation by operation.

    Args:
        name: The graph's name, for the report.
        named: The graph.
        values: The values of its inputs by name, in TensorFlow's layout.
        constants: The values of the inputs that are constants of the lowered graph (wholly frozen variables).
        filters: Names of the inputs that are kept as convolution filters.
        opset: The opset to lower to.
        addition: What the check's title ends with.

    Returns:
        The check for the report. Where the comparison cannot be made, `evidence` says so: its `status` is then
        "not available" instead of "compared".

    Raises:
        ValidationError: A tensor differs; the message says which and by how much.
    """
    title = f"the graph {name} computes in float64 what TensorFlow computes{addition}"
    constants = constants or {}
    try:
        _require_small(named, {**values, **constants})
        pair = Float64Pair(named, {**values, **constants}, constants=list(constants), filters=filters, opset=opset)
        records = _compare(pair)
    except NotAvailableError as reason:
        evidence: Report = {"status": "not available", "reason": str(reason)}
        return {"name": title, "passed": True, "message": f"not available: {reason}", "evidence": evidence}
    failed = [record for record in records if record["rule"] == "different"]
    check = {
        "name": title,
        "passed": not failed,
        "message": _found(records),
        "evidence": {"status": "compared", "tensors": records},
    }
    if failed:
        worst = max(failed, key=lambda record: np.inf if record["relative_l2"] is None else record["relative_l2"])
        size = "all of it" if worst["relative_l2"] is None else f"{worst['relative_l2']:.2g} of its size"
        check["message"] = f"{len(failed)} of {len(records)} tensors differ from TensorFlow's"
        raise ValidationError(
            f"computed in float64, {worst['tensor']!r} of the graph {name} differs from TensorFlow's by {size}, where "
            f"rounding explains {TOLERANCE:g}: an operation is lowered wrongly. Nothing was written. This is an error "
            "in graphfreeze: please report it with the model",
            {"checks": [check]},
        )
    return check


def _require_small(named: NamedGraph, values: Arrays) -> None:
    elements = sum(values[name].size for name in named.inputs)
    operations = sum(1 for _ in named.graph.walk())
    if elements > _MOST_ELEMENTS or operations > _MOST_OPERATIONS:
        raise NotAvailableError(
            f"the graph has {operations} operations on {elements} elements of input and state; up to "
            f"{_MOST_OPERATIONS} on {_MOST_ELEMENTS} are compared in float64"
        )


def _compare(pair: Float64Pair) -> list[Report]:
    """A record of every output."""
    expected = pair.reference(pair.values)
    for name, value in expected.items():
        if not np.isfinite(value).all():
            raise NotAvailableError(f"TensorFlow's {name!r} is not finite for this batch")
    found = pair.lowered(pair.values)
    largest = _largest(expected)
    records = [
        _record(name, found[name], value, pair.values.get(name.removeprefix("new/")), largest.get(_kind(name), 0.0))
        for name, value in expected.items()
    ]
    if any(record["rule"] == "different" for record in records):
        _excuse(records, pair, expected)
    return records


def _largest(expected: Arrays) -> dict[str, float]:
    """The largest norm of each kind of output. In a graph without gradients, an optimizer's, nothing cancels."""
    largest: dict[str, float] = {}
    if any(_kind(name) == "gradient" for name in expected):
        for name, value in expected.items():
            largest[_kind(name)] = max(largest.get(_kind(name), 0.0), _norm(value))
    return largest


def _record(
    name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any], before: npt.NDArray[Any] | None, largest: float
) -> Report:
    """How far a tensor is from its reference; None where that is no finite number.

    A new state is judged by how much it changes: a step's update is a small part of a parameter.
    """
    size, error = _norm(expected if before is None else expected - before), None
    if found.shape != expected.shape or found.dtype != expected.dtype or not np.isfinite(found).all():
        rule = "different"
    elif expected.dtype.kind != "f":
        error = float(np.count_nonzero(found != expected))
        rule = "different" if error else "exact"
    else:
        error = _norm(found - expected)
        rounding = max(TOLERANCE * size, _ROUNDINGS * np.finfo(np.float64).eps * _norm(expected))
        negligible = max(_norm(expected), _norm(found)) <= _NEGLIGIBLE * largest
        rule = "rounding" if error <= rounding else "zero" if negligible else "different"
    relative = error / size if error is not None and size else (0.0 if error == 0 else None)
    return {"tensor": name, "error": error, "relative_l2": relative, "rule": rule}


def _excuse(records: Sequence[Report], pair: Float64Pair, expected: Arrays) -> None:
    """Tell what the net itself amplifies from what is lowered wrongly.

    Where TensorFlow's result changes as much when the inputs move by one unit in the last place (a value that should
    be 0 decides over a ReLU), another order of summation may do the same.

    Raises:
        NotAvailableError: All that differs is amplified rounding, and that hides a whole tensor.
    """
    rng = np.random.default_rng(0)
    moved = [
        pair.reference({name: _moved(value, rng) for name, value in pair.values.items()}) for _ in range(_NOISE_DRAWS)
    ]
    for record in records:
        name = record["tensor"]
        noise = max(_norm(other[name] - expected[name].astype(np.float64)) for other in moved)
        if record["rule"] == "different" and record["error"] is not None and record["error"] <= _NOISE_FACTOR * noise:
            record["rule"] = "noise" if _NOISE_FACTOR * noise < _norm(expected[name]) / 4 else "undetermined"
    undetermined = [record["tensor"] for record in records if record["rule"] == "undetermined"]
    if undetermined and not any(record["rule"] == "different" for record in records):
        raise NotAvailableError(f"the model amplifies rounding so much that {undetermined[0]!r} is not determined")


def _found(records: Sequence[Report]) -> str:
    """How many tensors agree, and how many of them by which looser rule."""
    count = {rule: sum(record["rule"] == rule for record in records) for rule in ("zero", "noise")}
    found = f"{len(records) - sum(count.values())} tensors agree with TensorFlow's to {TOLERANCE:g}"
    if count["zero"]:
        found += f"; {count['zero']} are zero but for rounding"
    if count["noise"]:
        found += f"; {count['noise']} differ by no more than rounding that the model amplifies"
    return found


def _kind(name: str) -> str:
    return name.partition("/")[0]


def _norm(array: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(array.ravel()))


def _moved(array: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    if array.dtype.kind != "f":
        return array
    return array * (1.0 + np.finfo(np.float64).eps * rng.uniform(-1.0, 1.0, array.shape))
