"""How the prover says that something could not be proven."""

from __future__ import annotations

from typing import Any, NoReturn

from graphfreeze.errors import VerificationError

__all__ = ["refuse"]


def refuse(
    message: str,
    *,
    variable: str | None = None,
    function: str | None = None,
    node: str | None = None,
    **facts: Any,
) -> NoReturn:
    """Raise a VerificationError that names where the proof fails.

    Args:
        message: What was expected and what was found.
        variable: The variable concerned.
        function: The function of the rewritten model, or `the main graph`.
        node: The node in that function.
        **facts: More JSON-serialisable facts for `details`.

    Raises:
        VerificationError: Always.
    """
    place = [
        f"{label} {value!r}"
        for label, value in (("variable", variable), ("function", function), ("node", node))
        if value is not None
    ]
    where = f" [{', '.join(place)}]" if place else ""
    details = {"variable": variable, "function": function, "node": node, **facts}
    raise VerificationError(
        f"{message}{where}. The output does not match its plan: do not use it, rewrite the original model again.",
        {key: value for key, value in details.items() if value is not None},
    )
