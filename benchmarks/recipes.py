"""Look for fewer steps: how far recipes climb in a given number of steps, against Lucid's recipe in 512.

    python -m benchmarks.recipes --weights squeezenet1_0.pth --json recipes.json

Every recipe renders the same units in ``--steps`` steps of one view. ``of lucid in 512`` is the score through held-out
views, as a share of that of Lucid's picture (geometric mean); ``clipped`` the share of values within 1/255 of black or
white. The network runs in ``--precision``. No times are measured: a step of all of them takes the same. The units are
none of those that the benchmark of peers takes the time of.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.optim import Adam, AdamW, NAdam, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR

import featviz_pl as fv
from benchmarks._networks import MEAN, SMALL, STD, add_network_arguments, build
from benchmarks._report import parser, quicken, quiet, report
from featviz_pl.images import FourierImage, LaplacianPyramidImage
from featviz_pl.metrics import ClippedShare, HeldOutActivation
from featviz_pl.presets import Recipe, featviz, lucid
from featviz_pl.presets.components import constant_then_linear
from featviz_pl.rendering import render
from featviz_pl.transforms import view_preset

TARGETS = ("features.5:40", "features.5:90", "features.9:10", "features.9:60", "features.12:20", "features.12:77")
GOAL = 512  # steps of Lucid's recipe
Row = dict[str, Any]
Schedule = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


def of_lucid(
    lr: float, scheduler: Schedule | None = None, optimizer: type[torch.optim.Optimizer] = Adam, **arguments: Any
) -> Recipe:
    """Return Lucid's image and views with another optimizer."""
    return replace(lucid(), lr=lr, scheduler=scheduler, optimizer=optimizer, optimizer_arguments=arguments)


SHORT: dict[str, Any] = {"betas": (0.5, 0.99)}
SHORTER: dict[str, Any] = {"betas": (0.5, 0.95)}
HELD: dict[str, Any] = {"optimizer": AdamW, "weight_decay": 0.03}
PYRAMID = partial(LaplacianPyramidImage, levels=6)
RECIPES: dict[str, Recipe] = {
    "lucid": lucid(),
    "the default, featviz": featviz(),
    "Adam 0.2, cosine": of_lucid(0.2, CosineAnnealingLR),
    "Adam 0.2, betas (0.5, 0.99), cosine": of_lucid(0.2, CosineAnnealingLR, **SHORT),
    "Adam 0.2, betas (0.5, 0.99), falling at the end": of_lucid(0.2, constant_then_linear, **SHORT),
    "Adam 0.2, betas (0.5, 0.99)": of_lucid(0.2, **SHORT),
    "the same, decay of the spectrum 1.3": replace(of_lucid(0.2, **SHORT), image=partial(FourierImage, decay=1.3)),
    "the same, views of featviz": replace(of_lucid(0.2, **SHORT), transforms=view_preset("featviz")[0]),
    "the same, pyramid of 6 levels, 0.4": replace(of_lucid(0.4, **SHORT), image=PYRAMID),
    "NAdam 0.2, betas (0.5, 0.99)": of_lucid(0.2, optimizer=NAdam, **SHORT),
    "RMSprop 0.05": of_lucid(0.05, optimizer=RMSprop),
    "AdamW 0.2, betas (0.5, 0.99), weight decay 0.03": of_lucid(0.2, **SHORT, **HELD),
    "AdamW 0.3, betas (0.5, 0.9), weight decay 0.03, falling at the end": of_lucid(
        0.3, constant_then_linear, betas=(0.5, 0.9), **HELD
    ),
    "fast: AdamW 0.4, betas (0.5, 0.95), weight decay 0.03, falling at the end": of_lucid(
        0.4, constant_then_linear, **SHORTER, **HELD
    ),
    "AdamW 0.5, betas (0.5, 0.95), weight decay 0.03, falling at the end": of_lucid(
        0.5, constant_then_linear, **SHORTER, **HELD
    ),
}


def measured(
    network: fv.FrozenNetwork, target: str, recipe: Recipe, steps: int, options: argparse.Namespace
) -> tuple[float, float]:
    """Return the held-out score of a picture, and its clipped share."""
    how = {"size": options.size, "precision": options.precision, "accelerator": options.accelerator}
    result = render(network, target, preset=recipe, steps=steps, **how)
    score, clipped = HeldOutActivation(network, reduction="none"), ClippedShare()
    score.update(result.images, target)
    clipped.update(result.images)
    return float(score.compute()), float(clipped.compute())


def rows(network: fv.FrozenNetwork, recipes: Mapping[str, Recipe], options: argparse.Namespace) -> list[Row]:
    """Return a row for each recipe."""
    goals = {target: measured(network, target, lucid(), options.goal_steps, options)[0] for target in options.targets}
    result: list[Row] = []
    for name, recipe in recipes.items():
        measurements = {target: measured(network, target, recipe, options.steps, options) for target in options.targets}
        shares = {target: score / goals[target] for target, (score, _) in measurements.items()}
        mean = statistics.geometric_mean(max(1e-6, share) for share in shares.values())
        clipped = round(statistics.mean(share for _, share in measurements.values()), 3)
        result.append({"recipe": name, f"of lucid in {options.goal_steps}": mean, "clipped": clipped} | shares)
    return result


def main() -> None:
    result = parser(__doc__, rounds=1)
    add_network_arguments(result)
    result.add_argument("--targets", nargs="+", default=list(TARGETS), help=f"(default: {' '.join(TARGETS)})")
    result.add_argument("--steps", type=int, default=160, help="of every recipe (default: 160)")
    result.add_argument("--precision", default="bf16-mixed", help="of the network (default: bf16-mixed)")
    options = result.parse_args()
    options.goal_steps = GOAL
    quicken(options, **SMALL, targets=[f"{SMALL['layers'][0]}:1"], steps=2, goal_steps=3, precision="32-true")
    quiet()
    network = fv.FrozenNetwork(build(options.network, options.weights), MEAN, std=STD)
    recipes = dict(list(RECIPES.items())[:2]) if options.quick else RECIPES
    report(options, {f"in {options.steps} steps": rows(network, recipes, options)})


if __name__ == "__main__":
    main()
