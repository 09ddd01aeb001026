"""Which optimizer is for which parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphfreeze.errors import UsageError
from graphfreeze.selection.globs import matches_glob
from graphfreeze.selection.nearest import suggest
from graphfreeze.training.arguments import Configured
from graphfreeze.training.loss_scale import LossScale, scales_loss, with_loss_scale
from graphfreeze.training.optimizers import LEARNING_RATE, parse_optimizer

__all__ = ["ChosenOptimizer", "ChosenOptimizers", "parse_optimizers"]

_SHOWN = 3


@dataclass(frozen=True)
class ChosenOptimizer:
    """The optimizer of some parameters.

    Attributes:
        parameters: The name or glob of its parameters, or None for all that no other optimizer is for.
        configured: Its Keras name, and the arguments.
        name: What the names of its states begin with: its Keras name, and a number where others have that name, too.
    """

    parameters: str | None
    configured: Configured
    name: str

    @property
    def learning_rate(self) -> str:
        """What the artifact calls its learning rate."""
        return LEARNING_RATE if self.parameters is None else f"{self.name}/{LEARNING_RATE}"

    def __str__(self) -> str:
        """Enough of what was written to find it."""
        return self.configured.name if self.parameters is None else f"{self.parameters}={self.configured.name}"


@dataclass(frozen=True)
class ChosenOptimizers:
    """The optimizers of a training step, in the order in which they were given."""

    given: tuple[ChosenOptimizer, ...]

    def of(self, parameter: str) -> ChosenOptimizer | None:
        """The optimizer of a parameter: the last one that names it, or the one for all others, where there is one."""
        default = None
        for chosen in reversed(self.given):
            if chosen.parameters is None:
                default = chosen
            elif matches_glob(chosen.parameters, parameter):
                return chosen
        return default

    def scaled(self) -> ChosenOptimizers:
        """The same with the scaling of the loss that their arguments describe; see `with_loss_scale`."""
        return ChosenOptimizers(tuple(replace(one, configured=with_loss_scale(one.configured)) for one in self.given))

    @property
    def loss_scale(self) -> LossScale | None:
        """By what the loss is multiplied, of what `scaled` gave."""
        found = [chosen.configured.arguments.get("loss_scale") for chosen in self.given]
        return next((scale for scale in found if isinstance(scale, LossScale)), None)

    def require_parameters(self, trained: Sequence[str], others: Sequence[str]) -> None:
        """Refuse a parameter without an optimizer, and an optimizer without a parameter.

        Args:
            trained: The names of the parameters that train.
            others: Those of the other variables.

        Raises:
            UsageError: There is such a one.
        """
        of = {name: self.of(name) for name in trained}
        without = [name for name, chosen in of.items() if chosen is None]
        if without:
            raise UsageError(
                f"expected an optimizer for each parameter that trains, found none for {_some(without)}: give one "
                "without a pattern, which is for all that no other one is for"
            )
        for chosen in self.given:
            if chosen not in of.values():
                raise UsageError(f"the optimizer '{chosen}' is for no parameter: {_why_none(chosen, trained, others)}")


def parse_optimizers(texts: str | Sequence[str]) -> ChosenOptimizers:
    """Parse one optimizer, or several: `[PATTERN=]NAME[:key=value,...]`.

    Raises:
        UsageError: A name is unknown, an argument has no `=`, there is none or more than one without a pattern, or one
            with a pattern scales the loss.
    """
    if not texts:
        raise UsageError("expected an optimizer, found none: give one, sgd say, or leave the option out")
    given: list[ChosenOptimizer] = []
    count: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        parameters, configured = _parse(text)
        count[configured.name] += 1
        number = count[configured.name]
        name = configured.name if number == 1 else f"{configured.name}_{number}"
        given.append(ChosenOptimizer(parameters, configured, name))
    for_all_others = [chosen.configured.name for chosen in given if chosen.parameters is None]
    if len(for_all_others) > 1:
        raise UsageError(
            f"expected one optimizer without a pattern at most, found {', '.join(for_all_others)}: say of which "
            "parameters the others are, **/bias=sgd say"
        )
    return ChosenOptimizers(tuple(given))


def _parse(text: str) -> tuple[str | None, Configured]:
    head, colon, rest = text.partition(":")
    parameters, equals, name = head.rpartition("=")
    if not equals:
        return None, parse_optimizer(text)
    if not parameters:
        raise UsageError(f"in {text!r}: expected the name of a parameter, or a pattern, before the '='")
    configured = parse_optimizer(name + colon + rest)
    scaling = scales_loss(configured)
    if scaling:
        raise UsageError(
            f"in {text!r}: {scaling[0]!r} scales the loss, which is one for all parameters: give it to the optimizer "
            "without a pattern"
        )
    return parameters, configured


def _why_none(chosen: ChosenOptimizer, trained: Sequence[str], others: Sequence[str]) -> str:
    pattern = chosen.parameters
    if pattern is None:
        return "the others take all that train; leave it out"
    if any(matches_glob(pattern, name) for name in trained):
        return f"later ones take all that {pattern!r} matches; leave it out, or give it after them"
    still = [name for name in others if matches_glob(pattern, name)]
    if still:
        return f"{pattern!r} matches only what does not train ({_some(still)}); leave it out, or freeze less"
    return f"nothing that trains matches {pattern!r}; {suggest(pattern, trained)}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
