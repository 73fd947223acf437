"""Watch each picture of a batch for itself: which have failed, and why."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STRETCH = 32  # steps of a picture between two looks at it: each look waits for the device
DEAD_AFTER = 64  # steps: a picture that no gradient of its own has reached by then gets no more


class Watch:
    """Keep what is not finite from the other pictures, and remember which failed, and why.

    On an accelerator only `failures` waits for the device.

    Args:
        count: number of pictures.
        steps: of each, at most.
        live_from: the first step whose gradient counts as a picture's own.
        device: of the pictures.

    Example:
        >>> watch = Watch(2, steps=3, live_from=0, device="cpu")
        >>> kept = watch.kept(torch.tensor([1.0, float("nan")]), [torch.ones(2, 4)])
        >>> [int(own) for own in kept[0].sum(1)], watch.failures()
        ([4, 0], {1: 'the score or the gradient of step 0 is not finite'})
    """

    def __init__(self, count: int, steps: int, live_from: int, device: torch.device | str) -> None:
        self._live_from, self._dead_at = live_from, min(steps, DEAD_AFTER) - 1
        self._age = 0  # steps taken
        self._first_bad = torch.full((count,), -1, device=device)
        self._reached = torch.zeros(count, dtype=torch.bool, device=device)
        self._dead = torch.zeros(count, dtype=torch.bool, device=device)

    def kept(self, scores: Tensor, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Take in a step of every picture, and return the gradients with zeros for those that have failed."""
        finite, reached = torch.isfinite(scores), torch.zeros_like(self._reached)
        for gradient in gradients:
            if gradient is not None:
                largest = gradient.flatten(1).abs().amax(1)  # not a number, or infinite, where one of them is
                finite, reached = finite & torch.isfinite(largest), reached | (largest > 0)
        if self._age >= self._live_from:
            self._reached |= reached
        self._first_bad = torch.where((self._first_bad < 0) & ~finite, self._age, self._first_bad)
        if self._age == self._dead_at:
            self._dead = ~self._reached
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

    def failures(self) -> dict[int, str]:
        """Return the reason of every picture that has failed; this waits for the device."""
        reasons = {}
        for index, (bad, dead) in enumerate(zip(self._first_bad.tolist(), self._dead.tolist())):
            if bad >= 0:
                reasons[index] = f"the score or the gradient of step {bad} is not finite"
            elif dead:
                reasons[index] = "no gradient reaches the picture: nothing turns the unit on"
        return reasons
