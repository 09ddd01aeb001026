"""A cursor over the text of a selector, with errors that point at a column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from graphfreeze.errors import SelectorError

__all__ = ["NUMBER", "Scanner", "parse_number"]

NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_SPACE = re.compile(r"\s*")
_MAX_DEPTH = 32
_MAX_NUMBER_LENGTH = 400
_SHOWN = 20


class Scanner:
    """Reads tokens off a text, from left to right. White space before a token is skipped."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self._depth = 0

    def accept(self, *symbols: str) -> str | None:
        """Take the first of the symbols that comes next, or nothing."""
        self._skip_space()
        for symbol in symbols:
            if self.text.startswith(symbol, self.position):
                self.position += len(symbol)
                return symbol
        return None

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Take what the pattern matches next, or nothing."""
        self._skip_space()
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def expect(self, symbol: str) -> None:
        """Take the symbol, which must come next."""
        if not self.accept(symbol):
            self.fail(repr(symbol))

    def expect_end(self, expected: str) -> None:
        """Fail unless nothing but white space is left."""
        self._skip_space()
        if self.position != len(self.text):
            self.fail(expected)

    def fail(self, expected: str) -> NoReturn:
        """Raise a SelectorError that says what was expected here, and what is here."""
        self._skip_space()
        rest = self.text[self.position : self.position + _SHOWN]
        found = repr(rest) if rest else "the end"
        raise SelectorError(f"expected {expected} at column {self.position + 1}, found {found}")

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Count one level of nesting; too many would exhaust the stack of a recursive parser."""
        if self._depth == _MAX_DEPTH:
            raise SelectorError(f"nested more than {_MAX_DEPTH} levels deep at column {self.position + 1}")
        self._depth += 1
        yield
        self._depth -= 1

    def _skip_space(self) -> None:
        found = _SPACE.match(self.text, self.position)
        if found is not None:
            self.position = found.end()


def parse_number(text: str) -> float:
    """The number that the text spells: an int where it has neither point nor exponent, a float otherwise.

    Raises:
        SelectorError: The number is too long to be meant.
    """
    if len(text) > _MAX_NUMBER_LENGTH:
        raise SelectorError(f"the number {text[:_SHOWN]}... is longer than {_MAX_NUMBER_LENGTH} characters")
    try:
        return int(text)
    except ValueError:
        return float(text)
