"""Several pictures on one sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from torch import Tensor

from featviz_pl.io.pictures import write_png
from featviz_pl.io.reading import open_picture

_GAP = 2  # pixels


def contact_sheet(images: Tensor, columns: int | None = None, gap: int = _GAP) -> Tensor:
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
    """Return the number of columns of a square or somewhat wider sheet that leaves the fewest cells empty."""
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


def save_sheet(
    pictures: Sequence[Path | None], path: Path, provenance: Mapping[str, Any], longest_side: int = 8192
) -> Path | None:
    """Lay picture files out in rows on white, one in memory at a time, smaller where there are many.

    Args:
        pictures: files of one size, or None where a unit has none and white is left.
        path: of the sheet.
        provenance: of the sheet.
        longest_side: of the sheet in pixels; the pictures of larger sheets are reduced.

    Returns:
        The sheet, or None where there is no picture at all.
    """
    first = next((file for file in pictures if file is not None), None)
    if first is None:
        return None
    example = open_picture(first)
    width, height = example.size
    across = math.ceil(math.sqrt(len(pictures) * height / width))
    down = math.ceil(len(pictures) / across)
    scale = min(1.0, (longest_side / across - _GAP) / width, (longest_side / down - _GAP) / height)
    cell = max(1, int(width * scale)), max(1, int(height * scale))
    layer = Pillow.new(example.mode, (across * (cell[0] + _GAP) - _GAP, down * (cell[1] + _GAP) - _GAP), "white")
    for index, file in enumerate(pictures):
        if file is not None:
            picture = open_picture(file)
            reduced = picture if picture.size == cell else picture.resize(cell, Pillow.Resampling.BOX)
            layer.paste(reduced, (index % across * (cell[0] + _GAP), index // across * (cell[1] + _GAP)))
    return write_png(layer, path, provenance)
