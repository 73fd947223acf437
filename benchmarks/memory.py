"""Measure memory: of one picture, of many more after it, and of many units in batches, above that of the imports.

    python -m benchmarks.memory --weights squeezenet1_0.pth --json memory.json

Every library in a fresh process, one after another, on the same network, unit and size. ``one unit``: the most above
the imports while one picture is made, the network itself included. ``grown``: what so many further pictures add to what
is in use after the first ten. ``in batches``: the most above the imports while a sweep renders ``--units`` units, in a
fresh process again. On a GPU (``--accelerator gpu``) it is the memory of tensors there, as torch counts it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks._contestants import OWN
from benchmarks._field import FULL, Field, add_field_arguments
from benchmarks._networks import SMALL, add_network_arguments
from benchmarks._report import parser, quicken, report

FIRST = 10  # pictures after which the memory is expected to stand still: caches, and arenas of the allocator
STEPS = 3  # of each picture: the first makes the state of the optimizer, the second and third show the most
Row = dict[str, Any]


def memory_rows(names: Sequence[str], options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """Return a row for each library and precision, in MiB, and notes."""
    rows: list[Row] = []
    notes: list[str] = []
    for name in names:
        for precision in options.precisions if name == OWN else [FULL]:
            with Field([name], options) as field:
                row = _of_renders(field, name, precision, options)
                notes += [note for note in field.notes if note not in notes]
            if row is not None:
                rows.append(row)
            if row is not None and name == OWN:
                with Field([name], options) as field:
                    row["in batches"] = _of_a_sweep(field, precision, options)
    return rows, notes


def _of_renders(field: Field, name: str, precision: str, options: argparse.Namespace) -> Row | None:
    if name not in field.workers:
        return None
    job = {"layer": options.layers[-1], "unit": 0, "size": options.size, "steps": STEPS, "precision": precision}
    if field.try_to_ask(name, "render", **job) is None:
        return None
    worker = field.workers[name]
    most = worker.ask("memory")["peak"]
    units = list(range(1, FIRST + 1)) if not options.quick else [1]
    worker.ask("loop", units=units, **_without_unit(job))
    before, alive = worker.ask("memory")["now"], worker.ask("alive")
    worker.ask("loop", units=[unit % 8 for unit in range(options.renders)], **_without_unit(job))
    after, more = worker.ask("memory")["now"], worker.ask("alive")
    row: Row = {
        "library": name if name != OWN else f"{name}, {precision}",
        "one unit": most,
        f"grown by {options.renders}": after - before,
    }
    return row | {f"{kind} left": more[kind] - alive[kind] for kind in alive}


def _of_a_sweep(field: Field, precision: str, options: argparse.Namespace) -> float | None:
    job = {"layer": options.layers[-1], "size": options.size, "steps": STEPS, "precision": precision}
    units = list(range(options.units))
    if OWN not in field.workers or field.try_to_ask(OWN, "sweep", units=units, batch_size="auto", **job) is None:
        return None
    return float(field.workers[OWN].ask("memory")["peak"])


def _without_unit(job: Row) -> Row:
    return {name: value for name, value in job.items() if name != "unit"}


def main() -> None:
    options_parser = parser(__doc__, rounds=1)
    add_network_arguments(options_parser)
    add_field_arguments(options_parser)
    options_parser.add_argument("--units", type=int, default=64, help="of the sweep (default: 64)")
    options_parser.add_argument(
        "--renders", type=int, default=50, help="after which memory is read again (default: 50)"
    )
    options = options_parser.parse_args()
    quicken(options, **SMALL, units=4, renders=2)
    rows, notes = memory_rows([OWN, *options.peers], options)
    report(options, {"memory, MiB": rows}, notes)


if __name__ == "__main__":
    main()
