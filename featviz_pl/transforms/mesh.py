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
    """Wrap the picture around a mesh and look at it from a random side: the picture is a texture.

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
        distance: Range = (11.0, 13.0),
        field_of_view: float = 10.0,
        background: float = 0.5,
    ) -> None:
        super().__init__()
        self.mesh = os.fspath(mesh)
        self.corners, self.places = _corners(self.mesh)
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
            places, covered = self._seen(*parameters)
            grid = to_device(torch.from_numpy(places * 2 - 1).to(image.dtype), image.device)
            shown = to_device(torch.from_numpy(covered), image.device)[:, None]
        read = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
        return torch.where(shown, read, image.new_full((), self.background))

    def _seen(self, turns: Tensor, distances: Tensor) -> tuple[Array, NDArray[np.bool_]]:
        """Return where on the texture each pixel of each view is, (N, h, w, 2), and whether it shows the mesh at all."""
        places, covered = [], []
        for turn, distance in zip(turns.cpu().double(), distances.cpu().double()):
            points = self.corners @ _rotation(turn.numpy()).T
            points[..., 2] -= float(distance)
            shown, inside = rasterize(points, self.places, self.size, self.field_of_view)
            places.append(shown)
            covered.append(inside)
        return np.stack(places), np.stack(covered)

    def extra_repr(self) -> str:
        """Show the mesh by its name, without its folder."""
        what = f"{Path(self.mesh).name!r}, {self.size}, distance={describe(self.distance)}"
        return f"{what}, field_of_view={self.field_of_view:g}, background={self.background:g}"


def _rotation(turn: Array) -> Array:
    """Return the rotation (3, 3) about a vector by its length."""
    angle = float(np.linalg.norm(turn))
    x, y, z = turn / angle if angle > 0 else turn
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew)


def _corners(mesh: str) -> tuple[Array, Array]:
    """Return the corners of all triangles (F, 3, 3) within the unit sphere, and their places on the texture (F, 3, 2), y down."""
    if mesh in SHAPES:
        corners, places = _sphere() if mesh == "sphere" else _cube()
    elif Path(mesh).suffix.lower() != ".obj":
        raise unknown("mesh", "mesh", mesh, [*SHAPES, "a path that ends in .obj"])
    else:
        corners, places = _read_obj(mesh)
    flat = corners.reshape(-1, 3)
    corners = corners - (flat.min(0) + flat.max(0)) / 2
    return corners / np.linalg.norm(corners, axis=2).max(), places


def _sphere(rows: int = 24, columns: int = 48) -> tuple[Array, Array]:
    """Return a globe whose texture is a map with the poles at its upper and lower border; its front shows the middle of the map."""
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
    corners, places = [], []
    for index, side in enumerate(sides):
        row, column = divmod(index, 3)
        down, across = np.meshgrid([row / 2, (row + 1) / 2], [column / 3, (column + 1) / 3], indexing="ij")
        corners.append(_quads(square @ side.T))
        places.append(_quads(np.stack([across, down], -1)))
    return np.concatenate(corners), np.concatenate(places)


def _read_obj(path: str) -> tuple[Array, Array]:
    """Read triangles and places from a Wavefront file; faces with more corners become fans."""
    points: list[list[float]] = []
    texture: list[list[float]] = []
    corners: list[list[list[float]]] = []
    places: list[list[list[float]]] = []
    number = 0
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            number += 1
            word, *rest = line.split() or [""]
            if word == "v":
                points.append([float(part) for part in rest[:3]])
            elif word == "vt":
                texture.append([float(rest[0]), 1 - float(rest[1])])  # in the file, y goes up
            elif word == "f":
                indices = [[int(part) for part in corner.split("/")[:2]] for corner in rest]
                found = [(points[_place(a, points)], texture[_place(b, texture)]) for a, b in indices]
                for second, third in pairwise(found[1:]):
                    corners.append([found[0][0], second[0], third[0]])
                    places.append([found[0][1], second[1], third[1]])
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"mesh: cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"mesh: line {number} of {path!r} is no vertex, texture coordinate or face with both"
        ) from error
    if not corners:
        raise ValueError(f"mesh: {path!r} holds no faces")
    return np.array(corners), np.array(places)


def _place(number: int, listed: list[list[float]]) -> int:
    """Return where a number of the file stands: from 1 on, or from the end backwards."""
    if number == 0:
        raise IndexError("numbers begin at 1")
    return number - 1 if number > 0 else len(listed) + number
