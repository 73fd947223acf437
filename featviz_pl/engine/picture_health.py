"""Find the pictures of a batch that fail, and keep them from the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHECK_INTERVAL = 32  # steps between two calls of `failures`: each waits for the device
DEAD_AFTER = 64  # steps: a picture that has had no gradient by then fails


class PictureHealth:
    """Record for each picture the first step that is not finite, and whether a gradient reaches it.

    On an accelerator only `failures` waits for the device.

    Args:
        count: number of pictures.
        steps: of the run.
        first_step: the first one whose gradient counts: earlier ones may be redirected.
        device: of the pictures.

    Example:
        >>> health = PictureHealth(2, steps=3, first_step=0, device="cpu")
        >>> masked = health.mask_failed(torch.tensor([1.0, float("nan")]), [torch.ones(2, 4)])
        >>> masked[0].sum(1).tolist(), health.failures()
        ([4.0, 0.0], {1: 'the score or the gradient of step 0 is not finite'})
    """

    def __init__(self, count: int, steps: int, first_step: int, device: torch.device | str) -> None:
        self._first_step, self._last_chance = first_step, min(steps, DEAD_AFTER) - 1
        self._step = 0
        self._first_bad_step = torch.full((count,), -1, device=device)
        self._has_gradient = torch.zeros(count, dtype=torch.bool, device=device)
        self._dead = torch.zeros(count, dtype=torch.bool, device=device)

    def mask_failed(self, scores: Tensor, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Record a step, and return its gradients with zeros for the pictures that have failed."""
        finite, nonzero = torch.isfinite(scores), torch.zeros_like(self._has_gradient)
        for gradient in gradients:
            if gradient is not None:
                largest = gradient.flatten(1).abs().amax(1)  # NaN or infinite where one value is
                finite, nonzero = finite & torch.isfinite(largest), nonzero | (largest > 0)
        if self._step >= self._first_step:
            self._has_gradient |= nonzero
        self._first_bad_step = torch.where((self._first_bad_step < 0) & ~finite, self._step, self._first_bad_step)
        if self._step == self._last_chance:
            self._dead = ~self._has_gradient
        self._step += 1
        healthy = (self._first_bad_step < 0) & ~self._dead
        if healthy.device.type == "cpu" and bool(healthy.all()):
            return tuple(gradients)
        return tuple(
            None
            if gradient is None
            else torch.where(healthy.view(-1, *[1] * (gradient.ndim - 1)), gradient, torch.zeros_like(gradient))
            for gradient in gradients
        )

    def failures(self) -> dict[int, str]:
        """Return the reason of every picture that has failed, by its index; this waits for the device."""
        reasons = {}
        for index, (step, is_dead) in enumerate(zip(self._first_bad_step.tolist(), self._dead.tolist())):
            if step >= 0:
                reasons[index] = f"the score or the gradient of step {step} is not finite"
            elif is_dead:
                reasons[index] = "no gradient reaches the picture: nothing turns the unit on"
        return reasons
