"""A small rasterizer with a depth buffer, in numpy; not differentiable."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rasterize(
    points: Array, attributes: Array, size: tuple[int, int], field_of_view: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Interpolate the attributes of the nearest triangle for every pixel, and return which pixels are covered.

    The camera is at the origin and looks along -z, x to the right and y up; pixels are square, and `field_of_view` is
    that of the height. Attributes are interpolated with perspective. Triangles that reach behind the camera are left
    out; both sides show.

    Shape:
        points (F, 3, 3), attributes (F, 3, K), size (h, w) -> (h, w, K), (h, w)

    Args:
        points: corners of the triangles.
        attributes: of the corners, such as texture coordinates.
        size: (height, width) in pixels.
        field_of_view: in degrees, from the lower to the upper border.

    Example:
        >>> corners = np.array([[[-9.0, -9.0, -2.0], [9.0, -9.0, -2.0], [0.0, 9.0, -2.0]]])
        >>> values, covered = rasterize(corners, corners[..., :1], (1, 2), 90.0)
        >>> values.round(3).ravel().tolist(), covered.all().item()
        ([-2.0, 2.0], True)
    """
    height, width = size
    result = np.zeros((height, width, attributes.shape[-1]))
    nearest = np.zeros((height, width))  # the inverse of the depth, which is linear on the screen
    in_front = (points[..., 2] < -1e-6).all(1)
    points, attributes = points[in_front], attributes[in_front]
    focal = height / 2 / math.tan(math.radians(field_of_view) / 2)
    inverse = -1.0 / points[..., 2]
    columns = points[..., 0] * inverse * focal + width / 2 - 0.5  # where pixel centres are whole numbers
    rows = -points[..., 1] * inverse * focal + height / 2 - 0.5
    left, right = _span(columns, width)
    top, bottom = _span(rows, height)
    doubled = (columns[:, 1] - columns[:, 0]) * (rows[:, 2] - rows[:, 0]) - (columns[:, 2] - columns[:, 0]) * (
        rows[:, 1] - rows[:, 0]
    )
    for face in np.flatnonzero((left < right) & (top < bottom) & (np.abs(doubled) > 1e-12)):
        box = (slice(top[face], bottom[face]), slice(left[face], right[face]))
        y, x = np.ogrid[box]
        weights = _barycentric(columns[face], rows[face], doubled[face], x, y) * inverse[face][:, None, None]
        depth = weights.sum(0)
        inside = (weights >= -1e-9).all(0) & (depth > nearest[box])
        if inside.any():
            interpolated = np.tensordot(weights, attributes[face], (0, 0)) / np.where(inside, depth, 1.0)[..., None]
            result[box][inside] = interpolated[inside]
            nearest[box][inside] = depth[inside]
    return result, nearest > 0


def _span(positions: Array, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first pixel of each triangle on one axis, and the one after its last."""
    first = np.ceil(positions.min(1)).clip(0, length).astype(np.int64)
    last = (np.floor(positions.max(1)) + 1).clip(0, length).astype(np.int64)
    return first, last


def _barycentric(columns: Array, rows: Array, doubled: float, x: Array, y: Array) -> Array:
    """Return how near each pixel of a box is to the three corners, as shares of one."""
    second = ((x - columns[0]) * (rows[2] - rows[0]) - (y - rows[0]) * (columns[2] - columns[0])) / doubled
    third = ((y - rows[0]) * (columns[1] - columns[0]) - (x - columns[0]) * (rows[1] - rows[0])) / doubled
    return np.stack([1 - second - third, second, third])
