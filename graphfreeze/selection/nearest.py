"""What the user may have meant: the names nearest to one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["nearest_names", "suggest"]

_COUNT = 3
_CUTOFF = 0.5
# Nobody means a longer name, and comparing takes time in proportion.
_MAX_LENGTH = 200


def nearest_names(wrong: str, names: Iterable[str]) -> list[str]:
    """Up to three of the names, nearest first; the first three of them where none is near."""
    candidates = list(dict.fromkeys(names))
    wrong = wrong.replace("*", "")[:_MAX_LENGTH]
    scores = {name: _likeness(wrong, name) for name in candidates}
    near = sorted((name for name in candidates if scores[name] >= _CUTOFF), key=lambda name: -scores[name])
    return near[:_COUNT] or candidates[:_COUNT]


def suggest(wrong: str, names: Iterable[str]) -> str:
    """The half sentence that ends an error about a wrong name."""
    found = nearest_names(wrong, names)
    return f"the nearest: {', '.join(found)}" if found else "there is none"


def _likeness(wrong: str, name: str) -> float:
    """How alike the names are as a whole, or nearly so much their last segments."""
    whole = SequenceMatcher(None, wrong, name).ratio()
    last = SequenceMatcher(None, wrong.rpartition("/")[2], name.rpartition("/")[2]).ratio()
    return max(whole, 0.9 * last)
