"""Time a step of `Trainer.fit` beside the limit: forward and backward of the frozen, truncated network alone.

    python benchmarks/step.py --weights squeezenet1_0.pth

One process, alternating rounds, medians. The limit runs on a ready channels_last tensor that needs a gradient: no image, no views, no
optimizer, no Trainer. Measure on a quiet machine: two jobs that share two cores can be ten times slower than one.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import featviz_pl as fv
from featviz_pl.callbacks import Augmentation

SIZE = 224
WARM_UP = 20  # caches, and the first 16 steps also look for pictures without a gradient
LAYERS = ("features.5", "features.9", "features.12")


class StepTimes(Callback):
    """Note the time at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.times.append(time.perf_counter())


def limit_times(network: fv.FrozenNetwork, layer: str, steps: int) -> list[float]:
    """Return the seconds of each forward and backward of the truncated network."""
    shadow = network.shadow()
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    bare = torch.nn.Sequential(*list(shadow.module.features)[: int(layer.split(".")[1]) + 1])  # type: ignore[arg-type]
    times = []
    for _ in range(steps):
        image = image.detach().requires_grad_(True)
        began = time.perf_counter()
        (-bare(image)[:, 0].mean()).backward()
        times.append(time.perf_counter() - began)
    return times


def fit_times(network: fv.FrozenNetwork, layer: str, steps: int, augmented: bool) -> list[float]:
    """Return the seconds of each step of `Trainer.fit`."""
    model = fv.FeatureVisualization(network, f"{layer}:0", fv.images.FourierImage(SIZE), steps=steps)
    clock = StepTimes()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[clock, *([Augmentation("lucid", views=1)] if augmented else [])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model)
    return [later - earlier for earlier, later in zip(clock.times, clock.times[1:])]


def compare(network: fv.FrozenNetwork, layer: str, rounds: int, steps: int) -> None:
    """Print medians over alternating rounds; the first steps of each round are left out."""
    runs: dict[str, Callable[[], list[float]]] = {
        "limit": lambda: limit_times(network, layer, steps),
        "fit, as it is": lambda: fit_times(network, layer, steps, augmented=False),
        "fit, one lucid view": lambda: fit_times(network, layer, steps, augmented=True),
    }
    medians: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            medians[name].append(statistics.median(run()[WARM_UP:]))
    for name, values in medians.items():
        # Ratios within a round: a noisy minute then touches both sides.
        ratio = statistics.median(value / limit for value, limit in zip(values, medians["limit"]))
        print(f"{layer:12s} {name:20s} {statistics.median(values) * 1e3:7.2f} ms  {ratio:5.2f} x")


def growth(network: fv.FrozenNetwork, renders: int) -> None:
    """Print what many renders in one process leave behind."""

    def resident() -> float:
        """Return the memory in use now, not the highest so far, which earlier and larger runs would hide growth behind (Linux)."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    for index in range(1, renders + 1):
        fv.render(network, "features.5:0", steps=4, size=96)
        if index % 40 == 10:
            gc.collect()
            held = gc.get_objects()
            modules = [thing for thing in held if issubclass(type(thing), torch.nn.Module)]
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in held)
            hooks = sum(len(module._forward_hooks) for module in modules)
            alive = f"{len(modules)} modules, {hooks} hooks, {tensors} tensors"
            print(f"after {index:3d} renders: {resident():7.1f} MiB resident; alive: {alive}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="none", help="of squeezenet1_0; the time does not depend on them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--renders", type=int, default=130)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    network = fv.load_network("squeezenet1_0", weights=options.weights)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, python {sys.version.split()[0]}, {SIZE} px, one view")
    for layer in LAYERS:
        compare(network, layer, options.rounds, options.steps)
    growth(network, options.renders)


if __name__ == "__main__":
    main()
