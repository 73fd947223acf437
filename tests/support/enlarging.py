"""Enlarging pictures as textbooks describe it, one axis at a time, in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def tent(distance: float) -> float:
    """Weigh a pixel at a distance, for linear interpolation."""
    return max(0.0, 1.0 - abs(distance))


def cubic(distance: float) -> float:
    """Weigh a pixel at a distance, for cubic convolution (Keys, 1981) with a = -3/4."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def axis_matrix(length: int, pixels: int, kernel: Callable[[float], float]) -> Array:
    """Return how much each of `length` new pixels takes of each old one; outside the picture its last pixel repeats."""
    matrix = np.zeros((length, pixels))
    for new in range(length):
        place = (new + 0.5) * pixels / length - 0.5
        for old in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[new, min(max(old, 0), pixels - 1)] += kernel(place - old)
    return matrix


def enlarged(picture: Array, size: tuple[int, int], kernel: Callable[[float], float] = tent) -> Array:
    """Enlarge (…, h, w) to (…, H, W)."""
    rows, columns = axis_matrix(size[0], picture.shape[-2], kernel), axis_matrix(size[1], picture.shape[-1], kernel)
    return np.asarray(np.einsum("ah,...hw,bw->...ab", rows, picture, columns))
