"""What the benchmarks of speed share: the machine, alternating rounds, medians and ratios of them, tables and JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

Rounds = dict[str, list[float]]
WARM_UP = 20  # steps: caches; and the first 16 of this library's also look for pictures without a gradient
PACKAGES = ("torch", "torchvision", "lightning", "numpy")


class TurnError(Exception):
    """Say why somebody cannot have a turn."""


def alternate(runs: Mapping[str, Callable[[], float]], rounds: int, failed: dict[str, str] | None = None) -> Rounds:
    """Call every run once in each round, and return what they gave: a noisy minute so touches all of them.

    Args:
        runs: by name.
        rounds: 1 or more.
        failed: where given, takes the names of those that raise a `TurnError`, with the reason; they are left out.
    """
    results: Rounds = {name: [] for name in runs}
    out: set[str] = set()
    for _ in range(rounds):
        for name, run in runs.items():
            if name in out:
                continue
            try:
                results[name].append(run())
            except TurnError as error:
                if failed is None:
                    raise
                failed[name] = str(error)
                out.add(name)
    return {name: values for name, values in results.items() if name not in out}


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the ratios within each round.

    >>> ratio([3.0, 40.0, 5.0], [2.0, 20.0, 2.5])
    2.0
    """
    return statistics.median(first / second for first, second in zip(over, under))


def median_step(times: Sequence[float], warm_up: int = WARM_UP) -> float:
    """Return the median of the milliseconds between successive times, without the first steps unless there are no others.

    >>> median_step([0.0, 9.0, 11.0, 14.0], warm_up=1), median_step([0.0, 9.0], warm_up=1)
    (2500.0, 9000.0)
    """
    between = [1e3 * (later - earlier) for earlier, later in pairwise(times)]
    return statistics.median(between[warm_up:] or between) if between else float("nan")


def machine() -> dict[str, Any]:
    """Name what was measured on: processor, cores, memory, threads of torch where it is imported, and versions."""
    torch = sys.modules.get("torch")
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
        if hasattr(os, "sysconf")
        else None,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": None if torch is None else torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := installed(name)) is not None},
    }


def accelerator(options: argparse.Namespace) -> dict[str, str]:
    """Name the device that the command line asks for, where it is another than the processor."""
    if getattr(options, "accelerator", "cpu") == "cpu":
        return {}
    from benchmarks._device import described, device_of

    return {"accelerator": described(device_of(options.accelerator))}


def processor() -> str:
    """Return the model of the processor."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        named = [
            line.partition(":")[2].strip() for line in listed.read_text().splitlines() if line.startswith("model name")
        ]
        if named:
            return named[0]
    return platform.processor() or "unknown"


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table of Markdown, with a column for each key and numbers to the right.

    >>> print(table([{"layer": "a", "ms": 12.0}, {"layer": "long", "ms": 3.25}]))
    | layer |    ms |
    | :---- | ----: |
    | a     | 12.00 |
    | long  |  3.25 |
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key: any(isinstance(row.get(key), (int, float)) for row in rows) for key in columns}
    cells = [columns, *([shown(row.get(key)) for key in columns] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(columns))]

    def line(texts: Sequence[str]) -> str:
        aligned = [
            text.rjust(width) if numeric[key] else text.ljust(width) for text, width, key in zip(texts, widths, columns)
        ]
        return f"| {' | '.join(aligned)} |"

    rule = [f"{'-' * (width - 1)}:" if numeric[key] else f":{'-' * (width - 1)}" for width, key in zip(widths, columns)]
    return "\n".join([line(columns), f"| {' | '.join(rule)} |", *(line(texts) for texts in cells[1:])])


def shown(value: Any) -> str:
    """Return a value as it stands in a table: two decimals, nothing for None.

    >>> shown(1.005), shown(7), shown(None), shown("x")
    ('1.00', '7', '', 'x')
    """
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def parser(doc: str | None, rounds: int, turn: str = "in which everybody has a turn") -> argparse.ArgumentParser:
    """Make a parser with the arguments of every benchmark; `turn` says what happens in a round."""
    options_parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options_parser.add_argument("--rounds", type=int, default=rounds, help=f"{turn} (default: {rounds})")
    options_parser.add_argument("--json", metavar="FILE", help="write the results to a file, too")
    options_parser.add_argument(
        "--quick",
        action="store_true",
        help="a tiny network, few steps, one round: shows in seconds that all of it runs",
    )
    return options_parser


def quicken(options: argparse.Namespace, **small: Any) -> None:
    """Put small values in the place of those that are given, where a quick run is asked for."""
    if options.quick:
        vars(options).update({"rounds": 1, **small})


def report(
    options: argparse.Namespace, parts: Mapping[str, Sequence[Mapping[str, Any]]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Print the machine, a table for each part and notes, write JSON where that is asked for, and return what it holds."""
    results: dict[str, Any] = {
        "command": " ".join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "machine": machine() | accelerator(options),
        "settings": {name: value for name, value in vars(options).items() if name != "json"},
        "parts": {name: [dict(row) for row in rows] for name, rows in parts.items()},
        "notes": list(notes),
    }
    print("; ".join(f"{name} {value}" for name, value in results["machine"].items() if value is not None))
    for name, rows in parts.items():
        if rows:
            print(f"\n{name}\n\n{table(rows)}")
    if notes:
        print("\n" + "\n".join(notes))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return results


def quiet() -> None:
    """Silence what Lightning says of every run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
