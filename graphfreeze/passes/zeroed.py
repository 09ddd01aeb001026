"""What must be zero at frozen elements in each body: what norms sum up, and what directions begin with.

Which tensors these are depends on all variables that could be slots. What is found in a body is looked up by the
targeted variables and slots alone that it takes. Where it depends on what else such a body takes, nothing is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

from graphfreeze.passes.directions import MaskedInput
from graphfreeze.passes.gradient_norms import GradientNorms, MaskedNorm
from graphfreeze.savedmodel.handle_flow import Context

__all__ = ["Zeroed", "find_zeroed"]


class Zeroed(NamedTuple):
    """What must be zero at frozen elements in one body.

    Attributes:
        norms: Position of a node -> of what its first input consists.
        directions: Tensor -> of which variable.
    """

    norms: Mapping[int, MaskedNorm] = {}
    directions: Mapping[str, MaskedInput] = {}


def find_zeroed(norms: GradientNorms, targets: Collection[int], slots: Mapping[int, int]) -> dict[Context, Zeroed]:
    """What must be zero, by bodies with the targeted variables and slots that they take.

    Args:
        norms: The norms of the model, and its directions, as far as the freeze holds.
        targets: The object nodes of the targeted variables.
        slots: Object node of a slot -> that of its variable.
    """
    found: defaultdict[Context, list[Zeroed]] = defaultdict(list)
    for context in norms.ends.analysis.contexts:
        binding = tuple((p, variable) for p, variable in context.binding if variable in targets or variable in slots)
        zeroed = Zeroed(norms.of(context, slots), norms.ends.directions.of(context, slots))
        found[Context(context.function, binding)].append(zeroed)
    return {context: all_of[0] for context, all_of in found.items() if all(z == all_of[0] for z in all_of)}
