"""The batch of a sweep as slots: each holds one picture with steps of its own, and can be filled again when that is finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featviz_pl.engine import Ascent
from featviz_pl.engine.ascent import trained_parameters
from featviz_pl.engine.picture_health import STRETCH
from featviz_pl.images import Image
from featviz_pl.io import as_saved
from featviz_pl.objectives import Objective

Optimisation = tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]


class Finished(NamedTuple):
    """Hold one picture that is finished.

    Args:
        unit: that it looks for.
        picture: (C, H, W) in [0, 1], in the 256 levels of a file.
        score: the objective on the picture, without views.
        steps: that it took.
        failure: why it failed, or None.
    """

    unit: int
    picture: Tensor
    score: float
    steps: int
    failure: str | None


@dataclass
class Rendered:
    """Hold the pictures that a step of a sweep has finished: those of a batch, without padding.

    Args:
        images: (N, C, H, W) in [0, 1], in the 256 levels of a file.
        targets: what each looks for, ``layer:unit``.
        scores: the objective on each picture, without views.
        provenance: of each picture.
        failures: for each, why it failed, or None.
    """

    images: Tensor
    targets: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str | None] = field(default_factory=list)


def rendered(finished: Sequence[tuple[Finished, dict[str, Any]]], shape: tuple[int, ...]) -> Rendered:
    """Put finished pictures of one shape, and where each comes from, into one."""
    if not finished:
        return Rendered(torch.empty(0, *shape))
    origins = [origin for _, origin in finished]
    held = [one for one, _ in finished]
    pictures, targets = torch.stack([one.picture for one in held]), [origin["target"] for origin in origins]
    return Rendered(pictures, targets, [one.score for one in held], origins, [one.failure for one in held])


@dataclass
class _Group:
    """Hold the slots that began together: they share their step, and so their learning rate."""

    slots: dict[int, list[nn.Parameter]]
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    step: int = 0


class Slots:
    """Optimise the pictures of a batch, each with parameters and optimizer state of its own, until they are finished.

    What an optimizer gets for a picture is a slice of the image's weights, so a picture is the same, bit for bit,
    whenever it begins and whatever its companions do. A picture is finished when it has taken all its steps, has
    failed, or has converged.

    Args:
        problem: initialised and prepared, of as many pictures as there are slots, the first ones in their places.
        units: that the first ones look for; slots without a unit are there only to fill the batch.
        optimizer: makes optimizer and scheduler of the parameters of pictures that begin together.
        steps: of each picture, at most.
        tolerance: see `featviz_pl.engine.picture_health.Watch`; None lets every picture take all its steps.
        objective: makes what all slots look for, of their units; only where slots are filled again.
        image: makes an image of one picture that has not begun; only where slots are filled again.

    Raises:
        ValueError: when pictures share weights.
    """

    def __init__(
        self,
        problem: Ascent,
        units: Sequence[int | None],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimisation],
        steps: int,
        tolerance: float | None = None,
        objective: Callable[[Sequence[int]], Objective] | None = None,
        image: Callable[[int], Image] | None = None,
    ) -> None:
        self._problem, self._optimizer, self._steps = problem, optimizer, steps
        self._objective, self._image = objective, image
        self._parameters = trained_parameters(problem.image)
        self._watch = problem.watch(steps, tolerance)
        self._units = list(units)
        self._shown = [unit if unit is not None else next(one for one in units if one is not None) for unit in units]
        self._waiting: deque[int] = deque()
        self._groups: list[_Group] = []
        self._begin([slot for slot, unit in enumerate(units) if unit is not None])

    def add(self, units: Iterable[int]) -> None:
        """Let units wait for a slot."""
        self._waiting.extend(units)

    def run(self, to_the_end: bool = True, on_step: Callable[[int], None] | None = None) -> list[Finished]:
        """Go on until no unit waits or, to the end, until all are finished; return what has been finished.

        Args:
            to_the_end: whether to finish also what has a slot already.
            on_step: called after every step with the index of that step for the picture that began first.
        """
        finished: list[Finished] = []
        self._fill()
        while self._groups and (to_the_end or self._waiting):
            for _ in range(
                min(min(STRETCH - group.step % STRETCH, self._steps - group.step) for group in self._groups)
            ):
                step = self._groups[0].step
                self._take_step()
                if on_step is not None:
                    on_step(step)
            finished += self._take_out()
            self._fill()
        return finished

    def _fill(self) -> None:
        """Give free slots to units that wait."""
        free = [slot for slot, unit in enumerate(self._units) if unit is None][: len(self._waiting)]
        if not free:
            return
        if self._objective is None or self._image is None:
            raise RuntimeError("these slots are filled once")
        for slot in free:
            self._units[slot] = self._shown[slot] = self._waiting.popleft()
        self._problem.begin_anew(free, self._objective(self._shown), self._image(len(free)))
        self._watch.begin_anew(free)
        self._begin(free)

    def _begin(self, slots: Sequence[int]) -> None:
        own = {
            slot: [nn.Parameter(parameter.data[slot : slot + 1]) for parameter in self._parameters] for slot in slots
        }
        self._groups.append(
            _Group(own, *self._optimizer([parameter for slices in own.values() for parameter in slices]))
        )

    def _take_step(self) -> None:
        result = self._problem.step(self._step(), self._steps)
        gradients: Sequence[Tensor | None] = torch.autograd.grad(result.loss, self._parameters, allow_unused=True)
        gradients = self._watch.kept(result.scores, gradients)
        for group in self._groups:
            for slot, slices in group.slots.items():
                for parameter, gradient in zip(slices, gradients):
                    parameter.grad = None if gradient is None else gradient[slot : slot + 1]
            group.optimizer.step()
            if group.scheduler is not None:
                group.scheduler.step()
            group.step += 1

    def _step(self) -> int | list[int]:
        """Return the step of all pictures, or of each one; idle slots are past the first steps, where a step can cost twice."""
        if len(self._groups) == 1:
            return self._groups[0].step
        steps = [self._steps - 1] * len(self._units)
        for group in self._groups:
            for slot in group.slots:
                steps[slot] = group.step
        return steps

    def _take_out(self) -> list[Finished]:
        """Take the finished pictures out of their slots."""
        reasons, converged = self._watch.looks()
        ended = {
            slot: group.step
            for group in self._groups
            for slot in group.slots
            if group.step == self._steps or slot in reasons or slot in converged
        }
        if not ended:
            return []
        with torch.no_grad(), torch.autocast(self._parameters[0].device.type, enabled=False):
            pictures = as_saved(self._problem.image())
        scores = self._problem.scores(pictures).tolist()
        finished = []
        for slot, steps in sorted(ended.items()):
            unit, failure = self._units[slot], reasons.get(slot)
            assert unit is not None
            if failure is None and not abs(scores[slot]) < float("inf"):
                failure = "the score of the picture is not finite"
            finished.append(Finished(unit, pictures[slot].to("cpu", copy=True), scores[slot], steps, failure))
            self._units[slot] = None
        for group in self._groups:
            for slot in ended.keys() & group.slots.keys():
                for parameter in group.slots.pop(slot):
                    parameter.grad = None  # its optimizer leaves it alone from now on
        self._groups = [group for group in self._groups if group.slots]
        return finished
