"""Kill a sweep whenever another picture has appeared, and at other moments, and start it again until it ends.

A program of its own, so that every attempt can be a fork of a process without threads:
``sweep_worker.py FOLDER MOMENTS COMMAND…``. Prints one line of JSON: the exit code of the last attempt, the number of
attempts, and the pictures that were written twice.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

import featviz_pl.callbacks
import featviz_pl.cli.main
import featviz_pl.sweep.module


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what tells one writing of a picture from another."""
    found = {}
    for path in folder.glob("*/*.png"):
        held = path.stat()
        found[path.relative_to(folder).as_posix()] = held.st_ino, held.st_mtime_ns
    return found


def attempt(command: list[str]) -> int:
    """Start the command in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            code = featviz_pl.cli.main.main(command)
        finally:
            os._exit(code)
    return child


def main(folder: Path, moments: list[float], command: list[str]) -> None:
    """Go on until an attempt ends by itself."""
    attempts, again = 0, set[str]()
    while True:
        attempts += 1
        before = stamps(folder)
        child = attempt(command)
        deadline = time.monotonic() + moments.pop() if moments else None
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            now = stamps(folder)
            if (len(now) > len(before)) if deadline is None else time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.0005)
        after = stamps(folder)
        again |= {name for name, stamp in before.items() if after.get(name) != stamp}
        if done:
            print(
                "REPORT",
                json.dumps({"code": os.waitstatus_to_exitcode(status), "attempts": attempts, "again": sorted(again)}),
            )
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), [float(moment) for moment in sys.argv[2].split(",") if moment], sys.argv[3:])
