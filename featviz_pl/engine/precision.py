"""The precision in which the steps of a run are fastest on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from featviz_pl.engine.ascent import REDIRECTED_STEPS, Ascent, trained_parameters

AUTO, FULL, REDUCED = "auto", "32-true", "bf16-mixed"
MIN_SPEEDUP = 1.1  # of reduced precision, for it to be chosen
_ROUNDS = 6


class FastestPrecision(NamedTuple):
    """Hold the chosen precision of the Trainer and the measured times.

    Args:
        name: ``"32-true"`` or ``"bf16-mixed"``.
        seconds: of one step in each precision that was measured.
    """

    name: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        """Return a line of text."""
        if len(self.seconds) == 1:
            return f"precision {self.name}: this device has no bfloat16"
        return f"precision {self.name}: a step takes " + ", ".join(
            f"{1e3 * seconds:.3g} ms in {name}" for name, seconds in self.seconds.items()
        )


def fastest_precision(ascent: Ascent, steps: int) -> FastestPrecision:
    """Measure steps of a run in both precisions, in turn, and choose bfloat16 where it is 1.1 times as fast.

    Nothing is optimized. Only networks run in bfloat16; the pictures, their views and the objective stay in float32.

    Args:
        ascent: initialized here if it is not yet, and prepared on the device of its image.
        steps: of the run, 1 or more.

    Example:
        >>> from torch import nn
        >>> from featviz_pl.images import PixelImage
        >>> from featviz_pl.networks import FrozenNetwork
        >>> from featviz_pl.objectives import Channel
        >>> ascent = Ascent(PixelImage(8), FrozenNetwork(nn.Conv2d(3, 4, 3)), Channel("output", 1))
        >>> fastest_precision(ascent, steps=32).name in ("32-true", "bf16-mixed")
        True
    """
    with torch.inference_mode(False), torch.enable_grad():
        ascent.initialize()
        device = ascent.image.initialized.device
        if not ascent.prepared:
            ascent.prepare(device)
        names = [FULL, REDUCED] if _has_bfloat16(device) else [FULL]
        seconds = {name: float("inf") for name in names}
        for index in range(1 + _ROUNDS):
            step = min(REDIRECTED_STEPS + index, steps - 1)
            for name in names:
                duration = _seconds(ascent, step, steps, device, name == REDUCED)
                if index > 0:  # the first step of each fills caches
                    seconds[name] = min(seconds[name], duration)
    return choose(seconds)


def choose(seconds: dict[str, float]) -> FastestPrecision:
    """Choose by the seconds of a step.

    Example:
        >>> choose({"32-true": 1.0, "bf16-mixed": 0.95}).name, choose({"32-true": 1.0, "bf16-mixed": 0.5}).name
        ('32-true', 'bf16-mixed')
    """
    reduced = seconds.get(REDUCED, float("inf")) * MIN_SPEEDUP < seconds[FULL]
    return FastestPrecision(REDUCED if reduced else FULL, seconds)


def _has_bfloat16(device: torch.device) -> bool:
    return device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())


def _seconds(ascent: Ascent, step: int, steps: int, device: torch.device, reduced: bool) -> float:
    began = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
        loss = ascent.step(step, steps).loss
    gradients: Sequence[Tensor | None] = torch.autograd.grad(loss, trained_parameters(ascent.image), allow_unused=True)
    for gradient in gradients:
        if gradient is not None:
            gradient.flatten()[0].item()  # waits for the device
    return time.perf_counter() - began
