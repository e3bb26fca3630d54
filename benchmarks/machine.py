"""What a measurement ran on: without it, a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """The machine and how busy it is: `processor`, `cores`, `memory_gib`, `system`, `load_average_1min`."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Python's version and those of installed packages, by name."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def process_cpu_s(pid: int) -> float:
    """Processor time that a process has taken so far, in seconds, up to 0.02 too low (see proc(5), `stat`)."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    user, system = int(after_name[11]), int(after_name[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def _field(path: Path, name: str) -> str | None:
    """The first value of a field in a file of `name : value` lines."""
    if not path.exists():
        return None
    values = [
        line.partition(":")[2].strip()
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(name)
    ]
    return values[0] if values else None
