"""What a sweep starts from."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from featviz_pl.images import Image
from featviz_pl.numerics.resampling import resize
from featviz_pl.transforms import Views


@dataclass
class Plan:
    """Hold what every batch of a sweep copies: no nn.Module, so that Lightning neither moves nor broadcasts it.

    Args:
        image: of which every batch has a copy.
        views: how its pictures are seen.
        start: a picture from which they start, in the size of the image.
        begun: what the image makes of that, without its opacity.
    """

    image: Image
    views: Views
    start: Tensor | None = None
    begun: Tensor | None = None


def planned(image: Image, views: Views, start: Tensor | None) -> Plan:
    """Return the plan of a sweep; the start is tried on a copy of the image, before any network works.

    Raises:
        ValueError: when there is no such picture, it is several, or the image cannot start from one.
    """
    if start is None:
        return Plan(image, views)
    if len(start) != 1:
        raise ValueError(f"start: a sweep starts all its pictures from one, got {len(start)}")
    with torch.inference_mode(False), torch.no_grad():
        fitting = resize(start.clone(), image.size).clamp(0, 1)
        tried = copy.deepcopy(image)
        tried.allocate(tried.count or 1)
        tried.start_from(fitting)
        return Plan(image, views, fitting, tried()[:1, : image.channels - image.alpha])
