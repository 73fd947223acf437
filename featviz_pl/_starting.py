"""The picture from which a run, or all pictures of a sweep, start."""

from __future__ import annotations

import copy
import hashlib
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from featviz_pl.images.base import Image, check_pictures
from featviz_pl.io import read_picture, to_uint8
from featviz_pl.numerics.resampling import resize
from featviz_pl.transforms import Views


def read_start(start: str | os.PathLike[str] | Tensor, channels: int) -> Tensor:
    """Return the pictures (N, C, H, W) to start from; a file is read with so many channels.

    Raises:
        ValueError: when there is no such picture, or values lie outside [0, 1].

    Example:
        >>> import torch
        >>> read_start(torch.zeros(3, 4, 5), 3).shape
        torch.Size([1, 3, 4, 5])
    """
    return check_pictures("start", read_picture(start, channels) if isinstance(start, (str, os.PathLike)) else start)


def start_digest(pictures: Tensor) -> str:
    """Return 16 hexadecimal digits that tell one start from another, for provenance.

    Example:
        >>> import torch
        >>> len(start_digest(torch.zeros(1, 3, 4, 5)))
        16
    """
    return hashlib.sha256(to_uint8(pictures).cpu().numpy().tobytes()).hexdigest()[:16]


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


def planned(image: Image, views: Views, start: str | os.PathLike[str] | Tensor | None) -> Plan:
    """Return the plan of a sweep; the start is tried on a copy of the image, before any network works.

    Raises:
        ValueError: when there is no such picture, it is several, or the image cannot start from one.
    """
    if start is None:
        return Plan(image, views)
    pictures = read_start(start, image.channels)
    if len(pictures) != 1:
        raise ValueError(f"start: a sweep starts all its pictures from one, got {len(pictures)}")
    with torch.inference_mode(False), torch.no_grad():
        fitting = resize(pictures.clone(), image.size).clamp(0, 1)
        tried = copy.deepcopy(image)
        tried.allocate(tried.count or 1)
        tried.start_from(fitting)
        return Plan(image, views, fitting, tried()[:1, : image.channels - image.alpha])
