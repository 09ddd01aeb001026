"""The independent prover: is the rewritten SavedModel on disk what the freeze plan says, and nothing else?

It shares no code with `graphfreeze.passes` and `graphfreeze.savedmodel`, and it works the other way round: instead of
rewriting the original and comparing, it walks both models in lock-step and has to explain every difference.
"""

from __future__ import annotations

from graphfreeze.prover.file_bytes import CopiesBeingWritten
from graphfreeze.prover.prove import prove

__all__ = ["CopiesBeingWritten", "prove"]
