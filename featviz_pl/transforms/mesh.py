"""A picture as the texture of a mesh, seen from random sides."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.checks import finite_number, size_pair, unknown
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.rasterize import rasterize
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.ranges import Range, describe, draw, parse_range
from featviz_pl.transforms.warp import at_least_float32

Array = NDArray[np.float64]
SHAPES = ("sphere", "cube")


class MeshView(Transform):
    """Use the picture as the texture of a mesh that is seen from a random side.

    The mesh is moved and scaled into the unit sphere about the origin, turned by a rotation drawn uniformly from all
    there are, and seen by a camera at a distance. Each pixel reads the texture, bilinearly, where the mesh has it; the
    gradient goes to the texture alone. Beside the mesh is a flat grey.

    Shape:
        (N, C, H, W) -> (N, C, h, w); parameters: the turn (N, 3), a rotation vector in radians, and the distance (N,)

    Args:
        mesh: ``"sphere"``, ``"cube"``, or the path of a Wavefront file (.obj) with texture coordinates.
        size: of the views in pixels, one number or (height, width).
        distance: of the camera from the centre, in radii of the mesh, above 1: one number is always used, a pair (low,
            high) draws uniformly between them; or a `Choice`, or a distribution.
        field_of_view: in degrees, from the lower to the upper border.
        background: the grey, in [0, 1].

    Raises:
        ValueError: when the file cannot be read or has no texture coordinates.

    Example:
        >>> view = MeshView("cube", size=64)(torch.zeros(1, 3, 32, 32), torch.Generator().manual_seed(0))
        >>> view.shape, view[0, 0, 0, 0].item(), view[0, 0, 32, 32].item()
        (torch.Size([1, 3, 64, 64]), 0.5, 0.0)

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018 (512 px views of
        a texture of 1,024, from a distance of 11 to 13 at 10 degrees)
    """

    def __init__(
        self,
        mesh: str,
        size: int | Sequence[int] = 224,
        *,
        distance: Range = (11.0, 13.0),
        field_of_view: float = 10.0,
        background: float = 0.5,
    ) -> None:
        super().__init__()
        self.mesh = os.fspath(mesh)
        self.corners, self.coordinates = _corners(self.mesh)
        self.size = size_pair("size", size)
        self.distance = parse_range("distance", distance, above=1.0)
        self.field_of_view = finite_number("field_of_view", field_of_view, above=0.0, most=179.0)
        self.background = finite_number("background", background, least=0.0, most=1.0)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the fixed size."""
        return self.size

    def sample(self, generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Draw n rotations, uniformly, and n distances."""
        quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float32)
        quaternions = functional.normalize(quaternions, dim=1)
        half = torch.atan2(quaternions[:, 1:].norm(dim=1), quaternions[:, 0])
        axes = functional.normalize(quaternions[:, 1:], dim=1)
        angles = 2 * half
        angles = torch.where(angles > math.pi, angles - 2 * math.pi, angles)
        return axes * angles[:, None], draw(self.distance, generator, n)

    def weaken(self, parameters: tuple[Tensor, Tensor], strength: float) -> tuple[Tensor, Tensor]:
        """Turn less, from the front."""
        return parameters[0] * strength, parameters[1]

    def apply(self, image: Tensor, parameters: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        """Read the texture where each pixel shows the mesh."""
        image = at_least_float32(image)
        with untraced():
            coordinates, covered = self._rasterize(*parameters)
            grid = to_device(torch.from_numpy(coordinates * 2 - 1).to(image.dtype), image.device)
            mask = to_device(torch.from_numpy(covered), image.device)[:, None]
        texture = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
        return torch.where(mask, texture, image.new_full((), self.background))

    def _rasterize(self, turns: Tensor, distances: Tensor) -> tuple[Array, NDArray[np.bool_]]:
        """Return the texture coordinates (N, h, w, 2) of each pixel, and whether it shows the mesh."""
        coordinates, covered = [], []
        for turn, distance in zip(turns.cpu().double(), distances.cpu().double()):
            points = self.corners @ _rotation(turn.numpy()).T
            points[..., 2] -= float(distance)
            texture, inside = rasterize(points, self.coordinates, self.size, self.field_of_view)
            coordinates.append(texture)
            covered.append(inside)
        return np.stack(coordinates), np.stack(covered)

    def extra_repr(self) -> str:
        """Show the mesh by its name, without its folder."""
        shape = f"{Path(self.mesh).name!r}, {self.size}, distance={describe(self.distance)}"
        return f"{shape}, field_of_view={self.field_of_view:g}, background={self.background:g}"


def _rotation(turn: Array) -> Array:
    """Return the rotation (3, 3) about a vector by its length."""
    angle = float(np.linalg.norm(turn))
    x, y, z = turn / angle if angle > 0 else turn
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew)


def _corners(mesh: str) -> tuple[Array, Array]:
    """Return corners (F, 3, 3) of triangles in the unit sphere and texture coordinates (F, 3, 2), y down."""
    if mesh in SHAPES:
        corners, coordinates = _sphere() if mesh == "sphere" else _cube()
    elif Path(mesh).suffix.lower() != ".obj":
        raise unknown("mesh", "mesh", mesh, [*SHAPES, "a path that ends in .obj"])
    else:
        corners, coordinates = _read_obj(mesh)
    flat = corners.reshape(-1, 3)
    corners = corners - (flat.min(0) + flat.max(0)) / 2
    return corners / np.linalg.norm(corners, axis=2).max(), coordinates


def _sphere(rows: int = 24, columns: int = 48) -> tuple[Array, Array]:
    """Return a globe whose texture is a map with the poles at its upper and lower border, its middle in front."""
    down, across = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij")
    latitude, longitude = np.pi * down, 2 * np.pi * (across - 0.5)
    points = np.stack(
        [np.sin(latitude) * np.sin(longitude), np.cos(latitude), np.sin(latitude) * np.cos(longitude)], -1
    )
    return _quads(points), _quads(np.stack([across, down], -1))


def _quads(grid: Array) -> Array:
    """Return two triangles for each mesh of a grid (rows, columns, K) as (F, 3, K)."""
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
    return np.concatenate(
        [np.stack([a, c, b], 2).reshape(-1, 3, grid.shape[-1]), np.stack([b, c, d], 2).reshape(-1, 3, grid.shape[-1])]
    )


def _cube() -> tuple[Array, Array]:
    """Return a cube whose six sides lie on the texture in two rows of three."""
    square = np.array([[[-1.0, 1, 1], [1, 1, 1]], [[-1, -1, 1], [1, -1, 1]]])  # the front, seen from +z
    quarter, turned = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    sides = [np.linalg.matrix_power(quarter, times) for times in range(4)] + [turned, turned.T]
    corners, coordinates = [], []
    for index, side in enumerate(sides):
        row, column = divmod(index, 3)
        down, across = np.meshgrid([row / 2, (row + 1) / 2], [column / 3, (column + 1) / 3], indexing="ij")
        corners.append(_quads(square @ side.T))
        coordinates.append(_quads(np.stack([across, down], -1)))
    return np.concatenate(corners), np.concatenate(coordinates)


def _read_obj(path: str) -> tuple[Array, Array]:
    """Read triangles and texture coordinates from a Wavefront file; faces with more corners become fans."""
    points: list[list[float]] = []
    texture: list[list[float]] = []
    corners: list[list[list[float]]] = []
    coordinates: list[list[list[float]]] = []
    number = 0
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            number += 1
            word, *fields = line.split() or [""]
            if word == "v":
                points.append([float(part) for part in fields[:3]])
            elif word == "vt":
                texture.append([float(fields[0]), 1 - float(fields[1])])  # in the file, y goes up
            elif word == "f":
                indices = [[int(part) for part in corner.split("/")[:2]] for corner in fields]
                vertices = [(points[_index(a, points)], texture[_index(b, texture)]) for a, b in indices]
                for second, third in pairwise(vertices[1:]):
                    corners.append([vertices[0][0], second[0], third[0]])
                    coordinates.append([vertices[0][1], second[1], third[1]])
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"mesh: cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"mesh: line {number} of {path!r} is no vertex, texture coordinate or face with both"
        ) from error
    if not corners:
        raise ValueError(f"mesh: {path!r} holds no faces")
    return np.array(corners), np.array(coordinates)


def _index(number: int, listed: list[list[float]]) -> int:
    """Return the index of a number of the file, which counts from 1, or from the end if negative."""
    if number == 0:
        raise IndexError("numbers begin at 1")
    return number - 1 if number > 0 else len(listed) + number
