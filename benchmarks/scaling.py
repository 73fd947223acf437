"""Measure what several processes gain, with one core each: sweeps over batch sizes, the cost of DDP per step, memory of a long sweep.

    python benchmarks/scaling.py --weights squeezenet1_0.pth

Programs of one and of two processes alternate; every process has one thread, on a core of its own where the system can
say so. Beside them run as many programs of one process each that know nothing of one another: what these lose is the
machine's, which shares memory and caches between its cores. Speeds leave the start of the programs out. Measure on a
quiet machine with as many idle cores as processes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import featviz_pl as fv
from featviz_pl.callbacks import Augmentation, DistributedViews, FeatureWriter
from featviz_pl.sweep import FeatureSweep, FeatureTargets

CORES, CORE = "FEATVIZ_BENCHMARK_CORES", "FEATVIZ_BENCHMARK_CORE"
SWEEP, FIT, MEMORY = "sweep", "fit", "memory"
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
MEMORY_UNITS, MEMORY_BATCH = 500, 4
WARM_UP = 20  # caches; and the first 16 steps also look for pictures without a gradient
WATCHED = 50  # units between two readings of the memory


class SweepTimes(Callback):
    """Note when this process begins its first batch and when it has written its last."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *more: Any
    ) -> None:
        self.began = self.began or time.monotonic()  # one clock for all processes of a machine

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *more: Any) -> None:
        self.ended = time.monotonic()


class StepTimes(Callback):
    """Note the time at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *more: Any) -> None:
        self.times.append(time.perf_counter())


class Resident(Callback):
    """Note the memory in use, in MiB, while a sweep goes on (Linux)."""

    def __init__(self) -> None:
        self.units = 0
        self.readings: list[tuple[int, float]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *more: Any
    ) -> None:
        before, self.units = self.units, self.units + len(batch.targets)
        if before // WATCHED < self.units // WATCHED:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.readings.append((self.units, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))


def wide() -> torch.nn.Module:
    """Build a small network with as many units as the memory is watched for."""
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, MEMORY_UNITS, 3))


def sweep(options: argparse.Namespace, network: fv.FrozenNetwork, batch_size: int) -> list[float]:
    """Render as many units per process, whatever the batch size; return when this process began and ended."""
    clock = SweepTimes()
    units = options.features * options.processes
    folder = Path(options.worker) / f"atlas-{batch_size}"
    trainer = Trainer(**QUIET, devices=options.processes, callbacks=[FeatureWriter(folder), clock])
    module = FeatureSweep(network, size=options.size, steps=options.steps)
    trainer.predict(module, FeatureTargets(f"{options.layer}:0-{units - 1}", batch_size), return_predictions=False)
    return [clock.began, clock.ended]


def fit(options: argparse.Namespace, network: fv.FrozenNetwork, ddp: bool) -> float:
    """Return the median seconds of a step with the same number of views in every process."""
    clock = StepTimes()
    steps = WARM_UP + options.fit_steps
    views = Augmentation("lucid", views=options.views * options.processes)
    model = fv.FeatureVisualization(
        network, f"{options.layer}:0", image=fv.images.FourierImage(options.size), steps=steps
    )
    callbacks = [views, clock, *([DistributedViews(every=100)] if ddp else [])]
    Trainer(
        **QUIET, max_steps=steps, devices=options.processes, strategy="ddp" if ddp else "auto", callbacks=callbacks
    ).fit(model)
    times = [later - earlier for earlier, later in zip(clock.times, clock.times[1:])]
    return statistics.median(times[WARM_UP:])


def memory(options: argparse.Namespace) -> list[tuple[int, float]]:
    """Return the memory in use after so many units of one sweep."""
    watch = Resident()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(**QUIET, callbacks=[FeatureWriter(folder), watch])
        module, targets = FeatureSweep(wide(), size=options.memory_size, steps=4), FeatureTargets("2:all", MEMORY_BATCH)
        trainer.predict(module, targets, return_predictions=False)
    return watch.readings


def work(options: argparse.Namespace) -> None:
    """Do what one process of a program measures, and write it down."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        # A process inherits the one core of the process that started it, so the list of all travels in the environment.
        cores = os.environ.setdefault(CORES, ",".join(map(str, sorted(os.sched_getaffinity(0))))).split(",")
        os.sched_setaffinity(0, {int(cores[(rank + int(os.environ.get(CORE, "0"))) % len(cores)])})
    network = fv.load_network(options.network, options.weights)
    reports: dict[str, Any] = {SWEEP: {size: sweep(options, network, size) for size in options.batch_sizes}}
    if not options.sweep_only:
        reports[FIT] = {"ddp": fit(options, network, ddp=True)}
    if options.processes == 1 and not options.sweep_only:
        reports[FIT]["alone"] = fit(options, network, ddp=False)
        reports[MEMORY] = memory(options)
    (Path(options.worker) / f"{rank}.json").write_text(json.dumps(reports))


def program(arguments: list[str], processes: int) -> list[dict[str, Any]]:
    """Run a program of so many processes, and return what each measured."""
    return programs(arguments, [processes])


def unrelated(arguments: list[str], count: int) -> list[dict[str, Any]]:
    """Run so many programs of one process side by side, and return what each measured of its sweep."""
    return programs([*arguments, "--sweep-only"], [1] * count)


def programs(arguments: list[str], processes: list[int]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for core, count in enumerate(processes):
            subfolder = Path(folder) / str(core)
            subfolder.mkdir()
            command = [sys.executable, __file__, *arguments, "--processes", str(count), "--worker", str(subfolder)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", CORE: str(core)}
            started.append(
                subprocess.Popen(  # noqa: S603
                    command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        for process in started:
            output, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"scaling.py: {processes} processes ended with {process.returncode}\n{output}")
        return [
            json.loads((Path(folder) / str(core) / f"{rank}.json").read_text())
            for core, n in enumerate(processes)
            for rank in range(n)
        ]


def speed(options: argparse.Namespace, reports: list[dict[str, Any]], batch_size: int) -> float:
    """Return the features per minute of all processes together, from the first that begins to the last that ends."""
    times = [report[SWEEP][str(batch_size)] for report in reports]
    seconds = max(ended for _, ended in times) - min(began for began, _ in times)
    return float(60 * options.features * len(reports) / seconds)


def measure(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """Alternate programs of one and of several processes, and take medians; ratios within a round."""
    runs = [
        (program(arguments, 1), program(arguments, options.most), unrelated(arguments, options.most))
        for _ in range(options.rounds)
    ]
    sweeps = {}
    for size in options.batch_sizes:
        speeds = [tuple(speed(options, reports, size) for reports in run) for run in runs]
        sweeps[size] = {
            "one": statistics.median(single for single, _, _ in speeds),
            "more": statistics.median(more for _, more, _ in speeds),
            "unrelated": statistics.median(apart for _, _, apart in speeds),
            "efficiency": statistics.median(more / single / options.most for single, more, _ in speeds),
            "of the machine's": statistics.median(more / apart for _, more, apart in speeds),
        }
    rounds = [(single, more) for single, more, _ in runs]
    singles, mores = (
        [single[0][FIT] for single, _ in rounds],
        [max(report[FIT]["ddp"] for report in more) for _, more in rounds],
    )
    readings = rounds[-1][0][0][MEMORY]
    return {
        "processes": options.most,
        "sweep": sweeps,
        "step": {
            "alone": statistics.median(single["alone"] for single in singles),
            "ddp, one process": statistics.median(single["ddp"] for single in singles),
            "ddp": statistics.median(mores),
            "cost": statistics.median(more - single["alone"] for single, more in zip(singles, mores)),
        },
        "memory": {"readings": readings, "growth": readings[-1][1] - readings[1][1]},
    }


def show(options: argparse.Namespace, reports: dict[str, Any]) -> None:
    """Print tables."""
    print(f"torch {torch.__version__}, python {sys.version.split()[0]}, one thread per process")
    print(
        f"{options.network}, {options.layer}, {options.size} px, {options.steps} steps, {options.features} features per process"
    )
    most = options.most
    heads = ["batch size", "1 process", f"{most} processes", f"{most} programs", "efficiency", "processes/programs"]
    print("  ".join(f"{head:>12s}" for head in heads) + "  (features per minute)")
    for size, report in reports["sweep"].items():
        print(
            "  ".join(
                [
                    f"{size:12d}",
                    *(
                        f"{report[name]:12.2f}"
                        for name in ("one", "more", "unrelated", "efficiency", "of the machine's")
                    ),
                ]
            )
        )
    print(f"\nOne training step, {options.views} views in every process:")
    for name, seconds in reports["step"].items():
        label = {"ddp": f"ddp, {options.most} processes", "cost": "cost of ddp per step"}.get(name, name)
        print(f"{label:22s} {seconds * 1e3:9.2f} ms")
    print(f"\nA sweep of {MEMORY_UNITS} units of a small network, MiB in use:")
    print("  ".join(f"{units}: {used:.1f}" for units, used in reports["memory"]["readings"]))
    print(f"growth after the first {reports['memory']['readings'][1][0]} units: {reports['memory']['growth']:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0", help="name, or package.module:factory")
    parser.add_argument("--weights", default="none", help="of the network; the time does not depend on them")
    parser.add_argument("--layer", default="features.7", help="with at least --features units for every process")
    parser.add_argument("--size", type=int, default=128, help="of the pictures, in pixels")
    parser.add_argument("--steps", type=int, default=24, help="of each picture of a sweep")
    parser.add_argument("--features", type=int, default=32, help="that every process renders, for each batch size")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--views", type=int, default=4, help="of a training, in every process")
    parser.add_argument("--fit-steps", type=int, default=60, help="of a training, besides those that warm up")
    parser.add_argument(
        "--memory-size", type=int, default=32, help="of the pictures of the sweep whose memory is watched, in pixels"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=2, help="processes that are compared with one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sweep-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    if options.worker:
        work(options)
        return
    reports = measure(options, sys.argv[1:])
    if options.json:
        print(json.dumps(reports))
    else:
        show(options, reports)


if __name__ == "__main__":
    main()
