"""Several pictures on one sheet."""

from __future__ import annotations

import math

from torch import Tensor


def contact_sheet(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Lay pictures out in rows on white.

    Shape:
        (N, C, H, W) -> (C, height, width)

    Args:
        images: the pictures, all of one size.
        columns: per row; the layout nearest to a square unless given.
        gap: white pixels between pictures.

    Example:
        >>> import torch
        >>> contact_sheet(torch.rand(5, 3, 8, 8), columns=3).shape
        torch.Size([3, 18, 28])
    """
    count, channels, height, width = images.shape
    across = columns or _columns(count, height / width)
    down = math.ceil(count / across)
    sheet = images.new_ones(channels, down * (height + gap) - gap, across * (width + gap) - gap)
    for index, image in enumerate(images.detach()):
        top, left = index // across * (height + gap), index % across * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def _columns(count: int, aspect: float) -> int:
    """Return the number of columns that leaves the fewest places empty, of those that make the sheet square or somewhat wider."""
    square = math.ceil(math.sqrt(count * aspect))
    return min(range(square, square + square // 4 + 1), key=lambda across: (-count % across, across))


def sheet(images: Tensor) -> Tensor:
    """Return the one picture (C, H, W) of a batch, or a contact sheet of several.

    Example:
        >>> import torch
        >>> sheet(torch.rand(1, 3, 8, 8)).shape, sheet(torch.rand(4, 3, 8, 8)).shape
        (torch.Size([3, 8, 8]), torch.Size([3, 18, 18]))
    """
    return images[0] if len(images) == 1 else contact_sheet(images)
