"""What the measurements were made on, without its name."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe_machine", "load"]


def describe_machine() -> dict[str, str]:
    """Processor, cores, memory, system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }


def load() -> float:
    """The average number of processes that wanted to run in the last minute."""
    return os.getloadavg()[0]


def _processor_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    cleaned = {key.strip(): value.strip() for key, value in fields.items()}
    model = cleaned.get("model name") or platform.processor() or platform.machine()
    features = [name for name in ("avx2", "avx512f") if name in cleaned.get("flags", "").split()]
    family = f" (family {cleaned['cpu family']}, model {cleaned['model']})" if "cpu family" in cleaned else ""
    return model + family + "".join(f", {name}" for name in features)
