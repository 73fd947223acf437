"""A picture on a mesh: what each pixel shows, against rays, areas and files written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from featviz_pl.numerics.rasterize import rasterize
from featviz_pl.transforms import MeshView

Array = NDArray[np.float64]
STILL = torch.zeros(1, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ray(row: int, column: int, size: tuple[int, int], field_of_view: float) -> Array:
    """Return the direction in which a pixel looks."""
    step = 2 * math.tan(math.radians(field_of_view) / 2) / size[0]
    return np.array([(column + 0.5 - size[1] / 2) * step, -(row + 0.5 - size[0] / 2) * step, -1.0])


def hit(direction: Array, triangle: Array) -> tuple[float, Array] | None:
    """Intersect a ray from the origin with a triangle (Moller, Trumbore, 1997): how far, and the shares of the corners."""
    first, second = triangle[1] - triangle[0], triangle[2] - triangle[0]
    across = np.cross(direction, second)
    determinant = float(first @ across)
    if abs(determinant) < 1e-12:
        return None
    u = float(-triangle[0] @ across) / determinant
    around = np.cross(-triangle[0], first)
    v = float(direction @ around) / determinant
    if u < 0 or v < 0 or u + v > 1:
        return None
    return float(second @ around) / determinant, np.array([1 - u - v, u, v])


def test_every_pixel_shows_what_its_ray_meets_first() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 3, 3)) + np.array([0, 0, -6.0])
    attributes = rng.uniform(size=(12, 3, 2))
    size = (17, 23)
    shown, covered = rasterize(points, attributes, size, 35.0)
    assert 0.1 < covered.mean() < 1.0
    for row in range(size[0]):
        for column in range(size[1]):
            hits = [
                (found, face)
                for face in range(12)
                if (found := hit(ray(row, column, size, 35.0), points[face])) is not None
            ]
            assert covered[row, column] == bool(hits)
            if hits:
                (_, shares), face = min(hits, key=lambda one: one[0][0])
                np.testing.assert_allclose(shown[row, column], shares @ attributes[face], atol=1e-9)


def test_triangles_behind_the_camera_do_not_show() -> None:
    triangle = np.array([[[-9.0, -9, 2], [9, -9, 2], [0, 9, 2]], [[-9.0, -9, -2], [9, -9, 2], [0, 9, -2]]])
    assert not rasterize(triangle, triangle, (4, 4), 60.0)[1].any()


@pytest.mark.parametrize("distance", [3.0, 12.0])
def test_a_sphere_covers_the_disc_that_geometry_says(distance: float) -> None:
    view = MeshView("sphere", 160, distance=distance, field_of_view=50.0 if distance < 5 else 10.0, background=0.0)
    shown = view.apply(torch.ones(1, 1, 8, 8), (STILL, torch.tensor([distance])))
    radius = (
        80 / math.tan(math.radians(view.field_of_view) / 2) / math.sqrt(distance**2 - 1)
    )  # the tangent from the camera
    assert float(shown.sum()) == pytest.approx(math.pi * radius**2, rel=0.01)


def test_the_front_of_the_sphere_shows_the_middle_of_the_map_upright() -> None:
    height, width = 64, 128
    down, across = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    view = MeshView("sphere", 65, distance=12.0)
    shown = view.apply(torch.stack([down, across])[None], (STILL, torch.tensor([12.0])))[0]
    assert shown[:, 32, 32].tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert float(shown[0, 12, 32]) < 0.4 < 0.6 < float(shown[0, 52, 32]), "up is up"
    assert float(shown[1, 32, 12]) < 0.45 < 0.55 < float(shown[1, 32, 52]), "left is left"


def test_a_turn_shows_another_longitude() -> None:
    across = torch.linspace(0, 1, 256).expand(1, 1, 64, 256)
    for degrees in (-90, 45):  # about the upright axis, counter-clockwise from above
        turn = torch.tensor([[0.0, math.radians(degrees), 0.0]])
        shown = MeshView("sphere", 65, distance=12.0).apply(across, (turn, torch.tensor([12.0])))
        assert float(shown[0, 0, 32, 32]) == pytest.approx(0.5 - degrees / 360, abs=0.01)


def test_the_cube_has_its_six_sides_on_the_texture() -> None:
    texture = torch.arange(6.0).view(1, 1, 2, 3).repeat_interleave(32, 2).repeat_interleave(32, 3) / 6
    turns = [(0.0, 0.0), *((0.0, angle) for angle in (90.0, 180.0, 270.0)), (90.0, 0.0), (-90.0, 0.0)]
    seen = []
    for pitch, yaw in turns:
        turn = torch.tensor([[math.radians(pitch), math.radians(yaw), 0.0]])
        shown = MeshView("cube", 33, distance=12.0).apply(texture, (turn, torch.tensor([12.0])))
        seen.append(round(float(shown[0, 0, 16, 16]) * 6))
    assert sorted(seen) == list(range(6))


def test_rotations_are_uniform() -> None:
    turns, distances = MeshView("cube", 4).sample(generator(), 200_000)
    assert bool((turns.norm(dim=1) <= math.pi + 1e-6).all())
    # The angle of a uniform rotation has density (1 - cos a) / pi, so its mean is pi / 2 + 2 / pi.
    assert float(turns.norm(dim=1).mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, rel=0.003)
    assert float(turns.mean(0).abs().max()) < 0.02
    assert 11.0 <= float(distances.min()) < 11.01 < 12.99 < float(distances.max()) <= 13.0


def test_the_gradient_goes_to_the_texture_where_it_is_seen() -> None:
    view = MeshView("cube", 33, distance=12.0)
    texture = torch.zeros(1, 1, 64, 96, requires_grad=True)
    view.apply(texture, (STILL, torch.tensor([12.0]))).sum().backward()
    assert texture.grad is not None
    touched: Tensor = texture.grad[0, 0] != 0
    assert bool(touched[5:27, 5:27].any()), "the front is the first side"
    assert not bool(touched[:, 40:].any())


SQUARE = """# a square of two by two, with one face of four corners
v 0 0 0
v 2 0 0
v 2 2 0
v 0 2 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
f 1/1 2/2 3/3 -1/-1/1
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "square.obj").write_text(SQUARE)
    view = MeshView(str(tmp_path / "square.obj"), 32, distance=12.0, field_of_view=8.0)
    texture = torch.zeros(1, 1, 16, 16)
    texture[0, 0, :8, 8:] = 1.0  # the upper right quarter
    shown = view.apply(texture, (STILL, torch.tensor([12.0])))[0, 0]
    assert [float(shown[row, column]) for row, column in ((10, 20), (10, 10), (20, 10), (20, 20))] == [
        1.0,
        0.0,
        0.0,
        0.0,
    ]
    assert float(shown[0, 0]) == 0.5
    assert str(tmp_path) not in repr(view)
    assert repr(view).startswith("MeshView('square.obj', (32, 32), distance=")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0\nf 1 2 3\n", r"mesh: line 2 of '.*bad.obj' is no vertex, texture coordinate or face with both"),
        (SQUARE + "f 1/1 2/2 9/9\n", r"mesh: line 11 of"),
        ("v 0 0 0\n", r"mesh: '.*bad.obj' holds no faces"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.obj").write_text(text)
    with pytest.raises(ValueError, match=message):
        MeshView(str(tmp_path / "bad.obj"))


def test_what_is_no_mesh_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mesh: unknown mesh 'spere'; did you mean 'sphere'"):
        MeshView("spere")
    with pytest.raises(ValueError, match=r"mesh: cannot read '.*none.obj': No such file or directory"):
        MeshView(str(tmp_path / "none.obj"))
    with pytest.raises(ValueError, match=r"distance must be above 1, got 0.5"):
        MeshView("cube", distance=0.5)
