"""The pictures of one moment of a training: which, on which process, and within which time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from featviz_pl.engine import Ascent, Step, ascend
from featviz_pl.images import Image
from featviz_pl.io import as_saved, to_uint8
from featviz_pl.objectives import Objective, Target
from featviz_pl.objectives.target_syntax import ALL
from featviz_pl.presets import Recipe
from featviz_pl.transforms import Views
from featviz_pl_callbacks._watched_network import GuestNetwork, Picture

MOST_TOGETHER = 16  # pictures in one batch


@dataclass(frozen=True)
class Settings:
    """Hold how pictures are made.

    Args:
        recipe: image, views and optimizer.
        views: per step.
        steps: of each picture.
        seed: of every draw.
        seconds: after which no further step is taken, or None.
    """

    recipe: Recipe
    views: int
    steps: int
    seed: int
    seconds: float | None = None


@dataclass(frozen=True)
class Rendered:
    """Hold one picture.

    Args:
        levels: (C, H, W) in the 256 levels of a file, on the CPU.
        score: the objective on it, without views.
        steps: that were taken.
        reason: why it failed, or None.
    """

    levels: Tensor
    score: float
    steps: int
    reason: str | None = None


@dataclass
class Share:
    """Hold what one process rendered.

    Args:
        rendered: pictures by the index of their target.
        failures: the indices of pictures that could not be rendered together, and what happened.
        error: the first exception; it stays in its process.
    """

    rendered: dict[int, Rendered] = field(default_factory=dict)
    failures: list[tuple[list[int], str]] = field(default_factory=list)
    error: Exception | None = None

    def failed(self, indices: Iterable[int], error: Exception) -> None:
        """Note an exception."""
        self.failures.append((list(indices), f"{type(error).__name__}: {error}"))
        self.error = self.error or error

    def __getstate__(self) -> dict[str, Any]:
        """Leave the exception behind: it may hold what no other process could read."""
        return {**vars(self), "error": None}


def batches_of(targets: Sequence[Target], rank: int, ranks: int) -> list[list[int]]:
    """Return the indices of one process's targets, in batches that are rendered together.

    Example:
        >>> targets = [*Target.parse("a:0-4").singles(), Target.parse("b:1")]
        >>> batches_of(targets, 0, 2), batches_of(targets, 1, 2)
        ([[0, 2, 4]], [[1, 3], [5]])
    """
    groups: dict[Target, list[int]] = {}  # by the target without its unit; a whole layer is another group
    for index in range(rank, len(targets), ranks):
        target = targets[index]
        groups.setdefault(replace(target, units=None if target.units is None else ALL), []).append(index)
    return [
        group[first : first + MOST_TOGETHER]
        for group in groups.values()
        for first in range(0, len(group), MOST_TOGETHER)
    ]


def render_share(
    targets: Sequence[Target],
    batches: Sequence[list[int]],
    names: Sequence[str],
    network: GuestNetwork,
    picture: Picture,
    starts: dict[int, Tensor],
    settings: Settings,
    device: torch.device,
) -> Share:
    """Render the batches of one process; one that fails does the others no harm.

    Args:
        targets: of all pictures.
        batches: indices of targets.
        names: of the targets' layers in the network.
        network: that is shown the pictures.
        picture: their shape.
        starts: 256 levels (C, H, W) from which pictures begin, by index.
        settings: how they are made.
        device: where.
    """
    share, began = Share(), time.monotonic()
    for done, batch in enumerate(batches):
        first = targets[batch[0]]
        units = None if first.units is None else tuple(targets[index].unit for index in batch)
        objective = replace(first, layer=names[batch[0]], units=units).objective()
        end = None
        if settings.seconds is not None:  # what is left is divided over the batches that are left
            now = time.monotonic()
            end = now + (began + settings.seconds - now) / (len(batches) - done)
        try:
            own = {place: starts[index] for place, index in enumerate(batch) if index in starts}
            rendered = _render(objective, network, picture, own, settings, end, device)
        except Exception as error:
            share.failed(batch, error)
        else:
            share.rendered.update(zip(batch, rendered))
    return share


class _TimeIsUpError(Exception):
    """Ends a rendering whose time is up; what was done stays in the picture."""


def _render(
    objective: Objective,
    network: GuestNetwork,
    picture: Picture,
    starts: dict[int, Tensor],
    settings: Settings,
    end: float | None,
    device: torch.device,
) -> list[Rendered]:
    recipe, size = settings.recipe.for_layers(source.layer for source in objective.sources()), picture[1:]
    views = Views(recipe.transforms, settings.views)
    if recipe.make_objective is not None:
        objective = recipe.make_objective(objective, network, views.transforms.output_size(size), None)
    problem = Ascent(recipe.image(size=size, channels=picture[0]), network, objective, settings.seed, views)
    problem.initialize()
    if starts:
        _start(problem.image, starts)
    problem.image.to(device)
    problem.prepare(device)
    taken = 0

    def on_step(index: int, step: Step) -> None:
        nonlocal taken
        taken = index + 1
        if end is not None and time.monotonic() > end:
            raise _TimeIsUpError

    failures: dict[int, str] = {}
    with suppress(_TimeIsUpError):
        ascend(
            problem,
            settings.steps,
            recipe.make_optimizer,
            on_step=on_step,
            failures=failures,
            scheduler=recipe.make_scheduler,
        )
    with torch.no_grad():
        pictures = as_saved(problem.image())
    scores = problem.scores(pictures).tolist()
    levels = to_uint8(pictures).cpu()
    return [Rendered(levels[place].clone(), scores[place], taken, failures.get(place)) for place in range(len(levels))]


@torch.no_grad()
def _start(image: Image, starts: dict[int, Tensor]) -> None:
    """Start some pictures from given levels; the others begin as they were drawn."""
    pictures: Tensor = image()
    pictures = pictures.clone()
    for place, levels in starts.items():
        pictures[place] = levels.to(pictures) / 255
    image.start_from(pictures)
