"""Brute force in numpy for what the views do: complex numbers and loops instead of matrices and grids."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# ("shift", (down, right)) in pixels, ("zoom", factor), ("turn", degrees counter-clockwise as displayed).
Move = tuple[str, Any]


def pixel(picture: Array, y: int, x: int, outside: float | None) -> float:
    """Return one pixel of a picture that goes on for ever: as `outside`, or as its mirror image when that is None."""
    height, width = picture.shape
    if outside is not None:
        return float(picture[y, x]) if 0 <= y < height and 0 <= x < width else outside
    y, x = y % (2 * height), x % (2 * width)
    return float(picture[min(y, 2 * height - 1 - y), min(x, 2 * width - 1 - x)])


def bilinear(picture: Array, y: float, x: float, outside: float | None = None) -> float:
    """Blend the four pixels around a point, (0, 0) being the centre of the first pixel."""
    top, left = math.floor(y), math.floor(x)
    down, right = y - top, x - left
    return (
        pixel(picture, top, left, outside) * (1 - down) * (1 - right)
        + pixel(picture, top, left + 1, outside) * (1 - down) * right
        + pixel(picture, top + 1, left, outside) * down * (1 - right)
        + pixel(picture, top + 1, left + 1, outside) * down * right
    )


def seen(
    picture: Array,
    moves: Sequence[Move] = (),
    outside: float | None = None,
    size: tuple[int, int] | None = None,
    reach: float | None = None,
) -> Array:
    """Move a picture, step by step in order, and read the result once.

    Args:
        picture: (H, W).
        moves: what happens to the content, about the centre of the picture.
        outside: the value around the picture, or None for its mirror image.
        size: (height, width) of the result; the whole picture is stretched to it.
        reach: how many pixels are mirrored before the last of them repeats.
    """
    (height, width), (rows, columns) = picture.shape, size or picture.shape
    result = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            # Real part to the right, imaginary part up, from the centre, in pixels of the picture.
            point = complex((column + 0.5 - columns / 2) * width / columns, (rows / 2 - row - 0.5) * height / rows)
            for kind, amount in reversed(moves):
                if kind == "shift":
                    point -= complex(amount[1], -amount[0])
                elif kind == "zoom":
                    point /= amount
                else:
                    point *= cmath.exp(-1j * math.radians(amount))
            y, x = height / 2 - 0.5 - point.imag, width / 2 - 0.5 + point.real
            if reach is not None:
                y, x = min(max(y, -reach), height - 1 + reach), min(max(x, -reach), width - 1 + reach)
            result[row, column] = bilinear(picture, y, x, outside)
    return result
