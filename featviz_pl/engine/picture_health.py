"""Watch each picture of a batch for itself: who has failed, and who has climbed as far as it will."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STRETCH = 32  # steps of a picture between two looks at it: each look waits for the device
DEAD_AFTER = 64  # steps: a picture that no gradient of its own has reached by then gets no more
_CALM = 2  # stretches in a row that bring next to nothing: of one alone, the draw of the views may be the reason


class Watch:
    """Keep what is not finite from the other pictures, and remember who failed, and why. Nothing here waits for the device but `looks`.

    A picture has converged when each of its last 2 stretches of 32 steps has raised its mean score, over the steps of
    the stretch, by no more than a share of all that it has gained since its first step:
    ``mean - mean before <= tolerance * (mean - first)``.

    Args:
        count: number of pictures.
        steps: of each, at most.
        live_from: the first step whose gradient counts as a picture's own.
        device: of the pictures.
        tolerance: the share; None lets no picture converge.

    Example:
        >>> watch = Watch(2, steps=3, live_from=0, device="cpu")
        >>> kept = watch.kept(torch.tensor([1.0, float("nan")]), [torch.ones(2, 4)])
        >>> [int(own) for own in kept[0].sum(1)], watch.failures()
        ([4, 0], {1: 'the score or the gradient of step 0 is not finite'})
    """

    def __init__(
        self, count: int, steps: int, live_from: int, device: torch.device | str, tolerance: float | None = None
    ) -> None:
        self._tolerance = tolerance
        self._live_from, self._dead_at = live_from, min(steps, DEAD_AFTER) - 1
        self._age = torch.zeros(count, dtype=torch.int64, device=device)
        self._first_bad = torch.full((count,), -1, device=device)
        self._reached = torch.zeros(count, dtype=torch.bool, device=device)
        self._dead = torch.zeros(count, dtype=torch.bool, device=device)
        self._first, self._before, self._sum = (
            torch.zeros(count, dtype=torch.float32, device=device) for _ in range(3)
        )
        self._calm = torch.zeros(count, dtype=torch.int64, device=device)

    def kept(self, scores: Tensor, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Take in a step of every picture, and return the gradients with zeros for those that have failed."""
        finite, reached = torch.isfinite(scores), torch.zeros_like(self._reached)
        for gradient in gradients:
            if gradient is not None:
                largest = gradient.flatten(1).abs().amax(1)  # not a number, or infinite, where one of them is
                finite, reached = finite & torch.isfinite(largest), reached | (largest > 0)
        self._reached |= reached & (self._age >= self._live_from)
        self._first_bad = torch.where((self._first_bad < 0) & ~finite, self._age, self._first_bad)
        self._dead |= (self._age == self._dead_at) & ~self._reached
        if self._tolerance is not None:
            self._measure(scores.float(), self._tolerance)
        self._age += 1
        healthy = (self._first_bad < 0) & ~self._dead
        if healthy.device.type == "cpu" and bool(healthy.all()):  # elsewhere, asking would wait for the device
            return tuple(gradients)
        return tuple(
            None
            if gradient is None
            else torch.where(healthy.view(-1, *[1] * (gradient.ndim - 1)), gradient, torch.zeros_like(gradient))
            for gradient in gradients
        )

    def _measure(self, scores: Tensor, tolerance: float) -> None:
        self._first = torch.where(self._age == 0, scores, self._first)
        self._sum += scores
        ends, mean = (self._age + 1) % STRETCH == 0, self._sum / STRETCH
        little = (self._age >= STRETCH) & (mean - self._before <= tolerance * (mean - self._first))
        self._calm = torch.where(ends, torch.where(little, self._calm + 1, 0), self._calm)
        self._before = torch.where(ends, mean, self._before)
        self._sum = torch.where(ends, 0.0, self._sum)

    def looks(self) -> tuple[dict[int, str], list[int]]:
        """Return who has failed, with the reasons, and who has converged; this waits for the device."""
        calm = (self._calm >= _CALM) & self._reached  # what no gradient has reached has not begun
        held = torch.stack([self._first_bad, self._dead.to(self._first_bad), calm.to(self._first_bad)], 1).tolist()
        reasons, converged = {}, []
        for place, (bad, dead, is_calm) in enumerate(held):
            if bad >= 0:
                reasons[place] = f"the score or the gradient of step {bad} is not finite"
            elif dead:
                reasons[place] = "no gradient reaches the picture: nothing turns the unit on"
            elif is_calm:
                converged.append(place)
        return reasons, converged

    def failures(self) -> dict[int, str]:
        """Return the reason of every picture that has failed."""
        return self.looks()[0]

    def begin_anew(self, places: Sequence[int]) -> None:
        """Forget what is known of the pictures at these places."""
        chosen = list(places)
        for held in (self._age, self._reached, self._dead, self._first, self._before, self._sum, self._calm):
            held[chosen] = 0
        self._first_bad[chosen] = -1
