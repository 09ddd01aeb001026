"""Globs over variable names: `*` and `?` stay within one segment, `**` crosses `/`."""

from __future__ import annotations

import re

__all__ = ["is_glob", "matches_glob"]

# `**/` is a token of its own where a segment begins: any number of whole segments, none included.
_TOKEN = re.compile(r"(?:^|(?<=/))\*\*/|\*\*|.", re.DOTALL)
_STARS = ("*", "**", "**/")


def is_glob(pattern: str) -> bool:
    """Whether the text holds a wildcard."""
    return "*" in pattern or "?" in pattern


def matches_glob(pattern: str, name: str) -> bool:
    """Whether the glob matches the whole name. `**/kernel` finds `kernel` as well as `a/b/kernel`.

    All places in the pattern that the name may have reached are followed at once: no pattern takes longer than
    its length times that of the name, which a translation to a regular expression does not promise.
    """
    tokens: list[str] = _TOKEN.findall(re.sub(r"\*{3,}", "**", pattern))
    places: set[int] = set()
    _arrive(0, tokens, places)
    for character in name:
        following: set[int] = set()
        for place in places:
            if place == len(tokens):
                continue
            token = tokens[place]
            if token == "**/":
                following.add(place)
                if character == "/":
                    _arrive(place + 1, tokens, following)
            elif token == "**" or (token == "*" and character != "/"):
                _arrive(place, tokens, following)
            elif token == character or (token == "?" and character != "/"):
                _arrive(place + 1, tokens, following)
        places = following
        if not places:
            return False
    return len(tokens) in places


def _arrive(place: int, tokens: list[str], places: set[int]) -> None:
    """Add the place, and those behind it that can be reached because a star may match nothing."""
    places.add(place)
    while place < len(tokens) and tokens[place] in _STARS:
        place += 1
        places.add(place)
