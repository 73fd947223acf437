"""What the batches of a sweep start from."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from featviz_pl.images import Image
from featviz_pl.numerics.resampling import resize
from featviz_pl.transforms import Views


@dataclass
class SweepStart:
    """What every batch of a sweep copies: no nn.Module, so that Lightning neither moves nor broadcasts it.

    Args:
        image: of which every batch has a copy.
        views: of its pictures.
        picture: from which they start, in the size of the image.
        decoded_start: that picture as the image represents it, without its opacity.
    """

    image: Image
    views: Views
    picture: Tensor | None = None
    decoded_start: Tensor | None = None

    def copy_image(self, count: int) -> Image:
        """Return an image of `count` pictures."""
        image = copy.deepcopy(self.image)
        if self.picture is not None:
            image.allocate(count)
            image.start_from(self.picture)
        return image


def prepare_start(image: Image, views: Views, start: Tensor | None) -> SweepStart:
    """Return what batches start from; the start is tried on a copy of the image, before any network works.

    Raises:
        ValueError: when the start is several pictures, or the image cannot start from one.
    """
    if start is None:
        return SweepStart(image, views)
    if len(start) != 1:
        raise ValueError(f"start: a sweep starts all its pictures from one, got {len(start)}")
    with torch.inference_mode(False), torch.no_grad():
        picture = resize(start.clone(), image.size).clamp(0, 1)
        decoded = SweepStart(image, views, picture).copy_image(image.count or 1)()
        return SweepStart(image, views, picture, decoded[:1, : image.channels - image.alpha])
