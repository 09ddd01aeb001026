"""The grammar of selectors: text that names elements of variables.

VARIABLE [INDEX] [where PREDICATE] [:= VALUE]
VARIABLE @ MASKFILE [:= VALUE]
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphfreeze.errors import SelectorError
from graphfreeze.selection.array_file import ArrayFile, parse_array_file
from graphfreeze.selection.index import Index, parse_index
from graphfreeze.selection.predicate import Predicate, parse_predicate
from graphfreeze.selection.scanner import NUMBER, Scanner, parse_number

__all__ = ["OBJECT_PREFIX", "Selector", "parse_selector"]

OBJECT_PREFIX = "object:"

# VARIABLE ends where `[`, `@`, `:=` or the word `where` begins. Names may hold spaces.
_VARIABLE = re.compile(r"(?:(?!:=|\swhere(?![\w./-]))[^\[@])+")
_WHERE = re.compile(r"where(?!\w)")
_UP_TO_VALUE = re.compile(r"(?:(?!:=).)*", re.DOTALL)
_VALUE = re.compile(rf"[+-]?(?:{NUMBER.pattern}|inf|nan)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector.

    Attributes:
        text: The text it was parsed from.
        pattern: The name, object path or glob.
        by_object_path: Whether the pattern addresses object paths rather than names.
        index: The INDEX, or None for all elements.
        predicate: The PREDICATE, or None.
        mask_file: The MASKFILE, or None.
        value: What to freeze at: a number, an array in a file, or None for the current value.
    """

    text: str
    pattern: str
    by_object_path: bool
    index: Index | None = None
    predicate: Predicate | None = None
    mask_file: ArrayFile | None = None
    value: float | ArrayFile | None = None

    @property
    def selects_all(self) -> bool:
        """Whether it names every element of its variables."""
        return self.index is None and self.predicate is None and self.mask_file is None

    @property
    def label(self) -> str:
        """The text without the directories of its files, so that it is the same wherever it runs."""
        label = self.text
        for file in (self.mask_file, self.value):
            if isinstance(file, ArrayFile):
                label = label.replace(file.path, ArrayFile(file.path).label)
        return label


def parse_selector(text: str) -> Selector:
    """Parse the text of a selector.

    Raises:
        SelectorError: The text is not a selector; the message says what was expected where.
    """
    try:
        return _parse(text.strip())
    except SelectorError as error:
        raise SelectorError(f"selector {text!r}: {error}") from None


def _parse(text: str) -> Selector:
    scanner = Scanner(text)
    name = (scanner.match(_VARIABLE) or "").strip()
    by_object_path = name.startswith(OBJECT_PREFIX)
    pattern = name.removeprefix(OBJECT_PREFIX) if by_object_path else name.removesuffix(":0")
    if not pattern:
        scanner.fail("the name of a variable, as `inspect` lists it,")
    index = predicate = mask_file = value = None
    expected = "'[', '@', 'where', ':=' or the end"
    if text.startswith("[", scanner.position):
        index = parse_index(scanner)
        expected = "'where', ':=' or the end"
    elif scanner.accept("@"):
        mask_file = _parse_mask_file(scanner)
        expected = "':=' or the end"
    if mask_file is None and scanner.match(_WHERE):
        predicate = parse_predicate(scanner)
        expected = "an operator, ':=' or the end"
    if scanner.accept(":="):
        value = _parse_value(scanner)
        expected = "the end"
    scanner.expect_end(expected)
    return Selector(text, pattern, by_object_path, index, predicate, mask_file, value)


def _parse_mask_file(scanner: Scanner) -> ArrayFile:
    start = scanner.position
    file = parse_array_file(scanner.match(_UP_TO_VALUE) or "")
    if file is None:
        scanner.position = start
        scanner.fail("a mask file, `mask.npy` or `masks.npz[key]`,")
    return file


def _parse_value(scanner: Scanner) -> float | ArrayFile:
    rest = scanner.text[scanner.position :]
    file = parse_array_file(rest)
    if file is not None:
        scanner.position = len(scanner.text)
        return file
    number = scanner.match(_VALUE)
    if number is None:
        scanner.fail("a number or `value.npy`")
    return parse_number(number)
