"""Compare this library with its peers: the same network, unit, size and number of steps; each library in a process of its own.

    pip install 'featviz_pl[bench]'
    python -m benchmarks.peers --weights squeezenet1_0.pth --json peers.json
    python -m benchmarks.peers --weights squeezenet1_0.pth --json quality.json --parts quality --peers torch-lucent
    torch-dreams

Processes take turns, one at a time. ``step``: median milliseconds, one view for everybody; a step of a peer lies
between two passes through its network. ``features``: features per minute, of one unit, and of many: in batches here, in
a loop there. ``memory``: see `benchmarks.memory`. ``quality``: every peer renders ``--quality-steps`` steps with its
own defaults; the score of its picture, in 256 levels and under held-out views, is then the goal of this library, which
renders with ever more steps of its preset for that, `fast` unless ``--preset`` names another, until a picture reaches
it. A peer that is not installed or fails is left out, with the reason below the tables. Measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._contestants import OWN
from benchmarks._field import Field, add_field_arguments
from benchmarks._networks import SMALL, add_network_arguments
from benchmarks._report import parser, quicken, ratio, report
from benchmarks._worker import Worker
from benchmarks.memory import memory_rows

PARTS = ("step", "features", "memory", "quality")
# Numbers of steps, each the root of two more, and from 64 on the fourth root.
LADDER = (8, 11, 16, 23, 32, 45, 64, 76, 91, 108, 128, 152, 181, 215, 256, 304, 362, 431, 512)
Row = dict[str, Any]


def step_rows(field: Field, options: argparse.Namespace) -> list[Row]:
    """Return the milliseconds of a step for every layer, and how many times those of this library they are."""
    rows = []
    for layer in options.layers:
        job = {"layer": layer, "unit": 0, "size": options.size, "steps": options.steps}

        def turn(worker: Worker, precision: str, job: Row) -> float:
            return float(worker.ask("render", precision=precision, **job)["ms"])

        runs = {name: partial(turn, *entry, job) for name, entry in field.entries(options.precisions).items()}
        results = field.alternate(runs, options.rounds)
        for name, values in results.items():
            row: Row = {"layer": layer, "library": name, "ms": statistics.median(values)}
            for precision in options.precisions:
                ours = results.get(f"{OWN}, {precision}")
                row[f"over {precision}"] = None if ours is None else ratio(values, ours)
            rows.append(row)
    return rows


def feature_rows(field: Field, options: argparse.Namespace) -> list[Row]:
    """Return the features per minute of one unit and of many of the first layer."""
    units = list(range(options.units))
    job = {"layer": options.layers[0], "size": options.size, "steps": options.feature_steps}

    def one(worker: Worker, precision: str) -> float:
        return 60 / float(worker.ask("render", unit=0, precision=precision, **job)["seconds"])

    def many(worker: Worker, precision: str) -> float:
        if worker.name == OWN:
            return (
                60 * len(units) / float(worker.ask("sweep", units=units, batch_size="auto", precision=precision, **job))
            )
        few = units[: options.loop_units]  # one after another: their number does not change how many a minute makes
        return 60 * len(few) / float(worker.ask("loop", units=few, **job))

    entries = field.entries(options.precisions)
    singles = field.alternate({name: partial(one, *entry) for name, entry in entries.items()}, options.rounds)
    manies = field.alternate({name: partial(many, *entry) for name, entry in entries.items() if name in singles}, 1)
    return [
        {
            "library": name,
            "steps": options.feature_steps,
            "1 unit": statistics.median(singles[name]),
            f"{len(units)} units": values[0],
        }
        for name, values in manies.items()
    ]


def first_to_reach(goal: float, ladder: Sequence[int], score: Callable[[int], float]) -> int | None:
    """Return the first number of steps of a ladder whose picture reaches a score, or None.

    >>> first_to_reach(9.0, (1, 2, 4), lambda steps: steps**2)
    4
    """
    return next((steps for steps in ladder if score(steps) >= goal), None)


class Quality:
    """Find how soon this library reaches what its peers have after so many steps."""

    def __init__(self, field: Field, options: argparse.Namespace, folder: str) -> None:
        self.field, self.options, self.folder = field, options, Path(folder)
        self.ladder = [steps for steps in LADDER if steps <= options.quality_steps]
        self._known: dict[tuple[str, str, int], float] = {}

    def job(self, target: str, steps: int) -> Row:
        layer, _, unit = target.partition(":")
        arguments = {"alike": False, "preset": self.options.preset}
        return {"layer": layer, "unit": int(unit), "size": self.options.size, "steps": steps, **arguments}

    def score(self, target: str, file: Path) -> float:
        """Return the score of a saved picture under held-out views."""
        return float(self.field.workers[OWN].ask("scores", files=[str(file)], target=target)[0])

    def own_score(self, target: str, precision: str, steps: int) -> float:
        """Return the score that so many steps of this library reach."""
        key = (target, precision, steps)
        if key not in self._known:
            file = self.folder / "own.npy"
            self.field.workers[OWN].ask("render", file=str(file), precision=precision, **self.job(target, steps))
            self._known[key] = self.score(target, file)
        return self._known[key]

    def own_seconds(self, target: str, precision: str, steps: int) -> float:
        """Return the median seconds of a whole render."""
        ask = partial(self.field.workers[OWN].ask, "render", precision=precision, **self.job(target, steps))
        return statistics.median(float(ask()["seconds"]) for _ in range(self.options.rounds))

    def rows(self, target: str) -> list[Row]:
        """Return a row for each peer and precision."""
        rows: list[Row] = []
        for peer in self.field.peers:
            file = self.folder / f"{len(rows)}.npy"
            answer = self.field.try_to_ask(
                peer, "render", file=str(file), **self.job(target, self.options.quality_steps)
            )
            if answer is None:
                continue
            goal = self.score(target, file)
            for precision in self.options.precisions:
                steps = first_to_reach(goal, self.ladder, partial(self.own_score, target, precision))
                seconds = None if steps is None else self.own_seconds(target, precision, steps)
                rows.append(
                    {
                        "target": target,
                        "peer": peer,
                        "its score": goal,
                        "its seconds": answer["seconds"],
                        "precision": precision,
                        "our steps": steps,
                        "our score": None if steps is None else self.own_score(target, precision, steps),
                        "our seconds": seconds,
                        "sooner": None if seconds is None else answer["seconds"] / seconds,
                    }
                )
        return rows


def quality_rows(field: Field, options: argparse.Namespace) -> list[Row]:
    """Return how soon this library reaches the score of its peers, for every target."""
    if OWN not in field.workers:
        return []
    with tempfile.TemporaryDirectory() as folder:
        quality = Quality(field, options, folder)
        return [row for target in options.quality_targets for row in quality.rows(target)]


def main() -> None:
    options_parser = parser(__doc__, rounds=3)
    add_network_arguments(options_parser)
    add_field_arguments(options_parser)
    options_parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS[:3]), help="(default: all but quality)"
    )
    options_parser.add_argument("--steps", type=int, default=50, help="of a turn whose steps are timed (default: 50)")
    options_parser.add_argument(
        "--feature-steps", type=int, default=32, help="of each picture whose number is counted (default: 32)"
    )
    options_parser.add_argument(
        "--units", type=int, default=64, help="that this library renders in batches (default: 64)"
    )
    options_parser.add_argument(
        "--loop-units", type=int, default=4, help="that a peer renders one after another (default: 4)"
    )
    options_parser.add_argument("--quality-steps", type=int, default=512, help="of the peers' pictures (default: 512)")
    options_parser.add_argument(
        "--quality-targets", nargs="+", default=["features.5:17", "features.9:33", "features.12:100"]
    )
    options_parser.add_argument("--preset", default="fast", help="of this library in part quality (default: fast)")
    options_parser.add_argument(
        "--renders", type=int, default=50, help="after which memory is read again (default: 50)"
    )
    options = options_parser.parse_args()
    quicken(
        options,
        **SMALL,
        **{"steps": 3, "feature_steps": 2, "units": 4, "loop_units": 1, "renders": 2},
        **{"quality_steps": 8, "quality_targets": [f"{SMALL['layers'][0]}:1"]},
    )
    if "quality" in options.parts and options.weights == "none" and not options.quick:
        options_parser.error("quality: units of a network with random weights look for nothing; give --weights")
    parts: dict[str, list[Row]] = {}
    with Field([OWN, *options.peers], options) as field:
        for name, rows in (("step", step_rows), ("features", feature_rows), ("quality", quality_rows)):
            if name in options.parts:
                parts[name] = rows(field, options)
    notes = field.notes
    if "memory" in options.parts:
        parts["memory"], more = memory_rows([OWN, *field.peers], options)
        notes = [*notes, *(note for note in more if note not in notes)]
    report(options, parts, notes)


if __name__ == "__main__":
    main()
