"""Why a target is missed, as the profiles of onnxruntime show it. docs/benchmarks.md has these where it is missed."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["REASONS"]

REASONS: Mapping[str, str] = {}
