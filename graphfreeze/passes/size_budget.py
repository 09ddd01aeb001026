"""The limit of a serialised protobuf."""

from __future__ import annotations

from graphfreeze.errors import UnsupportedError
from graphfreeze.passes.storage import StoredConstants

__all__ = ["PROTOBUF_LIMIT", "SizeBudget"]

PROTOBUF_LIMIT = 2**31 - 1


class SizeBudget:
    """Counts what a SavedModel's graph grows to, and refuses it before memory is spent.

    Args:
        used: The bytes that the graph takes so far.
        limit: The bytes that it may take.
        stored: The constants that go into the checkpoint instead.
    """

    def __init__(self, used: int, limit: int = PROTOBUF_LIMIT, stored: StoredConstants | None = None) -> None:
        self.used = used
        self.stored = stored or StoredConstants()
        self.limit = limit

    def take(self, size: int) -> None:
        """Account for more bytes.

        Raises:
            UnsupportedError: The graph would be larger than protobuf can serialise.
        """
        self.used += size
        if self.used > self.limit:
            raise UnsupportedError(
                f"The masks and frozen values make saved_model.pb larger than {self.limit} bytes, which protobuf "
                "cannot hold. Freeze fewer elements, whole rows or whole columns: their masks are small."
            )
