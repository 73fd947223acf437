"""Growing images, learning-rate schedules and extra terms of the recipes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR

from featviz_pl.images import GrowingImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import size_pair
from featviz_pl.objectives import Objective, StayNear, TotalVariation
from featviz_pl.objectives.activation import LayerTerm

_STAGES = 7  # of Plug-In Inversion
_CONSTANT_SHARE = 0.6  # of a run, before the learning rate begins to fall


def constant_then_linear(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Keep the learning rate for six tenths of the run, then let it fall to zero linearly.

    Example:
        >>> scheduler = constant_then_linear(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), 10)
        >>> [round(scheduler.lr_lambdas[0](step), 2) for step in (0, 6, 8, 10)]
        [1.0, 1.0, 0.5, 0.0]
    """
    return LambdaLR(optimizer, partial(_lr_factor, steps))


def _lr_factor(steps: int, step: int) -> float:
    return max(0.0, min(1.0, (1 - step / steps) / (1 - _CONSTANT_SHARE)))


def cosine_per_stage(optimizer: torch.optim.Optimizer, steps: int) -> CosineAnnealingWarmRestarts:
    """Restart a cosine schedule in each of the seven stages of Plug-In Inversion."""
    return CosineAnnealingWarmRestarts(optimizer, math.ceil(steps / _STAGES))


def plug_in_inversion_image(size: int | Sequence[int], channels: int = 3) -> GrowingImage:
    """Return free pixels that grow by eighths of the size in seven stages, half by zooming in and half by a new rim."""
    side = min(size_pair("size", size))
    sizes = sorted({max(1, side * eighths // 8) for eighths in range(9 - _STAGES, 9)})
    arguments = {"color": "none", "squash": "clip", "deviation": 0.1}
    return GrowingImage(size, channels=channels, sizes=sizes, zoom=0.5, image=PixelImage, arguments=arguments)


def read_patches(
    objective: Objective, network: FrozenNetwork, size: tuple[int, int], start: Tensor | None
) -> Objective:
    """Read token layers at the patch tokens, and subtract the total variation."""
    shapes = {layer.name: layer.shape for layer in network.layers(size)}
    objective = copy.deepcopy(objective)  # the caller's is not changed
    for term in objective.terms():
        if not isinstance(term, LayerTerm) or term.tokens != "all" or len(shapes.get(term.layer, ())) != 2:
            continue
        if getattr(term, "position", None) is None:  # a position counts among all tokens
            term.tokens = "patches"
    return objective - 0.0005 * 0.1 * TotalVariation(power=2)


def stay_near_start(
    objective: Objective, network: FrozenNetwork, size: tuple[int, int], start: Tensor | None
) -> Objective:
    """Add `StayNear` the start picture in the middle one of the layers that run before the target's."""
    if start is None:
        raise ValueError(
            "preset: accentuation changes a photo and needs one: start=…, on the command line --start PICTURE"
        )
    return objective + StayNear(start, layer=_middle_layer(objective, network, size), balance=objective)


def _middle_layer(objective: Objective, network: FrozenNetwork, size: tuple[int, int]) -> str:
    order = [layer.name for layer in network.layers(size)]
    deepest = max((order.index(source.layer) for source in objective.sources() if source.layer in order), default=0)
    if deepest == 0:
        raise ValueError(f"preset: accentuation needs a layer before the target's, and none runs before {objective!r}")
    return order[deepest // 2]
