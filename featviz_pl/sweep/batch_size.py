"""Which batch size makes a sweep shortest: measured among those that fit into memory, for a small share of the sweep's own work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from featviz_pl.engine import Ascent
from featviz_pl.engine.ascent import REDIRECTED_STEPS, trained_parameters
from featviz_pl.sweep.memory import MOST_ON_ACCELERATOR, MOST_ON_CPU, free_memory, kept_bytes, largest_batch
from featviz_pl.sweep.targets import batches_of

SHARE = 0.05  # of the steps of a sweep, that measuring may cost at most
CLEARLY = 1.03  # how many times as fast a larger batch must be
_LEAST, _MOST = 2, 6  # rounds
_BESIDE = 2  # rounds' worth of work besides: making the problem, and a first step that is not counted


class BatchSize(NamedTuple):
    """Hold a batch size and why it was chosen.

    Args:
        size: pictures in a batch.
        seconds: of one step, for each size that was measured.
    """

    size: int
    seconds: dict[int, float]

    def __str__(self) -> str:
        """Say it in one line."""
        if not self.seconds:
            return f"batch size {self.size}, by memory: the sweep is too short to measure"
        times = ", ".join(f"{seconds / size * 1e3:.3g} ms with {size}" for size, seconds in self.seconds.items())
        return f"batch size {self.size}: the step of one picture takes {times}"


def fitting(
    make: Callable[[str, Sequence[int]], Ascent],
    units: Mapping[str, Sequence[int]],
    steps: int,
    device: torch.device,
    ranks: int,
    here: int,
) -> BatchSize:
    """Choose how many pictures a batch should hold; the deepest layer, which needs most, tells.

    Args:
        make: makes the problem of a batch of units of a layer.
        units: of each layer that is swept.
        steps: of each picture.
        device: where the sweep takes place.
        ranks: processes of the sweep.
        here: those of them on this machine.
    """
    layer, own = list(units.items())[-1]
    on_cpu = device.type == "cpu"
    free = free_memory(device) // (here if on_cpu else 1)
    share = -(-sum(map(len, units.values())) // ranks)  # of a process: none is left without work
    most = min(MOST_ON_CPU if on_cpu else MOST_ON_ACCELERATOR, share, max(map(len, units.values())))
    most = largest_batch(kept_bytes(make(layer, own[:1])), free, most)
    return choose(
        lambda size: make(layer, [own[place % len(own)] for place in range(size)]),
        most,
        lambda size: -(-len(batches_of(units, size)) // ranks),
        share,
        steps,
    )


def choose(
    make: Callable[[int], Ascent], most: int, batches: Callable[[int], int], pictures: int, steps: int
) -> BatchSize:
    """Measure the sizes 1, 2, 4, 8, … up to the largest, and choose the one that ends soonest; of two nearly equal ones the smaller.

    The last batch of a layer is filled up, so how well a size divides the units counts too. Where measuring would cost
    more than a twentieth of the work, the largest is taken.

    Args:
        make: makes the problem of a batch of one size.
        most: the largest size, 1 or more.
        batches: how many a process has, for one size.
        pictures: how many a process has.
        steps: of each picture.
    """
    sizes = [size for size in (1 << power for power in range(most.bit_length())) if size < most] + [most]
    rounds = min(_MOST, int(SHARE * pictures * steps / sum(sizes)) - _BESIDE)
    if len(sizes) == 1 or rounds < _LEAST:
        return BatchSize(most, {})
    seconds = seconds_per_step([make(size) for size in sizes], rounds, steps)
    return BatchSize(soonest(dict(zip(sizes, seconds)), batches), dict(zip(sizes, seconds)))


def soonest(seconds: dict[int, float], batches: Callable[[int], int]) -> int:
    """Return the smallest size that ends nearly as soon as any.

    Args:
        seconds: of a step, for each size.
        batches: how many there are of one size.

    Example:
        >>> soonest({1: 1.0, 2: 1.02, 4: 1.5}, lambda size: 8 // size), soonest({1: 1.0, 2: 1.98, 4: 4.2}, lambda size: 8 // size)
        (4, 1)
    """
    ends = {size: own * batches(size) for size, own in seconds.items()}
    least = min(ends.values())
    return min(size for size, end in ends.items() if end <= CLEARLY * least)


def seconds_per_step(problems: Sequence[Ascent], rounds: int, steps: int) -> list[float]:
    """Return the least seconds that a step of each problem takes, in rounds of all of them: something else may slow a machine down."""
    watched = [(problem, trained_parameters(problem.image), problem.watch(steps)) for problem in problems]
    least = [float("inf")] * len(problems)
    for place in range(1 + rounds):
        for index, (problem, parameters, watch) in enumerate(watched):
            began = time.perf_counter()
            result = problem.step(min(REDIRECTED_STEPS + place, steps - 1), steps)
            gradients = watch.kept(result.scores, torch.autograd.grad(result.loss, parameters, allow_unused=True))
            _wait_for(gradients)
            if place:
                least[index] = min(least[index], time.perf_counter() - began)
    return least


def _wait_for(gradients: Sequence[torch.Tensor | None]) -> None:
    for gradient in gradients:
        if gradient is not None:
            gradient.flatten()[0].item()
