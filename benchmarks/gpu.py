"""Measure the steps of a sweep on a GPU: how many features an hour, what share of the device's peak, and where the time goes.

    python -m benchmarks.gpu --json gpu.json

Every row is a sweep of one batch (`FeatureSweep`, the default preset, `Trainer.predict`); weights are random, since
time does not depend on them. ``steps``: after a first stretch of 32 steps, rounds of 32 are timed, each from a moment
at which the device has done all that it was asked for to the next one; a sweep looks at its pictures, and so waits,
that often by itself. ``features per hour`` is what such steps alone give at the preset's number of them: without the
first 16, which may cost a second pass, without scores and files. ``GFLOP`` are those of a step as torch counts them,
see `benchmarks._rates`; ``share of peak`` is the time that they would take at the rate of large matrix products,
measured on the same device in the same arithmetic, of the time that they take. ``memory`` is what tensors took on the
device at most. ``where the time goes``: eight steps of another run under `torch.profiler`, see `benchmarks._where`;
shares of the device are its kernels' time of a step's time without the profiler, and ``idle`` is what is left. A batch
that does not fit into the memory gets a row that says so.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer

import featviz_pl as fv
from benchmarks import _where
from benchmarks._device import add_accelerator_argument, device_of, most_allocated, now, reset_most_allocated
from benchmarks._networks import MEAN, QUICK_LAYER, STD, TINY, build
from benchmarks._rates import Counts, operations, peaks, share_of_peak
from benchmarks._report import parser, quicken, quiet, report
from featviz_pl.engine import Ascent
from featviz_pl.presets import DEFAULT_PRESET, recipe
from featviz_pl.sweep import FeatureTargets

STRETCH = 32  # steps between two looks of a sweep at its pictures
PROFILED = 8  # steps
TARGETS = ("resnet50:layer3.2", "vit_b_16:encoder.layers.encoder_layer_6.mlp")
Row = dict[str, Any]


class Job(NamedTuple):
    """Say what is measured.

    Args:
        network: that is shown the pictures.
        layer: whose first units are rendered.
        pictures: how many.
        precision: of the network.
        options: of the command line: size, accelerator, rounds.
    """

    network: fv.FrozenNetwork
    layer: str
    pictures: int
    precision: str
    options: argparse.Namespace


class Batch(fv.FeatureSweep):
    """Sweep one batch, and keep its ascent.

    Args:
        job: what is rendered.
        steps: of each picture.
        ranges: whether to lay ranges around the parts of a step.
    """

    def __init__(self, job: Job, steps: int, ranges: bool = False) -> None:
        super().__init__(job.network, size=job.options.size, steps=steps)
        self.job, self.ranges, self.where = job, ranges, device_of(job.options.accelerator)
        self.solved: Ascent | None = None

    def ascent(self, layer: str, units: Sequence[int], device: torch.device | str) -> Ascent:
        self.solved = super().ascent(layer, units, device)
        if self.ranges:
            _where.lay_ranges(self.solved)
        return self.solved

    def run(self, on_step: Callable[[int], None]) -> Ascent:
        """Render the batch, and say after every step which one it was; return the ascent."""
        self.on_render_step = on_step
        Trainer(
            accelerator="gpu" if self.where.type != "cpu" else "cpu",
            devices=1,
            precision=self.job.precision,  # type: ignore[arg-type]  # one of Lightning's
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).predict(
            self,
            FeatureTargets(f"{self.job.layer}:0-{self.job.pictures - 1}", self.job.pictures),
            return_predictions=False,
        )
        assert self.solved is not None
        return self.solved


def timed(job: Job) -> tuple[float, float | None, Counts]:
    """Return the seconds of a step, the most memory that the device needed, and the operations of a step."""
    batch = Batch(job, STRETCH * (1 + job.options.rounds))
    ends: list[float] = []

    def note(step: int) -> None:
        if step % STRETCH == STRETCH - 1:
            ends.append(now(batch.where))

    solved = batch.run(note)
    seconds, memory = (
        statistics.median(later - earlier for earlier, later in pairwise(ends)) / STRETCH,
        most_allocated(batch.where),
    )
    with torch.autocast(batch.where.type, torch.bfloat16, enabled=job.precision == "bf16-mixed"):
        return seconds, memory, operations(solved)


def profiled(job: Job) -> tuple[_where.Times, _where.Times]:
    """Return the milliseconds that each part of a step takes on the host, and those of its kernels."""
    batch = Batch(job, STRETCH + PROFILED + 2, ranges=True)
    watch, watching = _where.profiler(batch.where), ExitStack()

    def turn(step: int) -> None:
        if step == STRETCH:  # one step behind the look at the end of the stretch
            now(batch.where)
            watching.enter_context(watch)
        elif step == STRETCH + PROFILED:
            now(batch.where)
            watching.close()

    with _where.gradients_ranged(), watching:  # also where the memory ends
        batch.run(turn)
    host, kernels = _where.times(watch.events() or [])
    return {part: value / PROFILED for part, value in host.items()}, {
        part: value / PROFILED for part, value in kernels.items()
    }


def shares(milliseconds: _where.Times, total: float) -> Row:
    """Return percentages of a whole.

    >>> shares({"decode": 1.0, "views": 3.0}, 8.0)
    {'decode': 12.5, 'views': 37.5}
    """
    return {part: 100 * value / total for part, value in milliseconds.items()}


def step_row(
    seconds: float, counts: Counts, rates: Mapping[str, float], count: int, steps: int, memory: float | None
) -> Row:
    """Return what follows from the seconds of a step of so many pictures."""
    total = sum(counts.values())
    return {
        "ms per step": 1e3 * seconds,
        "pictures' steps per second": count / seconds,
        "features per hour": 3600 * count / (steps * seconds),
        "GFLOP": total / 1e9,
        "TFLOP per second": total / 1e12 / seconds,
        "share of peak, %": 100 * share_of_peak(counts, rates, seconds),
        "memory, MiB": memory,
    }


def whereabouts(base: Row, ms: float, host: _where.Times, kernels: _where.Times) -> list[Row]:
    """Return a row of shares for the host and, where there were kernels, one for the device."""
    rows = [base | {"of": "host"} | shares(host, sum(host.values()))]
    if any(kernels.values()):
        rows.append(base | {"of": "device"} | shares(kernels, ms) | {"idle": 100 - sum(shares(kernels, ms).values())})
    return rows


def measure(job: Job, base: Row, rates: Mapping[str, float]) -> tuple[Row, list[Row]]:
    """Return the row of a batch, and where its time goes; of what does not fit into memory, a row that says so."""
    gc.collect()  # the ascent before and what its steps kept refer to one another
    reset_most_allocated(device_of(job.options.accelerator))
    try:
        seconds, memory, counts = timed(job)
        host, kernels = profiled(job)
    except torch.OutOfMemoryError:
        return base | {"ms per step": None, "note": "out of memory"}, []
    row = base | step_row(seconds, counts, rates, job.pictures, recipe(DEFAULT_PRESET).steps, memory)
    return row, whereabouts(base, 1e3 * seconds, host, kernels)


def all_rows(options: argparse.Namespace, limits: Mapping[str, Mapping[str, float]]) -> tuple[list[Row], list[Row]]:
    """Return the rows of all batches, and where their time goes; on stderr, what is done."""
    rows: list[Row] = []
    parts: list[Row] = []
    for target in options.targets:
        name, _, layer = target.partition(":")
        network = fv.FrozenNetwork(build(name, options.weights), MEAN, std=STD)
        for precision, rates in limits.items():
            for count in options.batch_sizes:
                base: Row = {"network": name, "layer": layer, "precision": precision, "batch": count}
                row, limit = measure(Job(network, layer, count, precision, options), base, rates)
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
                parts += limit
    return rows, parts


def main() -> None:
    options_parser = parser(__doc__, rounds=3, turn=f"of {STRETCH} steps that are timed")
    options_parser.add_argument(
        "--targets", nargs="+", default=list(TARGETS), metavar="NETWORK:LAYER", help=f"(default: {' '.join(TARGETS)})"
    )
    options_parser.add_argument(
        "--weights", default="none", help="of the networks: a name of torchvision's, or none (default: none)"
    )
    options_parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels (default: 224)")
    options_parser.add_argument(
        "--batch-sizes", nargs="+", type=int, default=[1, 16, 64, 256], help="(default: 1 16 64 256)"
    )
    options_parser.add_argument(
        "--precisions", nargs="+", default=["32-true", "bf16-mixed"], help="(default: 32-true bf16-mixed)"
    )
    add_accelerator_argument(options_parser, default=None, otherwise="gpu; with --quick, auto")
    options = options_parser.parse_args()
    quicken(
        options, targets=[f"{TINY}:{QUICK_LAYER}"], weights="none", size=32, batch_sizes=[1, 2], precisions=["32-true"]
    )
    options.accelerator = options.accelerator or ("auto" if options.quick else "gpu")
    try:
        device = device_of(options.accelerator)
    except ValueError as error:
        options_parser.error(f"--accelerator: {error}")
    quiet()
    limits = {precision: peaks(device, precision, 128 if options.quick else None) for precision in options.precisions}
    rows, parts = all_rows(options, limits)
    peak = [
        {"precision": precision, **{f"TFLOP per second, {kind}": rate / 1e12 for kind, rate in limit.items()}}
        for precision, limit in limits.items()
    ]
    steps = recipe(DEFAULT_PRESET).steps
    report(options, {"peak": peak, "steps": rows, "where the time goes, %": parts}, [f"features of {steps} steps each"])


if __name__ == "__main__":
    main()
