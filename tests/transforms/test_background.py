"""Transparent pictures on a background: composition by hand, and noise with the statistics of its source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featviz_pl.transforms import Background, Compose, Crop, Jitter, Views

# The color matrix of Lucid, divided by its largest column norm.
COLORS = np.array([[0.5628, 0.1948, 0.0433], [0.5845, 0.0, -0.1082], [0.5845, -0.1948, 0.0649]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transparent(count: int = 2, channels: int = 4, size: tuple[int, int] = (5, 6)) -> Tensor:
    return torch.rand(count, channels, *size, generator=generator(4), dtype=torch.float64)


def behind(background: Background, count: int, size: tuple[int, int], colors: int = 3, seed: int = 0) -> Tensor:
    """Show nothing at all, so that the background is seen."""
    shown: Tensor = background(torch.zeros(count, colors + 1, *size, dtype=torch.float64), generator(seed))
    return shown


@pytest.mark.parametrize(("color", "expected"), [(0.25, [0.25] * 3), ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9])])
def test_a_constant_background_shows_through_by_what_alpha_leaves(color: Any, expected: list[float]) -> None:
    image = transparent()
    shown = Background("constant", color)(image, generator())
    colors, alpha = image[:, :3].numpy(), image[:, 3:].numpy()
    np.testing.assert_allclose(shown, colors * alpha + np.array(expected).reshape(1, 3, 1, 1) * (1 - alpha), atol=1e-7)


def test_grey_pictures_have_an_alpha_too() -> None:
    image = transparent(2, 2)
    shown = Background("constant", 1.0)(image, generator())
    assert shown.shape == (2, 1, 5, 6)
    np.testing.assert_allclose(shown, image[:, :1] * image[:, 1:] + 1 - image[:, 1:], atol=1e-7)
    for kind in ("noise", "random"):
        assert Background(kind)(image, generator()).shape == (2, 1, 5, 6)


@pytest.mark.parametrize("kind", ["noise", "random", "constant"])
def test_what_is_opaque_hides_the_background(kind: Any) -> None:
    image = transparent()
    image[:, 3] = 1.0
    assert torch.equal(Background(kind)(image, generator()), image[:, :3])


def test_random_colors_are_flat_and_uniform() -> None:
    shown = behind(Background("random"), 4000, (2, 3))
    assert torch.equal(shown, shown[:, :, :1, :1].expand_as(shown))
    drawn = shown[:, :, 0, 0]
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.015)
    assert float(drawn.std()) == pytest.approx(1 / np.sqrt(12), rel=0.03)
    assert float((torch.corrcoef(drawn.T) - torch.eye(3)).abs().max()) < 0.06


def decorrelated(shown: Tensor) -> np.ndarray[Any, Any]:
    """Undo sigmoid and colors, which leaves the three independent fields."""
    logits = np.log(shown.numpy() / (1 - shown.numpy()))
    fields: np.ndarray[Any, Any] = np.einsum("ij,njhw->nihw", np.linalg.inv(COLORS), logits)
    return fields


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_noise_has_the_spectrum_of_its_source(size: tuple[int, int]) -> None:
    fields = decorrelated(behind(Background(), 600, size))
    power = (np.abs(np.fft.fft2(fields, norm="ortho")) ** 2).mean((0, 1))
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None])
    scale = 1 / np.maximum(frequency, 1 / max(size)) ** 1.5
    # Lucid: sd 0.2, divided by 4; real and imaginary part have that deviation each, where both are used.
    expected = 2 * (0.2 / 4 * scale) ** 2
    inner = np.ones(size, dtype=bool)
    inner[:, 0] = False  # where the transform of a real field is its own mirror image, some parts are not used
    if size[1] % 2 == 0:
        inner[:, size[1] // 2] = False
    np.testing.assert_allclose(power[inner] / expected[inner], 1.0, atol=0.15)


def test_noise_has_the_colors_of_its_source() -> None:
    shown = behind(Background(), 600, (8, 8))
    logits = np.log(shown.numpy() / (1 - shown.numpy())).transpose(1, 0, 2, 3).reshape(3, -1)
    found = logits @ logits.T
    expected = COLORS @ COLORS.T
    np.testing.assert_allclose(found / np.trace(found), expected / np.trace(expected), atol=0.03)


def test_louder_and_whiter_noise() -> None:
    quiet, loud = (decorrelated(behind(Background(deviation=deviation), 20, (12, 12))) for deviation in (0.1, 0.2))
    np.testing.assert_allclose(loud, 2 * quiet, rtol=1e-3, atol=1e-3)
    smooth, rough = (decorrelated(behind(Background(decay=decay), 20, (12, 12))) for decay in (2.0, 0.5))
    steps = [float(np.abs(np.diff(field)).mean() / field.std()) for field in (smooth, rough)]
    assert steps[0] < 0.5 * steps[1]


def test_weakened_backgrounds_come_near_to_the_color() -> None:
    for kind in ("noise", "random"):
        background = Background(kind, color=[0.2, 0.4, 0.6])
        image = torch.zeros(2, 4, 5, 6)
        parameters = background.sample(generator(), 2)
        full, half, none = (
            background.apply(image, background.weaken(parameters, strength)) for strength in (1.0, 0.5, 0.0)
        )
        flat = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(2, 3, 5, 6)
        torch.testing.assert_close(none, flat)
        torch.testing.assert_close(half, (full + flat) / 2)


def test_gradients_reach_colors_and_alpha() -> None:
    image = transparent().requires_grad_(True)
    background = Background("constant", 0.25)
    background(image, generator()).sum().backward()
    assert image.grad is not None
    torch.testing.assert_close(image.grad[:, :3], image.detach()[:, 3:].expand(2, 3, 5, 6))
    torch.testing.assert_close(image.grad[:, 3], (image.detach()[:, :3] - 0.25).sum(1))


@pytest.mark.parametrize("first", [True, False])
def test_a_background_takes_its_place_among_views(first: bool) -> None:
    moves = [Jitter(1), Crop()]
    views = Views(Compose([Background(), *moves] if first else [*moves, Background()], size=7), 3)
    shown = views.apply(transparent(), views.sample(0, 0, [1, 2]), 0.0)
    assert shown.shape == (2, 3, 3, 7, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Background("nois"), "kind: unknown background 'nois'; did you mean 'noise'"),  # type: ignore[arg-type]
        (lambda: Background(color=[0.1, 0.2]), "color must be one number or three, got 2"),
        (lambda: Background(color=1.5), "color must be at least 0 and at most 1, got 1.5"),
        (lambda: Background(deviation=0.0), "deviation must be above 0, got 0.0"),
        (
            lambda: Background()(torch.rand(1, 3, 4, 4), generator()),
            "Background: a picture of 3 channels has no alpha",
        ),
        (lambda: Background()(torch.rand(1, 1, 4, 4), generator()), "a picture of 1 channels has no alpha"),
        (
            lambda: Background(color=[0.1, 0.2, 0.3])(torch.rand(1, 2, 4, 4), generator()),
            "color: 3 numbers do not fit a picture of 1 color; give one",
        ),
    ],
)
def test_bad_input_is_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("background", "text"),
    [
        (lambda: Background(), "Background('noise', color=0.5, deviation=0.2, decay=1.5)"),
        (lambda: Background("constant", [0.1, 0.2, 0.3]), "Background('constant', color=[0.1, 0.2, 0.3])"),
    ],
)
def test_repr_is_the_constructor(background: Any, text: str) -> None:
    assert repr(background()) == text
