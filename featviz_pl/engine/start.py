"""The picture from which a run, or all pictures of a sweep, start."""

from __future__ import annotations

import os

from torch import Tensor

from featviz_pl.images.base import check_pictures
from featviz_pl.io import read_picture, to_uint8
from featviz_pl.numerics.digest import digest


def read_start(start: str | os.PathLike[str] | Tensor, channels: int) -> Tensor:
    """Return the pictures (N, C, H, W) to start from; a file is read with so many channels.

    Raises:
        ValueError: when there is no such picture, or values lie outside [0, 1].

    Example:
        >>> import torch
        >>> read_start(torch.zeros(3, 4, 5), 3).shape
        torch.Size([1, 3, 4, 5])
    """
    return check_pictures(
        "start", read_picture(start, channels, "start") if isinstance(start, (str, os.PathLike)) else start
    )


def start_digest(pictures: Tensor) -> str:
    """Return 16 hexadecimal digits that tell one start from another, for provenance.

    Example:
        >>> import torch
        >>> len(start_digest(torch.zeros(1, 3, 4, 5)))
        16
    """
    return digest([to_uint8(pictures)])
