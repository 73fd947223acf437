"""Whether a step depends on how much of the run is done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from featviz_pl.images import Image
from featviz_pl.transforms import Views


def follows_progress(image: Image, views: Views | None) -> bool:
    """Say whether a step depends on how much of the run is done, but for its draws: pictures must then begin together.

    Example:
        >>> from featviz_pl.images import FourierImage, GrowingImage
        >>> follows_progress(FourierImage(8), None), follows_progress(GrowingImage(8), None)
        (False, True)
    """
    if image.has_idle_parameters or (views is not None and views.schedule is not None):
        return True
    if views is None:
        return False
    drawn = views.sample(0, 0, [0])
    return not _equal(views.transforms.at(drawn, 0.0), views.transforms.at(drawn, 1.0))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)
