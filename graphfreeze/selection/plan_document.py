"""Whether the JSON of a plan has the types that the rest relies on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["check_plan_document"]

_LARGEST = 2**63 - 1


def check_plan_document(document: Mapping[str, Any]) -> None:
    """Check the types of everything in `plan.json`, and that sizes are sizes.

    Raises:
        ValueError: Something is of another type; the message names it.
        KeyError: Something is missing.
        TypeError: An entry is no object.
    """
    _check_texts("only_in", document["only_in"])
    if "tags" in document:
        _check_texts("tags", document["tags"])
    for entry in document["variables"]:
        for key in ("name", "object_path", "dtype", "form"):
            _check(key, entry[key], isinstance(entry[key], str), "a string")
        _check("trainable", entry["trainable"], isinstance(entry["trainable"], bool), "true or false")
        shape = entry["shape"]
        sizes = isinstance(shape, list) and all(map(_is_size, shape)) and math.prod(shape) <= _LARGEST
        _check("shape", shape, sizes, "a list of sizes")
        for key in ("elements", "frozen_elements"):
            _check(key, entry[key], _is_size(entry[key]), "a number of elements")
        _check_texts("selectors", entry["selectors"])


def _check_texts(key: str, found: Any) -> None:
    _check(key, found, isinstance(found, list) and all(isinstance(item, str) for item in found), "a list of strings")


def _is_size(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _LARGEST


def _check(key: str, found: Any, right: bool, expected: str) -> None:
    if not right:
        raise ValueError(f"{key} should be {expected}, found {str(found)[:80]!r}")
