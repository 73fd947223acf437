"""In which precision a network runs fastest on this machine, measured on the run's own steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from featviz_pl.engine.ascent import REDIRECTED_STEPS, Ascent, trained_parameters

AUTO, FULL, REDUCED = "auto", "32-true", "bf16-mixed"
CLEARLY = 1.1  # how many times as fast less precision must be to be worth it
_ROUNDS = 6


class FastestPrecision(NamedTuple):
    """Hold a precision of the Trainer and why it was chosen.

    Args:
        name: ``"32-true"`` or ``"bf16-mixed"``.
        seconds: of one step in each precision that was measured.
    """

    name: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        """Say it in one line."""
        if len(self.seconds) == 1:
            return f"precision {self.name}: this device has no bfloat16"
        return f"precision {self.name}: a step takes " + ", ".join(
            f"{own * 1e3:.3g} ms in {name}" for name, own in self.seconds.items()
        )


def fastest_precision(problem: Ascent, steps: int) -> FastestPrecision:
    """Measure some steps of a problem in both precisions, in turn, and choose bfloat16 where it is clearly faster.

    Nothing is optimised. Only networks run in less than float32; the pictures, their views and the objective never do.

    Args:
        problem: initialised here if it is not yet, and prepared where its image is.
        steps: of the run, 1 or more.

    Example:
        >>> from torch import nn
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> problem = Ascent(PixelImage(8), FrozenNetwork(nn.Conv2d(3, 4, 3)), Channel("output", 1))
        >>> fastest_precision(problem, steps=32).name in ("32-true", "bf16-mixed")
        True
    """
    with torch.inference_mode(False), torch.enable_grad():
        problem.initialize()
        device = problem.image.initialized.device
        if not problem.prepared:
            problem.prepare(device)
        names = [FULL, REDUCED] if _has_bfloat16(device) else [FULL]
        seconds = {name: float("inf") for name in names}
        for place in range(1 + _ROUNDS):
            for name in names:
                own = _seconds(problem, min(REDIRECTED_STEPS + place, steps - 1), steps, device, name == REDUCED)
                seconds[name] = min(seconds[name], own) if place else seconds[name]  # the first of each fills caches
    return chosen(seconds)


def chosen(seconds: dict[str, float]) -> FastestPrecision:
    """Choose by the seconds of a step.

    Example:
        >>> chosen({"32-true": 1.0, "bf16-mixed": 0.95}).name, chosen({"32-true": 1.0, "bf16-mixed": 0.5}).name
        ('32-true', 'bf16-mixed')
    """
    reduced = seconds.get(REDUCED, float("inf")) * CLEARLY < seconds[FULL]
    return FastestPrecision(REDUCED if reduced else FULL, seconds)


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())


def _seconds(problem: Ascent, step: int, steps: int, device: torch.device, reduced: bool) -> float:
    began = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        loss = problem.step(step, steps).loss
    gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, trained_parameters(problem.image), allow_unused=True)
    for gradient in gradients:
        if gradient is not None:
            gradient.flatten()[0].item()  # waits for the device
    return time.perf_counter() - began
