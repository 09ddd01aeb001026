"""JSON objects that are read strictly: each key with its type, and none left over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphfreeze.errors import ArtifactReadError

__all__ = ["JsonObject"]

# Of what is found in place of something else, so many characters tell enough.
_SHOWN = 120


class JsonObject:
    """A JSON object that is read key by key, each with its type; `finish` refuses what is left over.

    Args:
        values: What it holds.
        where: What messages call it.

    Raises:
        ArtifactReadError: From every method: a key is missing, unknown or of a wrong type.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def missing(self, key: str) -> None:
        """Refuse the object for a key that it lacks."""
        raise ArtifactReadError(f"{self._where} lacks the key {key!r}. Run `graphfreeze rewrite` again.")

    def wrong(self, key: str, expected: str, found: object) -> None:
        """Refuse the object for what a key holds."""
        text = repr(found)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise ArtifactReadError(
            f"{self._where}: {key!r} should be {expected}, found {shown}. Run `graphfreeze rewrite` again."
        )

    def finish(self) -> None:
        """Refuse keys that were not read."""
        unknown = sorted(set(self._values) - self._read)
        if unknown:
            raise ArtifactReadError(
                f"{self._where} has the unknown key {unknown[0]!r}. It was written by another version of graphfreeze."
            )

    def _take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        if key not in self._values:
            self.missing(key)
        value = self._values[key]
        # bool is an int to isinstance, and never one in the manifest.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.wrong(key, expected, value)
        self._read.add(key)
        return value

    def _take_all(self, key: str, kind: type | tuple[type, ...], expected: str) -> tuple[Any, ...]:
        values = self._take(key, list, expected)
        if any(not isinstance(value, kind) or isinstance(value, bool) for value in values):
            self.wrong(key, expected, values)
        return tuple(values)

    def _is_null(self, key: str) -> bool:
        if key not in self._values:
            self.missing(key)
        self._read.add(key)
        return self._values[key] is None

    def text(self, key: str) -> str:
        """A string."""
        return str(self._take(key, str, "a string"))

    def text_or_null(self, key: str) -> str | None:
        """A string, or None."""
        return None if self._is_null(key) else self.text(key)

    def integer(self, key: str) -> int:
        """An integer."""
        return int(self._take(key, int, "an integer"))

    def number(self, key: str) -> float:
        """A number."""
        return float(self._take(key, (int, float), "a number"))

    def boolean(self, key: str) -> bool:
        """True or false."""
        return bool(self._take(key, bool, "true or false"))

    def texts(self, key: str) -> tuple[str, ...]:
        """Strings."""
        return self._take_all(key, str, "a list of strings")

    def integers(self, key: str) -> tuple[int, ...]:
        """Integers."""
        return self._take_all(key, int, "a list of integers")

    def symbolic_shape(self, key: str) -> tuple[int | str, ...]:
        """Sizes, and names that stand for some."""
        return self._take_all(key, (int, str), "a list of integers and names")

    def permutation(self, key: str) -> tuple[int, ...] | None:
        """Axes, or None."""
        return None if self._is_null(key) else self.integers(key)

    def mapping(self, key: str) -> dict[str, Any]:
        """An object as it is."""
        return dict(self._take(key, dict, "an object"))

    def texts_by_name(self, key: str) -> dict[str, str]:
        """An object that holds strings alone."""
        values = self.mapping(key)
        if any(not isinstance(value, str) for value in values.values()):
            self.wrong(key, "an object of strings", values)
        return values

    def object(self, key: str) -> JsonObject:
        """An object, to be read in its turn."""
        return JsonObject(self.mapping(key), f"{self._where}: {key}")

    def objects(self, key: str) -> list[JsonObject]:
        """Objects, to be read in their turn."""
        values = self._take_all(key, dict, "a list of objects")
        return [JsonObject(value, f"{self._where}: {key}[{index}]") for index, value in enumerate(values)]

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of some strings."""
        value = self.text(key)
        if value not in choices:
            self.wrong(key, "one of " + ", ".join(choices), value)
        return value

    def file_name(self, key: str) -> str:
        """A plain file name: an artifact never refers to a file outside its directory."""
        value = self.text(key)
        if not value or value in (".", "..") or any(separator in value for separator in "/\\:"):
            self.wrong(key, "a file name without a directory", value)
        return value
