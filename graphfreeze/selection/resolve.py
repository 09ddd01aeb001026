"""The ordered list of selections, applied to a model's variables: the freeze plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import SelectorError
from graphfreeze.selection.array_file import ArrayFile, read_array
from graphfreeze.selection.dtypes import cast_array, cast_number, check_supported
from graphfreeze.selection.forms import RequestedForm, form_by_size, resolve_form
from graphfreeze.selection.index import broadcastable_index_mask
from graphfreeze.selection.masks import broadcast_count, frozen_pieces, smallest_broadcastable
from graphfreeze.selection.match import match_variables
from graphfreeze.selection.plan import FreezePlan, FrozenVariable, LazyFrozenVariable
from graphfreeze.selection.predicate import evaluate
from graphfreeze.selection.selector import Selector, parse_selector
from graphfreeze.selection.variable import Variable, VariableSource, numpy_dtype

__all__ = ["Selection", "SelectionKind", "resolve_plan"]

SelectionKind = Literal["freeze", "train"]

_KEPT_BYTES = 1 << 18
"""Arrays of more bytes are not kept in a plan."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One entry of the ordered list.

    Attributes:
        kind: Whether the elements freeze or train.
        text: The selector.
        directory: What relative paths in the selector start from; None leaves it to `resolve_plan`.
    """

    kind: SelectionKind
    text: str
    directory: Path | None = None


def resolve_plan(
    selections: Sequence[Selection],
    source: VariableSource,
    *,
    form: RequestedForm = "auto",
    only_in: Sequence[str] = (),
    base_directory: Path | None = None,
) -> FreezePlan:
    """Apply the selections in order, later ones win, and settle the form of each masked read.

    Values are read only of variables that end up with a frozen element, or that a predicate asks about.

    Args:
        selections: What to freeze and what to train.
        source: The variables and their current values.
        form: The form of the masked reads; `auto` takes blend where it is exact.
        only_in: The endpoints to which the freeze is limited; empty means all.
        base_directory: What relative paths in selectors start from; None is the current directory.

    Raises:
        SelectorError: A selector does not parse, matches no variable, names no element or does not fit its
            variable; nothing is frozen in the end; or the form blend is asked for where it is not exact.
        UnsupportedDtypeError: A selector addresses a variable whose elements cannot be frozen.
    """
    steps = [_Step(selection, base_directory) for selection in selections]
    # Errors in the text come first, before any value is read.
    targeted: dict[Variable, list[_Step]] = {}
    for step in steps:
        with step.explained():
            for variable in match_variables(step.selector, source.variables):
                check_supported(variable)
                targeted.setdefault(variable, []).append(step)
    resolved = [_resolve_variable(variable, targeted[variable], source, form) for variable in _sorted(targeted)]
    for step in steps:
        if step.selected_elements == 0:
            matched = [variable for variable in targeted if step in targeted[variable]]
            raise SelectorError(f"selector {step.selector.text!r} selects no element{_found(step, matched, source)}")
    frozen = tuple(variable for variable in resolved if variable is not None)
    if not frozen:
        raise SelectorError(
            "nothing is frozen: expected a --freeze selector whose elements no later --train selector takes back"
        )
    return FreezePlan(frozen, tuple(only_in))


class _Step:
    """A selection with its parsed selector, and the number of elements it has named so far."""

    def __init__(self, selection: Selection, base_directory: Path | None) -> None:
        self.kind = selection.kind
        self.directory = selection.directory or base_directory
        self.selector: Selector = parse_selector(selection.text)
        self.label = f"{self.kind} {self.selector.label}"
        self.selected_elements = 0
        if self.kind == "train" and self.selector.value is not None:
            raise SelectorError(
                f"selector {selection.text!r}: `:= VALUE` is what to freeze at, it cannot follow --train"
            )

    @contextmanager
    def explained(self, variable: Variable | None = None) -> Iterator[None]:
        """Let an error say which selector, and which variable, it is about."""
        try:
            yield
        except SelectorError as error:
            about = "" if variable is None else f", variable {variable.name!r}"
            raise SelectorError(f"selector {self.selector.text!r}{about}: {error}") from None


class _Resolution:
    """The state of one variable while the selections are applied to it."""

    def __init__(self, variable: Variable, source: VariableSource) -> None:
        self._variable = variable
        self._source = source
        self.mask: npt.NDArray[np.bool_] = np.ones((1,) * len(variable.shape), np.bool_)
        # None means: what is frozen, is frozen at its current value.
        self._fixed: npt.NDArray[Any] | None = None

    @cached_property
    def current(self) -> npt.NDArray[Any]:
        """The current value, read when it is first needed."""
        return self._source.read(self._variable)

    def apply(self, step: _Step) -> None:
        """Freeze or train what the step's selector names."""
        selected = self._selected(step)
        size = int(np.prod(self._variable.shape, dtype=np.int64))
        step.selected_elements += size if selected is None else broadcast_count(selected, self._variable.shape)
        trainable = step.kind == "train"
        if selected is None:
            self.mask = np.full((1,) * len(self._variable.shape), trainable)
        else:
            self.mask = np.where(selected, np.bool_(trainable), self.mask)
        if not trainable:
            self._fix(step, selected)

    @property
    def at_current(self) -> bool:
        """Whether what is frozen is frozen at its current value."""
        return self._fixed is None

    @property
    def values(self) -> npt.NDArray[Any]:
        """The frozen values, and anything at trainable elements."""
        return self.current if self._fixed is None else self._fixed

    def frozen_values(self) -> npt.NDArray[Any]:
        """The frozen values, zero at trainable elements."""
        values = self.values
        if not self.mask.any():
            return values
        result = np.zeros(self._variable.shape, numpy_dtype(self._variable.dtype))
        np.copyto(result, values, where=~self.mask)
        return result

    def _selected(self, step: _Step) -> npt.NDArray[np.bool_] | None:
        """The elements that the step's selector names, broadcastable to the shape; None for all of them."""
        selector, shape = step.selector, self._variable.shape
        if selector.mask_file is not None:
            return _read_mask(selector.mask_file, step.directory, shape)
        selected = None if selector.index is None else broadcastable_index_mask(selector.index, shape)
        if selector.predicate is not None:
            holds = evaluate(selector.predicate, self.current)
            selected = holds if selected is None else np.logical_and(selected, holds, out=holds)
        return selected

    def _fix(self, step: _Step, selected: npt.NDArray[np.bool_] | None) -> None:
        """Record the values at which the selected elements freeze."""
        value = self._wanted_value(step)
        if selected is None:
            self._fixed = None if value is None else np.broadcast_to(value, self._variable.shape).copy()
        elif value is not None or self._fixed is not None:
            if self._fixed is None:
                self._fixed = self.current.copy()
            np.copyto(self._fixed, self.current if value is None else value, where=selected)

    def _wanted_value(self, step: _Step) -> Any:
        """The step's VALUE as a scalar or an array of the variable's dtype; None where it is the current value."""
        value, dtype = step.selector.value, self._variable.dtype
        if isinstance(value, ArrayFile):
            return cast_array(read_array(value, step.directory, self._variable.shape), dtype)
        return None if value is None else cast_number(value, numpy_dtype(dtype))


def _resolve_variable(
    variable: Variable, steps: Sequence[_Step], source: VariableSource, form: RequestedForm
) -> FrozenVariable | None:
    """The variable's part of the plan, or None where all of it trains."""
    resolution = _apply(variable, steps, source)
    if resolution.mask.all() or 0 in variable.shape:
        return None
    labels = tuple(step.label for step in steps)
    chosen = form_by_size(form, variable)
    mask = smallest_broadcastable(resolution.mask)
    if chosen is None or variable.nbytes <= _KEPT_BYTES:
        value = resolution.frozen_values()
        chosen = resolve_form(form, variable, value, resolution.current)
        if value.nbytes <= _KEPT_BYTES:
            return FrozenVariable(variable, mask, value, chosen, labels)
    # Kept, the values of a large model would fill the memory; so they are read and resolved again when they are needed.
    kept = mask if mask.nbytes <= _KEPT_BYTES else None

    def read_frozen() -> Iterator[npt.NDArray[Any]]:
        again = _apply(variable, steps, source)
        yield from frozen_pieces(again.values, smallest_broadcastable(again.mask) if kept is None else kept)

    return LazyFrozenVariable(
        variable,
        chosen,
        labels,
        math.prod(variable.shape) - broadcast_count(mask, variable.shape),
        mask.shape,
        lambda: smallest_broadcastable(_apply(variable, steps, source).mask) if kept is None else kept,
        lambda: _apply(variable, steps, source).frozen_values(),
        read_frozen,
        at_current=resolution.at_current,
    )


def _apply(variable: Variable, steps: Sequence[_Step], source: VariableSource) -> _Resolution:
    resolution = _Resolution(variable, source)
    for step in steps:
        with step.explained(variable):
            resolution.apply(step)
    return resolution


def _found(step: _Step, variables: Sequence[Variable], source: VariableSource) -> str:
    """What a predicate has met in the variables that its selector matches."""
    if step.selector.predicate is None:
        return ""
    values = [source.read(variable) for variable in variables if 0 not in variable.shape]
    if not values or any(value.dtype.kind == "c" for value in values):
        return f" of {len(variables)} matching variables"
    low, high = min(value.min() for value in values), max(value.max() for value in values)
    names = ", ".join(repr(variable.name) for variable in variables[:3]) + (", ..." if len(variables) > 3 else "")
    return f": w is from {low:.6g} to {high:.6g} in {names}"


def _read_mask(file: ArrayFile, directory: Path | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    array = read_array(file, directory, shape)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iu" or not np.isin(array, (0, 1)).all():
        raise SelectorError(f"{file.label} must hold bool, or the integers 0 and 1; found {array.dtype.name}")
    return array.astype(np.bool_)


def _sorted(variables: dict[Variable, list[_Step]]) -> list[Variable]:
    return sorted(variables, key=lambda variable: (variable.name, variable.object_path))
