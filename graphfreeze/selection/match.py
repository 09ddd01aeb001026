"""Which variables of a model a selector addresses."""

from __future__ import annotations

from collections.abc import Sequence

from graphfreeze.errors import SelectorError
from graphfreeze.selection.dtypes import dtype_kind
from graphfreeze.selection.globs import is_glob, matches_glob
from graphfreeze.selection.nearest import suggest
from graphfreeze.selection.selector import OBJECT_PREFIX, Selector
from graphfreeze.selection.variable import Variable

__all__ = ["match_variables"]

_SHOWN = 3
_TEXT_DTYPES = ("string", "object")


def match_variables(selector: Selector, variables: Sequence[Variable]) -> list[Variable]:
    """The variables that the selector addresses, at least one.

    An exact name finds any variable; a glob passes over those that a gradient does not train.

    Raises:
        SelectorError: No variable matches, the exact name is that of several, or it names integer state.
    """
    pattern = selector.pattern
    exact = [variable for variable in variables if _key(selector, variable) == pattern]
    if len(exact) > 1:
        paths = ", ".join(OBJECT_PREFIX + variable.object_path for variable in exact)
        raise SelectorError(f"{len(exact)} variables are named {pattern!r}: say which, by object path: {paths}")
    if exact:
        _refuse_state(exact[0])
        return exact
    found = [variable for variable in variables if is_glob(pattern) and matches_glob(pattern, _key(selector, variable))]
    trained = [variable for variable in found if _is_trained(variable)]
    if not found:
        what = "object path" if selector.by_object_path else "variable"
        raise SelectorError(
            f"no {what} matches {pattern!r}; {suggest(pattern, (_key(selector, variable) for variable in variables))}"
        )
    if not trained:
        names = ", ".join(_key(selector, variable) for variable in found[:_SHOWN])
        raise SelectorError(
            f"{pattern!r} matches only variables that a gradient does not train ({names}); such a one must be "
            "named exactly"
        )
    return trained


def _key(selector: Selector, variable: Variable) -> str:
    return variable.object_path if selector.by_object_path else variable.name


def _is_trained(variable: Variable) -> bool:
    # tf.Variable marks counters and strings as trainable by default; what has no gradient is state.
    has_gradient = dtype_kind(variable.dtype) not in ("integer", "bool") and variable.dtype not in _TEXT_DTYPES
    return variable.trainable and has_gradient


def _refuse_state(variable: Variable) -> None:
    if not variable.trainable and dtype_kind(variable.dtype) in ("integer", "bool"):
        raise SelectorError(
            f"{variable.name!r} is {variable.dtype} state that does not train (a seed or a counter): frozen, it would "
            "no longer count. Select weights only"
        )
