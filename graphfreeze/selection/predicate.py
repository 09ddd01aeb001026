"""PREDICATE: a condition on the current value `w` of a variable. Parsed here, never run as Python.

Loosest first: `|`, `&`, one comparison, `+` and `-`, `*` and `/`, a sign or `~`, then `w`, `abs(...)`, a number,
`inf`, `nan`, parentheses. `~` wants a condition, so that `~w == 0` cannot be misread.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import SelectorError
from graphfreeze.selection.dtypes import cast_number, dtype_kind
from graphfreeze.selection.scanner import NUMBER, Scanner, parse_number

__all__ = ["Predicate", "evaluate", "parse_predicate"]

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"&": np.logical_and, "|": np.logical_or}
_UNARY: dict[str, Callable[[Any], Any]] = {"~": np.logical_not, "negative": operator.neg, "abs": abs}
_BINARY = _COMPARISONS | _ARITHMETIC | _LOGIC
_CONDITIONS = {*_COMPARISONS, *_LOGIC, "~"}
_CONSTANTS = {"inf": float("inf"), "nan": float("nan")}
_PYTHON_WORDS = {"and": "&", "or": "|", "not": "~"}
_NAME = re.compile(r"[^\W0-9]\w*")
# Bounds the depth of the tree that `evaluate` walks.
_MAX_OPERATORS = 200


@dataclass(frozen=True, slots=True)
class Predicate:
    """A node of the parsed condition.

    Attributes:
        operator: `w`, `number`, or the operator that joins the operands.
        operands: What it is applied to.
        number: The value of a `number`.
    """

    operator: str
    operands: tuple[Predicate, ...] = ()
    number: float = 0

    @property
    def is_condition(self) -> bool:
        """Whether it yields true or false rather than a number."""
        return self.operator in _CONDITIONS

    @property
    def mentions_w(self) -> bool:
        """Whether it depends on the variable at all."""
        return self.operator == "w" or any(operand.mentions_w for operand in self.operands)


def parse_predicate(scanner: Scanner) -> Predicate:
    """Read a PREDICATE.

    Raises:
        SelectorError: The text is not a condition on `w`.
    """
    predicate = _Parser(scanner).disjunction()
    if not predicate.is_condition:
        scanner.fail("a comparison, as in `w == 0`")
    if not predicate.mentions_w:
        raise SelectorError("the predicate does not mention `w`, the current value, as in `w == 0`")
    return predicate


def evaluate(predicate: Predicate, value: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """The elements of the value for which the predicate holds, as numpy computes it in the value's dtype.

    Raises:
        SelectorError: A number does not fit the dtype, or the dtype knows no such operation.
    """
    # One axis, because numpy promotes 0-d arrays by other rules.
    flat = value.reshape(-1)
    try:
        with np.errstate(all="ignore"):
            result = _evaluate(predicate, flat)
    except ZeroDivisionError:
        raise SelectorError("the predicate divides by zero") from None
    except (OverflowError, TypeError) as error:
        raise SelectorError(f"the predicate cannot be computed in {value.dtype.name}: {error}") from None
    return np.asarray(result, np.bool_).reshape(value.shape)


def _evaluate(node: Predicate, w: npt.NDArray[Any]) -> Any:
    if node.operator == "w":
        return w
    if node.operator == "number":
        return node.number
    operands = [_evaluate(operand, w) for operand in node.operands]
    if len(operands) == 1:
        return _UNARY[node.operator](operands[0])
    left, right = operands
    if node.operator not in _LOGIC:
        left, right = _in_dtype_of(right, left), _in_dtype_of(left, right)
        if node.operator in ("<", ">", "<=", ">=") and any(np.iscomplexobj(side) for side in (left, right)):
            raise SelectorError(f"complex numbers have no order: compare abs(w) instead of using {node.operator} on w")
    return _BINARY[node.operator](left, right)


def _in_dtype_of(array: Any, number: Any) -> Any:
    """A number that meets a floating-point array enters the array's dtype; integers are left to numpy."""
    meets = isinstance(array, np.ndarray) and isinstance(number, int | float)
    return (
        cast_number(number, array.dtype) if meets and dtype_kind(array.dtype.name) in ("float", "complex") else number
    )


class _Parser:
    """Recursive descent over a scanner; one method for each level of precedence."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._operators = 0

    def disjunction(self) -> Predicate:
        left = self._conjunction()
        while self._accept("|"):
            left = self._join("|", self._condition("|", left), self._condition("|", self._conjunction()))
        return left

    def _conjunction(self) -> Predicate:
        left = self._comparison()
        while self._accept("&"):
            left = self._join("&", self._condition("&", left), self._condition("&", self._comparison()))
        return left

    def _comparison(self) -> Predicate:
        left = self._sum()
        symbol = self._accept(*_COMPARISONS)
        if not symbol:
            return left
        result = self._join(symbol, self._number(symbol, left), self._number(symbol, self._sum()))
        if self._accept(*_COMPARISONS):
            raise SelectorError("comparisons cannot be chained: write `(w > -1) & (w < 1)`")
        return result

    def _sum(self) -> Predicate:
        left = self._product()
        while symbol := self._accept("+", "-"):
            left = self._join(symbol, self._number(symbol, left), self._number(symbol, self._product()))
        return left

    def _product(self) -> Predicate:
        left = self._unary()
        while symbol := self._accept("*", "/"):
            left = self._join(symbol, self._number(symbol, left), self._number(symbol, self._unary()))
        return left

    def _unary(self) -> Predicate:
        with self._scanner.nested():
            if self._accept("~"):
                return self._join("~", self._condition("~", self._unary()))
            if self._accept("-"):
                return self._join("negative", self._number("-", self._unary()))
            if self._accept("+"):
                return self._number("+", self._unary())
            return self._primary()

    def _primary(self) -> Predicate:
        if self._accept("("):
            inner = self.disjunction()
            self._scanner.expect(")")
            return inner
        text = self._scanner.match(NUMBER)
        if text is not None:
            return Predicate("number", number=parse_number(text))
        name = self._scanner.match(_NAME)
        if name is None:
            self._scanner.fail("`w`, `abs(...)`, a number or '('")
        if name == "w":
            return Predicate("w")
        if name in _CONSTANTS:
            return Predicate("number", number=_CONSTANTS[name])
        if name == "abs":
            self._scanner.expect("(")
            inner = self._number("abs", self.disjunction())
            self._scanner.expect(")")
            return self._join("abs", inner)
        if name in _PYTHON_WORDS:
            raise SelectorError(f"a predicate writes {name!r} as `{_PYTHON_WORDS[name]}`")
        raise SelectorError(
            f"unknown name {name!r} in the predicate, which knows w (the current value), abs, {', '.join(_CONSTANTS)}"
        )

    def _accept(self, *symbols: str) -> str | None:
        return self._scanner.accept(*symbols)

    def _join(self, symbol: str, *operands: Predicate) -> Predicate:
        self._operators += 1
        if self._operators > _MAX_OPERATORS:
            raise SelectorError(f"the predicate has more than {_MAX_OPERATORS} operators; use a mask file")
        return Predicate(symbol, operands)

    def _condition(self, symbol: str, node: Predicate) -> Predicate:
        if not node.is_condition:
            raise SelectorError(
                f"`{symbol}` applies to conditions, as in `(w > -1) & ~(w == 0)`; "
                f"found a number before column {self._scanner.position + 1}"
            )
        return node

    def _number(self, symbol: str, node: Predicate) -> Predicate:
        if node.is_condition:
            raise SelectorError(
                f"`{symbol}` applies to numbers; found a condition before column {self._scanner.position + 1}"
            )
        return node
