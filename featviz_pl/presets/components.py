"""What the named recipes are made of besides classes and constants: pictures that grow, rates that fall, terms that are added."""

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
_FULL_RATE = 0.6  # share of a run at whose end the rate begins to fall


def held_then_falling(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Keep the learning rate for six tenths of the run, then let it fall to zero in a straight line.

    Example:
        >>> made = held_then_falling(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), 10)
        >>> [round(made.lr_lambdas[0](step), 2) for step in (0, 6, 8, 10)]
        [1.0, 1.0, 0.5, 0.0]
    """
    return LambdaLR(optimizer, partial(_share_of_rate, steps))


def _share_of_rate(steps: int, step: int) -> float:
    return max(0.0, min(1.0, (1 - step / steps) / (1 - _FULL_RATE)))


def growing_by_eighths(size: int | Sequence[int], channels: int = 3) -> GrowingImage:
    """Grow free pixels in seven stages, half by zooming in and half by a new rim."""
    side = min(size_pair("size", size))
    sizes = sorted({max(1, side * part // 8) for part in range(9 - _STAGES, 9)})
    arguments = {"color": "none", "squash": "clip", "deviation": 0.1}
    return GrowingImage(size, channels=channels, sizes=sizes, zoom=0.5, image=PixelImage, arguments=arguments)


def cosine_in_every_stage(optimizer: torch.optim.Optimizer, steps: int) -> CosineAnnealingWarmRestarts:
    """Let the learning rate of Plug-In Inversion fall anew in every stage."""
    return CosineAnnealingWarmRestarts(optimizer, math.ceil(steps / _STAGES))


def of_patches(objective: Objective, network: FrozenNetwork, size: tuple[int, int], start: Tensor | None) -> Objective:
    """Read token layers at the patches, and hold down the total variation."""
    shapes = {layer.name: layer.shape for layer in network.layers(size)}
    objective = copy.deepcopy(objective)  # the caller's stays as it is
    for term in objective.terms():
        at_a_token = getattr(term, "position", None) is not None  # counted among all tokens
        if (
            isinstance(term, LayerTerm)
            and term.tokens == "all"
            and not at_a_token
            and len(shapes.get(term.layer, ())) == 2
        ):
            term.tokens = "patches"
    return objective - 0.0005 * 0.1 * TotalVariation(power=2)


def near_the_start(
    objective: Objective, network: FrozenNetwork, size: tuple[int, int], start: Tensor | None
) -> Objective:
    """Stay near the start in the middle one of the layers that run before the target's."""
    if start is None:
        raise ValueError(
            "preset: accentuation changes a photo and needs one: start=…, on the command line --start PICTURE"
        )
    return objective + StayNear(start, layer=_middle_layer(objective, network, size), balance=objective)


def _middle_layer(objective: Objective, network: FrozenNetwork, size: tuple[int, int]) -> str:
    order = [layer.name for layer in network.layers(size)]
    deepest = max((order.index(source.layer) for source in objective.sources() if source.layer in order), default=0)
    if deepest == 0:
        raise ValueError(
            f"preset: accentuation stays near in a layer before the target's, and none runs before that of {objective!r}"
        )
    return order[deepest // 2]
