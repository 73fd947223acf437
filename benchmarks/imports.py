"""Time what a user waits for before anything happens: imports, the help of the command line, and a whole `featviz render`.

    python -m benchmarks.imports --json imports.json

Every time is that of a fresh process, from its start to its end; processes alternate, and medians count. Imports of
this library stand beside ``import torch, lightning`` alone: ``every public name`` loads all that ``import featviz_pl``
puts off. ``featviz render`` uses the embedded network and default steps, and ends with its file.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch  # noqa: F401  # the machine's threads are named

from benchmarks._report import alternate, parser, quicken, report

ROOT = Path(__file__).resolve().parents[1]
BASE = "import torch, lightning"
IMPORTS = {
    BASE: BASE,
    "import featviz_pl": "import featviz_pl",
    "every public name": "import featviz_pl; [getattr(featviz_pl, name) for name in featviz_pl.__all__]",
}
Row = dict[str, Any]


def seconds(command: Sequence[str]) -> float:
    """Return the seconds that a fresh process takes.

    Raises:
        SystemExit: when it fails.
    """
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stderr}")
    return time.perf_counter() - began


def import_rows(options: argparse.Namespace) -> list[Row]:
    """Return the seconds of each import, and how many more than the first they are in the same round."""
    runs: dict[str, Callable[[], float]] = {
        name: partial(seconds, [sys.executable, "-c", code]) for name, code in IMPORTS.items()
    }
    runs["featviz --help"] = partial(seconds, [sys.executable, "-m", "featviz_pl", "--help"])
    if not options.quick:
        alternate(runs, 1)  # byte code, and files in the system's cache
    timings = alternate(runs, options.rounds)
    return [
        {
            "what": name,
            "seconds": statistics.median(values),
            "more than torch and lightning": statistics.median(
                value - base for value, base in zip(values, timings[BASE])
            ),
        }
        for name, values in timings.items()
    ]


def render_rows(options: argparse.Namespace) -> list[Row]:
    """Return the seconds of a whole render, for each precision."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "featviz_pl",
            "render",
            "-o",
            str(Path(folder) / "feature.png"),
            *options.render,
        ]
        runs = {precision: partial(seconds, [*command, "--precision", precision]) for precision in options.precisions}
        timings = alternate(runs, options.render_rounds)
    return [
        {"what": f"featviz render, {name}", "seconds": statistics.median(values)} for name, values in timings.items()
    ]


def main() -> None:
    options_parser = parser(__doc__, rounds=7)
    options_parser.add_argument("--render-rounds", type=int, default=3, help="(default: 3)")
    options_parser.add_argument(
        "--precisions", nargs="+", default=["32-true", "bf16-mixed"], help="of the render (default: 32-true bf16-mixed)"
    )
    options = options_parser.parse_args()
    options.render = []
    quicken(options, render_rounds=1, precisions=["32-true"], render=["--steps", "2", "--size", "32"])
    report(options, {"imports": import_rows(options), "render": render_rows(options)})


if __name__ == "__main__":
    main()
