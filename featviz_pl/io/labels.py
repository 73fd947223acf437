"""Texts under the pictures of a sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

LETTERS, LINE = 10, 14  # pixels: size of the font, height of a line


def text_width(text: str) -> int:
    """Return the width of a text in pixels."""
    return math.ceil(ImageFont.load_default(LETTERS).getlength(_ascii(text))) + 2


def text_lines(lines: Sequence[str], width: int, channels: int = 3) -> Tensor:
    """Draw black lines on white, one under the other; what is too wide is cut off.

    Shape:
        -> (channels, 14 * lines, width)

    Example:
        >>> text_lines(["features.9:33", "1.23"], width=80).shape
        torch.Size([3, 28, 80])
    """
    paper = Pillow.new("L", (width, LINE * len(lines)), 255)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(LETTERS)
    for index, line in enumerate(lines):
        draw.text((1, index * LINE), _ascii(line), fill=0, font=font)
    grey = torch.from_numpy(np.array(paper, dtype=np.float32))[None] / 255
    return (
        torch.cat([grey.expand(3, -1, -1), torch.ones_like(grey)]) if channels == 4 else grey.expand(channels, -1, -1)
    )


def add_labels(image: Tensor, lines: Sequence[str], width: int = 0) -> Tensor:
    """Return a picture with lines of text under it, on white of at least `width` pixels.

    Shape:
        (C, H, W) -> (C, H + 14 * lines, max(W, width))

    Example:
        >>> add_labels(torch.rand(3, 32, 32), ["net.4:0", "1.23"], width=60).shape
        torch.Size([3, 60, 60])
    """
    channels, height, image_width = image.shape
    strip = text_lines(lines, max(width, image_width), channels).to(image)
    paper = image.new_ones(channels, height, strip.shape[2])
    paper[:, :, :image_width] = image
    return torch.cat([paper, strip], dim=1)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
