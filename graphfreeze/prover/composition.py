"""A model that was rewritten twice: the second rewrite starts from the original graph that the first one kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.prover.constants import differing_elements
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.files import OWN_FOLDER
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.plan_files import load_plan

__all__ = ["Earlier", "check_contains", "read_earlier"]


@dataclass(frozen=True)
class Earlier:
    """An earlier rewrite.

    Attributes:
        original: The graph that it was made from.
        plan: What it froze.
    """

    original: saved_model_pb2.SavedModel
    plan: FreezePlan


def read_earlier(directory: Path) -> Earlier | None:
    """What a model notes of the rewrite that it is the result of, or None where it is a plain model.

    Raises:
        VerificationError: The graph that it was made from is missing or corrupt.
        ArtifactReadError: Its plan is corrupt.
    """
    notes = directory / OWN_FOLDER
    if not (notes / "plan.json").is_file():
        return None
    original = saved_model_pb2.SavedModel()
    try:
        original.ParseFromString((notes / "original_saved_model.pb").read_bytes())
    except Exception as error:
        # protobuf's DecodeError is a plain Exception in some implementations.
        refuse(f"expected the original graph of the earlier rewrite in {notes}, found {type(error).__name__}: {error}")
    return Earlier(original, load_plan(notes))


def check_contains(plan: FreezePlan, earlier: FreezePlan) -> int:
    """Prove that a plan freezes all that an earlier one froze, at the same bits.

    Returns:
        How many elements the earlier plan froze.

    Raises:
        VerificationError: An element trains again, or is frozen at another value.
    """
    if plan.tags != earlier.tags:
        refuse("expected the plan to be for the graph of the earlier plan, found another")
    if plan.only_in != earlier.only_in:
        refuse(f"expected the endpoints of the earlier plan ({', '.join(earlier.only_in) or 'all'}), found others")
    for before in earlier.variables:
        after = plan.find(before.variable.object_path)
        if after is None or after.variable != before.variable or (before.form, after.form) == ("select", "blend"):
            refuse(
                "expected the plan to freeze what the earlier plan froze, in a form as strong, found that it does not",
                variable=before.variable.name,
            )
        frozen = ~before.full_mask
        lost = frozen & (after.full_mask | differing_elements(after.value, before.value))
        if lost.any():
            index = [int(i[0]) for i in np.nonzero(lost)]
            refuse(
                f"expected every element that the earlier plan froze to stay frozen at the same value, found "
                f"{int(lost.sum())} that do not, the first at {index}",
                variable=before.variable.name,
                index=index,
            )
    return sum(variable.frozen_elements for variable in earlier.variables)
