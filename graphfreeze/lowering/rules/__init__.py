"""The lowering rules: one family of operations a file. Importing this package fills `lowering.rule.RULES`."""

from __future__ import annotations

import importlib
import pkgutil

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
