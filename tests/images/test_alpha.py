"""Transparency: its formula in numpy, its start, and what a run makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toys import adam

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import AlphaImage, FourierImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Layer


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_last_channel_is_the_squashed_spectrum_without_color() -> None:
    image = AlphaImage(image=FourierImage((6, 7), 2, decay=1.5)).double()
    weight = np.random.default_rng(0).normal(size=(2, 1, 6, 4, 2))
    with torch.no_grad():
        image.plane.required_weight().copy_(torch.from_numpy(weight))
    lengths = np.hypot(np.fft.fftfreq(6)[:, None], np.fft.rfftfreq(7)[None])
    spectrum = (weight[..., 0] + 1j * weight[..., 1]) / np.maximum(lengths, 1 / 7) ** 1.5
    expected = 1 / (1 + np.exp(-np.fft.irfft2(spectrum, s=(6, 7), norm="ortho") / 4))
    np.testing.assert_allclose(image()[:, 3:].detach().numpy(), expected, atol=1e-6)


def test_the_colors_are_those_of_the_picture_inside() -> None:
    inner = FourierImage(8, deviation=0.5)
    inner.initialize(2, generator())
    assert torch.equal(AlphaImage(image=inner)()[:, :3], inner())


@pytest.mark.parametrize("opacity", [0.001, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("size", [8, (5, 9)])
def test_the_start_is_as_opaque_as_asked(opacity: float, size: int | tuple[int, int]) -> None:
    image = AlphaImage(size, opacity=opacity)
    image.initialize(2, generator())
    shown = image()[:, 3].detach()
    assert float(shown.mean()) == pytest.approx(opacity, rel=0.02)
    assert 0 < float(shown.std()) < 0.02, "drawn, not constant"


def test_half_opaque_unless_asked_otherwise() -> None:
    assert AlphaImage().opacity == 0.5
    assert AlphaImage().size == (224, 224)
    assert AlphaImage().channels == 4


def test_pictures_without_alpha_are_opaque() -> None:
    given = torch.rand(2, 3, 6, 5, generator=generator())
    image = AlphaImage((6, 5))
    image.start_from(given)
    np.testing.assert_allclose(image()[:, :3].detach().numpy(), given.numpy(), atol=1e-3)
    np.testing.assert_allclose(image()[:, 3].detach().numpy(), 1.0, atol=1e-3)
    image()[:, 3].sum().backward()
    assert bool(image.plane.required_weight().grad.any()), "an opaque picture can still fade"  # type: ignore[union-attr]


def test_pictures_with_alpha_keep_theirs() -> None:
    given = torch.rand(1, 4, 6, 5, generator=generator())
    image = AlphaImage((6, 5), count=2)
    image.start_from(given)
    np.testing.assert_allclose(image().detach().numpy(), given.expand(2, -1, -1, -1).numpy(), atol=1e-3)


def test_what_is_needed_turns_opaque_and_what_harms_turns_clear() -> None:
    image = AlphaImage(image=PixelImage((4, 8), 1, color="none"))
    image.start_from(torch.tensor([1.0, 0.0, 0.0, 0.5]).view(4, 1, 1).expand(4, 4, 8))  # half clear red
    left = torch.zeros(1, 1, 4, 8)
    left[..., :4] = 1
    ascent = torch.optim.Adam(image.plane.parameters(), lr=0.05)
    for step in range(60):  # the colors rest; red is wanted on the left and unwanted on the right, over any background
        background = torch.rand(1, 3, 1, 1, generator=generator(step))
        shown = image()
        seen = shown[:, 3:] * shown[:, :3] + (1 - shown[:, 3:]) * background
        (seen[:, :1] * (1 - 2 * left)).sum().backward()
        ascent.step()
        ascent.zero_grad()
    alpha = image()[0, 3].detach()
    assert float(alpha[:, :4].min()) > 0.7
    assert float(alpha[:, 4:].max()) < 0.3


def test_a_run_shows_the_picture_on_backgrounds() -> None:
    # A network that wants light: bright colors gain most where no darker background shines through.
    network = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    problem = Ascent(AlphaImage(8), FrozenNetwork(network), Layer("output"))
    problem.initialize()
    before = problem.image()[:, 3].mean().item()
    ascend(problem, steps=100, optimizer=adam())
    after = problem.image().detach()
    assert after[:, 3].mean().item() > before + 0.1
    assert after[:, :3].mean().item() > 0.6
