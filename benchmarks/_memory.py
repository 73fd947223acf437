"""Memory of this process, in MiB: in use now, and the most since the last reset (Linux; elsewhere the most since the start)."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path


def _status(name: str) -> float | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return None


def peak() -> float:
    """Return the most that was in use."""
    kibibytes = _status("VmHWM")
    if kibibytes is not None:
        return kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def resident() -> float:
    """Return what is in use now."""
    kibibytes = _status("VmRSS")
    return peak() if kibibytes is None else kibibytes


def reset_peak() -> None:
    """Begin anew to look for the most in use."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
