"""Time a step of `Trainer.fit` and of `ascend` beside the limit: forward and backward of the frozen, truncated network alone.

    python -m benchmarks.step --weights squeezenet1_0.pth --json step.json

One process, alternating rounds, medians. The limit runs eagerly on a ready channels_last tensor that needs a gradient:
no image, no views, no optimizer, no Trainer; in bf16-mixed its weights and its tensor are bfloat16. ``as it is`` shows
the picture without views, ``one view`` through one view of the preset lucid. ``--compile`` adds forward and backward of
what the library leaves of the network, ``traced``, and ``compiled`` by ``torch.compile``, `ascend` with the latter, and
the seconds that compiling took. On a GPU (``--accelerator gpu``) every step is waited for; `benchmarks.gpu` measures
stretches of steps that are not. Measure on a quiet machine: two jobs that share two cores can be ten times slower than
one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

if not __package__:  # run as a file: its neighbours are found from the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import featviz_pl as fv
from benchmarks._clock import StepTimes
from benchmarks._device import device_of, now
from benchmarks._networks import MEAN, SMALL, STD, add_network_arguments, build, truncated
from benchmarks._report import alternate, median_step, parser, quicken, quiet, ratio, report
from featviz_pl.callbacks import Augmentation
from featviz_pl.cli.progress import announced
from featviz_pl.engine import Ascent, Step, ascend
from featviz_pl.objectives import Channel
from featviz_pl.presets import recipe
from featviz_pl.transforms import Views, view_preset

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
Row = dict[str, Any]


def limit(bare: nn.Module, dtype: torch.dtype, size: int, steps: int, device: torch.device) -> float:
    """Return the milliseconds of one forward and backward of the truncated network."""
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    picture = noise.to(device, dtype, memory_format=torch.channels_last)
    times = [now(device)]
    for _ in range(steps):
        picture = picture.detach().requires_grad_(True)
        (-bare(picture)[:, 0].mean()).backward()
        times.append(now(device))
    return median_step(times)


def read_step(network: fv.FrozenNetwork, layer: str, precision: str, options: argparse.Namespace) -> float:
    """Return the milliseconds of one forward and backward of what the library leaves of a network."""
    device, reader = device_of(options.accelerator), network.reader()
    noise = torch.rand(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    picture = noise.to(device, memory_format=torch.channels_last)
    times: list[float] = []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        for _ in range(options.steps + 1):  # the first one finds out, and compiles
            picture = picture.detach().requires_grad_(True)
            (-reader.activations(picture, [layer])[layer][:, 0].mean()).backward()
            times.append(now(device))
    return median_step(times)


def ascend_step(
    network: fv.FrozenNetwork, layer: str, precision: str, options: argparse.Namespace, views: int
) -> float:
    """Return the milliseconds of a step of the bare loop."""
    sampled = Views(view_preset("lucid")[0], views) if views else None
    device = device_of(options.accelerator)
    ascent = Ascent(fv.images.FourierImage(options.size), network, Channel(layer, 0), 0, sampled)
    ascent.initialize()
    ascent.image.to(device)
    times: list[float] = []

    def note(index: int, step: Step) -> None:
        times.append(now(device))

    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        ascend(ascent, options.steps, recipe("lucid").make_optimizer, on_step=note)
    return median_step(times)


def fit_step(network: fv.FrozenNetwork, layer: str, precision: str, options: argparse.Namespace, views: int) -> float:
    """Return the milliseconds of a step of `Trainer.fit`."""
    model = fv.FeatureVisualization(
        network, f"{layer}:0", image=fv.images.FourierImage(options.size), steps=options.steps
    )
    clock = StepTimes()
    Trainer(
        max_steps=options.steps,
        accelerator=options.accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]  # the library's users may give any of Lightning's
        callbacks=[clock, *([Augmentation("lucid", views=views)] if views else [])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model)
    return median_step(clock.times)


def compare(module: nn.Module, layer: str, precision: str, options: argparse.Namespace) -> list[Row]:
    """Return a row for each way to take a step, with its ratios to the limit and to the bare loop in the same round."""
    network = fv.FrozenNetwork(module, MEAN, std=STD)
    device, dtype = device_of(options.accelerator), DTYPES[precision]
    bare = truncated(module, layer, dtype).to(device)
    runs: dict[str, Callable[[], float]] = {
        "limit": lambda: limit(bare, dtype, options.size, options.steps, device),
        "ascend, as it is": lambda: ascend_step(network, layer, precision, options, 0),
        "fit, as it is": lambda: fit_step(network, layer, precision, options, 0),
        "ascend, one view": lambda: ascend_step(network, layer, precision, options, 1),
        "fit, one view": lambda: fit_step(network, layer, precision, options, 1),
    }
    if options.compile:
        compiled = network.compiled()
        runs |= {
            "traced": lambda: read_step(network, layer, precision, options),
            "compiled": lambda: read_step(compiled, layer, precision, options),
            "ascend, as it is, compiled": lambda: ascend_step(compiled, layer, precision, options, 0),
        }
        began = now(device)
        with announced("benchmarks.step", "featviz_pl.networks"):  # where it cannot be compiled, too
            read_step(compiled, layer, precision, argparse.Namespace(**{**vars(options), "steps": 1}))
        seconds = now(device) - began
    results = alternate(runs, options.rounds)
    rows = []
    for name, values in results.items():
        row: Row = {"layer": layer, "precision": precision, "step": name, "ms": statistics.median(values)}
        row["over the limit"] = ratio(values, results["limit"])
        row["over ascend"] = ratio(values, results[name.replace("fit", "ascend")]) if name.startswith("fit") else None
        if options.compile:
            row["compiling, s"] = seconds if name == "compiled" else None
        rows.append(row)
    return rows


def main() -> None:
    options_parser = parser(__doc__, rounds=5)
    add_network_arguments(options_parser)
    options_parser.add_argument("--steps", type=int, default=60, help="of a turn (default: 60)")
    options_parser.add_argument(
        "--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES), help=f"(default: {' '.join(DTYPES)})"
    )
    options_parser.add_argument(
        "--compile",
        action="store_true",
        help="also with torch.compile, which takes a minute for each layer and precision",
    )
    options = options_parser.parse_args()
    quicken(options, **SMALL, steps=4)
    quiet()
    module = build(options.network, options.weights)
    rows: list[Row] = []
    for layer in options.layers:
        for precision in options.precisions:
            rows += compare(module, layer, precision, options)
    report(options, {"step": rows})


if __name__ == "__main__":
    main()
