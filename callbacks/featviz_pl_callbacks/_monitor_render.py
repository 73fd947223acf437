"""Render the targets of a `FeatureMonitor`: divided over processes, in batches, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from featviz_pl.engine import Ascent, Step, ascend
from featviz_pl.io import as_saved, to_uint8
from featviz_pl.objectives import Objective, Target
from featviz_pl.objectives.target_syntax import ALL
from featviz_pl.presets import Recipe
from featviz_pl.transforms import Views
from featviz_pl_callbacks._support import Picture
from featviz_pl_callbacks._watched_network import LiveNetwork

MAX_BATCH_SIZE = 16


@dataclass(frozen=True)
class RenderSettings:
    """Options of the pictures.

    Args:
        recipe: image, views and optimizer.
        views: per step.
        steps: of each picture.
        seed: of every draw.
        max_seconds: time limit for all pictures of a process, or None.
    """

    recipe: Recipe
    views: int
    steps: int
    seed: int
    max_seconds: float | None = None


@dataclass(frozen=True)
class TargetPicture:
    """The picture of one target.

    Args:
        levels: (C, H, W) in the 256 levels of a file, on the CPU.
        score: the objective on it, without views.
        steps: number of steps taken.
        failure: why the optimization failed, or None.
    """

    levels: Tensor
    score: float
    steps: int
    failure: str | None = None


@dataclass
class RankShare:
    """The pictures of one process.

    Args:
        pictures: by the index of their target.
        errors: indices of the targets of a batch, and the error that it raised.
        exception: the first exception; it stays in its process.
    """

    pictures: dict[int, TargetPicture] = field(default_factory=dict)
    errors: list[tuple[list[int], str]] = field(default_factory=list)
    exception: Exception | None = None

    def add_error(self, indices: Iterable[int], exception: Exception) -> None:
        """Record the exception of a batch."""
        self.errors.append((list(indices), f"{type(exception).__name__}: {exception}"))
        self.exception = self.exception or exception

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the exception, which may not be picklable."""
        return {**vars(self), "exception": None}


def rank_batches(targets: Sequence[Target], rank: int, ranks: int) -> list[list[int]]:
    """Return the indices of one process's targets, in batches that are rendered together.

    Example:
        >>> targets = [*Target.parse("a:0-4").singles(), Target.parse("b:1")]
        >>> rank_batches(targets, 0, 2), rank_batches(targets, 1, 2)
        ([[0, 2, 4]], [[1, 3], [5]])
    """
    groups: dict[Target, list[int]] = {}  # by the target without its unit; a whole layer is another group
    for index in range(rank, len(targets), ranks):
        target = targets[index]
        groups.setdefault(replace(target, units=None if target.units is None else ALL), []).append(index)
    return [
        group[first : first + MAX_BATCH_SIZE]
        for group in groups.values()
        for first in range(0, len(group), MAX_BATCH_SIZE)
    ]


def render_share(
    targets: Sequence[Target],
    batches: Sequence[list[int]],
    network: LiveNetwork,
    picture: Picture,
    starts: dict[int, Tensor],
    settings: RenderSettings,
    device: torch.device,
) -> RankShare:
    """Render the batches of one process; an exception in one does not stop the others.

    Args:
        targets: of all pictures, with layers named as in the network.
        batches: indices of targets.
        network: that takes the pictures.
        picture: shape of the pictures.
        starts: start pictures (C, H, W) in 256 levels, by index.
        settings: options of the pictures.
        device: to render on.
    """
    share, started = RankShare(), time.monotonic()
    for done, batch in enumerate(batches):
        first = targets[batch[0]]
        units = None if first.units is None else tuple(targets[index].unit for index in batch)
        objective = replace(first, units=units).objective()
        deadline = None
        if settings.max_seconds is not None:  # the batches that are left share the time that is left
            now = time.monotonic()
            deadline = now + (started + settings.max_seconds - now) / (len(batches) - done)
        batch_starts = {row: starts[index] for row, index in enumerate(batch) if index in starts}
        try:
            pictures = _render(objective, network, picture, batch_starts, settings, deadline, device)
        except Exception as exception:
            share.add_error(batch, exception)
        else:
            share.pictures.update(zip(batch, pictures))
    return share


class _DeadlineError(Exception):
    """Stop the optimization; the steps taken stay in the picture."""


def _render(
    objective: Objective,
    network: LiveNetwork,
    picture: Picture,
    starts: dict[int, Tensor],
    settings: RenderSettings,
    deadline: float | None,
    device: torch.device,
) -> list[TargetPicture]:
    channels, *size = picture
    recipe = settings.recipe.for_layers(source.layer for source in objective.sources())
    views = Views(recipe.transforms, settings.views)
    if recipe.make_objective is not None:
        objective = recipe.make_objective(objective, network, views.transforms.output_size(picture[1:]), None)
    ascent = Ascent(recipe.image(size=tuple(size), channels=channels), network, objective, settings.seed, views)
    ascent.initialize()
    if starts:
        with torch.no_grad():
            images = ascent.image().clone()
            for row, levels in starts.items():
                images[row] = levels.to(images) / 255
            ascent.image.start_from(images)
    ascent.image.to(device)
    ascent.prepare(device)
    steps = 0

    def on_step(index: int, step: Step) -> None:
        nonlocal steps
        steps = index + 1
        if deadline is not None and time.monotonic() > deadline:
            raise _DeadlineError

    failures: dict[int, str] = {}
    optimizer, scheduler = recipe.make_optimizer, recipe.make_scheduler
    with suppress(_DeadlineError):
        ascend(ascent, settings.steps, optimizer, on_step=on_step, failures=failures, scheduler=scheduler)
    with torch.no_grad():
        images = as_saved(ascent.image())
    scores, levels = ascent.scores(images).tolist(), to_uint8(images).cpu()
    return [TargetPicture(levels[row].clone(), scores[row], steps, failures.get(row)) for row in range(len(levels))]
