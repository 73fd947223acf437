"""Count the features per minute of a sweep: batch sizes and precisions, against single renders and a loop of the fastest peer.

    python -m benchmarks.sweep --weights squeezenet1_0.pth --json sweep.json

Units of the first layer, each in the same number of steps of one view. Everybody renders a share of the units in every
round; loops render fewer of them, because each render takes as long as the one before. Times are of whole calls, files
included for the sweep. The fastest peer is the one with the shortest step in a first trial.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks._contestants import OWN
from benchmarks._field import Field, add_field_arguments
from benchmarks._networks import SMALL, add_network_arguments
from benchmarks._report import parser, quicken, ratio, report
from benchmarks._worker import Worker, WorkerError

TRIAL = 26  # steps
Row = dict[str, Any]


def fastest_peer(field: Field, job: Row) -> str | None:
    """Return the peer with the shortest step, or None where there is none."""
    tried = {name: field.try_to_ask(name, "render", **{**job, "unit": 0, "steps": TRIAL}) for name in field.peers}
    known = {name: float(answer["ms"]) for name, answer in tried.items() if answer is not None}
    return min(known, key=known.__getitem__) if known else None


def shares(units: Sequence[int], rounds: int) -> list[list[int]]:
    """Divide units over rounds.

    >>> shares(range(5), 2)
    [[0, 2, 4], [1, 3]]
    """
    return [list(units[start::rounds]) for start in range(rounds)]


def per_minute(worker: Worker, do: str, parts: Iterator[list[int]], job: Row) -> Callable[[], float]:
    """Return a run that renders the next share of the units and gives the features per minute."""

    def run() -> float:
        units = next(parts)
        return 60 * len(units) / float(worker.ask(do, units=units, **job))

    return run


def batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


def sweep_rows(field: Field, options: argparse.Namespace) -> list[Row]:
    """Return a row for each way to render the units."""
    job: Row = {"layer": options.layers[0], "size": options.size, "steps": options.steps}
    all_units = shares(range(options.units), options.rounds)
    few = [share[: options.loop_units] for share in all_units]
    ours, runs = field.workers[OWN], {}
    for precision in options.precisions:
        exact = {**job, "precision": precision}
        for size in options.batch_sizes:
            batch = size if size == "auto" else min(int(size), len(all_units[0]))
            runs[f"sweep, {precision}, batch {size}"] = per_minute(
                ours, "sweep", iter(all_units), {**exact, "batch_size": batch}
            )
        runs[f"single renders, {precision}"] = per_minute(ours, "loop", iter(few), exact)
    peer = fastest_peer(field, job)
    if peer is not None:
        runs[peer] = per_minute(field.workers[peer], "loop", iter(few), job)
    results = field.alternate(runs, options.rounds)
    rows = []
    for name, values in results.items():
        row: Row = {"what": name, "features per minute": statistics.median(values)}
        row["times the peer"] = ratio(values, results[peer]) if peer is not None and peer in results else None
        single = results.get(f"single renders, {options.precisions[0]}")
        row[f"times single renders, {options.precisions[0]}"] = None if single is None else ratio(values, single)
        rows.append(row)
    return rows


def main() -> None:
    options_parser = parser(__doc__, rounds=2)
    add_network_arguments(options_parser)
    add_field_arguments(options_parser)
    options_parser.add_argument("--units", type=int, default=64, help="that are rendered (default: 64)")
    options_parser.add_argument(
        "--loop-units", type=int, default=4, help="that a loop renders in each round (default: 4)"
    )
    options_parser.add_argument("--steps", type=int, default=48, help="of each picture (default: 48)")
    options_parser.add_argument(
        "--batch-sizes", nargs="+", type=batch_size, default=[1, 4, 8, 16, "auto"], help="(default: 1 4 8 16 auto)"
    )
    options = options_parser.parse_args()
    quicken(options, **SMALL, units=4, loop_units=1, steps=2, batch_sizes=[2, "auto"])
    with Field([OWN, *options.peers], options) as field:
        if OWN not in field.workers:
            raise WorkerError(field.notes[0])
        rows = sweep_rows(field, options)
    report(options, {f"{options.units} units of {options.layers[0]}, {options.steps} steps": rows}, field.notes)


if __name__ == "__main__":
    main()
