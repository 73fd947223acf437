"""Pictures whose contrast is bounded: the formula in numpy, its gradient, its inverse, and runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy

from featviz_pl.engine import Ascent
from featviz_pl.images import (
    AlphaImage,
    CPPNImage,
    FourierImage,
    Image,
    InterpolationBasisImage,
    LaplacianPyramidImage,
    LatentImage,
    MultiResolutionImage,
    PixelImage,
    SharedImage,
)
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel

Make = Callable[..., Any]
LINEAR: list[Make] = [
    lambda **more: FourierImage((6, 7), 2, **more),
    lambda **more: LaplacianPyramidImage((6, 7), 2, **more),
    lambda **more: MultiResolutionImage((6, 7), 2, **more),
    lambda **more: PixelImage((6, 7), 2, **more),
]
LATENT: list[Make] = [*LINEAR, lambda **more: CPPNImage((6, 7), 2, width=4, depth=2, **more)]
EVERY: list[Make] = [
    *LATENT,
    lambda **more: InterpolationBasisImage(2, 3, size=(6, 7), **more),
    lambda **more: SharedImage(PixelImage((6, 7), 2, **more), [(1, 2)]),
]


def filled(image: Any, scale: float = 3.0) -> Any:
    """Draw all weights, the second picture's much smaller than the first's."""
    image.double()
    scale *= 0.4 if isinstance(image, CPPNImage) else 1.0  # its logits would not be finite
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in image.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=draw, dtype=torch.float64))
            if weight.ndim > 1 and len(weight) > 1:
                weight[1] *= 1e-3
    return image


def logits(image: Image) -> Tensor:
    return torch.logit(image().detach())


@pytest.mark.parametrize("make", EVERY)
def test_the_latent_of_each_picture_is_scaled_down_to_the_bound(make: Make) -> None:
    free, bounded = logits(filled(make())), logits(filled(make(contrast=0.8)))
    spread = free.numpy().std((1, 2, 3), keepdims=True)
    assert spread.max() > 0.8
    np.testing.assert_allclose(bounded.numpy(), free.numpy() * np.minimum(1, 0.8 / spread), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("scale", [3.0, 1e-3])
def test_decoding_is_differentiable(make: Make, scale: float) -> None:
    image = filled(make(contrast=0.8), scale)
    names = [name for name, _ in image.named_parameters()]
    weights = tuple(weight.detach().clone().requires_grad_(True) for weight in image.parameters())

    def decode(*values: Tensor) -> Tensor:
        return torch.func.functional_call(image, dict(zip(names, values)), ())  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(decode, weights)


def test_a_flat_picture_has_a_finite_gradient() -> None:
    image = MultiResolutionImage(8, 1, contrast=1.0)
    image().sum().backward()
    gradient = image.required_weight().grad
    assert gradient is not None
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient > 0).any())


@pytest.mark.parametrize("make", LATENT)
def test_a_picture_does_not_depend_on_its_batch(make: Make) -> None:
    image = filled(make(contrast=0.8))
    together = image().detach()
    weight = image.required_weight()
    with torch.no_grad():
        weight[0] *= 5.0
    torch.testing.assert_close(image().detach()[1], together[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [FourierImage, LaplacianPyramidImage, MultiResolutionImage, PixelImage])
def test_pictures_within_the_bound_come_back_and_others_lose_the_excess(kind: type[LatentImage]) -> None:
    start = 0.3 + 0.4 * torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image: Any = kind.from_image(start, contrast=2.0)
    np.testing.assert_allclose(image().detach().numpy(), start.numpy(), atol=1e-3)
    flat: Any = kind.from_image(start, contrast=0.25)
    flattened = logits(flat.double())
    assert float(flattened.std(correction=0)) == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("make", LATENT)
def test_the_scale_of_the_weights_is_bounded_and_no_picture_changes(make: Make) -> None:
    image = filled(make(contrast=0.8))
    before = image().detach().clone()
    image.advance(0, 4)
    torch.testing.assert_close(image().detach(), before, rtol=0, atol=1e-7)
    image.contrast_limit = None
    assert float(logits(image).std((1, 2, 3), correction=0).max()) == pytest.approx(0.8, rel=1e-4)


def test_a_run_stays_within_the_bound_and_resumes_exactly() -> None:
    def steps(image: FourierImage, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        problem = Ascent(image, FrozenNetwork(toy()), Channel("features.5", [2, 3]))
        problem.prepare()
        for step in range(first, last):
            optimizer.zero_grad()
            problem.step(step, 12).loss.backward()
            optimizer.step()

    def build(seed: int) -> tuple[FourierImage, torch.optim.Adam]:
        image = FourierImage(12, contrast=0.5)
        image.initialize(2, torch.Generator().manual_seed(seed))
        return image, torch.optim.Adam(image.parameters(), lr=1.0)

    (image, optimizer), (resumed, again) = build(0), build(1)
    steps(image, optimizer, 0, 6)
    state = copy.deepcopy((image.state_dict(), optimizer.state_dict()))
    steps(image, optimizer, 6, 12)
    resumed.load_state_dict(state[0])
    again.load_state_dict(state[1])
    steps(resumed, again, 6, 12)
    assert torch.equal(resumed(), image())
    spread = logits(image).std((1, 2, 3), correction=0)
    np.testing.assert_allclose(spread.numpy(), 0.5, rtol=1e-4)
    assert "contrast" not in str(image.state_dict().keys())


def test_the_bound_of_photos_follows_their_size() -> None:
    limits = {side: float(FourierImage((side, side + 9), contrast="photos").contrast_limit) for side in (8, 224, 512)}  # type: ignore[arg-type]
    assert limits == pytest.approx({8: 1.11, 224: 1.30, 512: 1.30})
    assert 1.26 < float(PixelImage(144, contrast="photos").contrast_limit) < 1.28  # type: ignore[arg-type]
    assert repr(PixelImage(8, contrast="photos")).endswith("contrast='photos')")
    assert repr(PixelImage(8, contrast=1.5)).endswith("contrast=1.5)")
    assert "contrast" not in repr(PixelImage(8))
    colors = logits(AlphaImage(image=filled(PixelImage(8, 2, contrast=0.5))))[:, :3]
    assert float(colors.std((1, 2, 3), correction=0).max()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("contrast", "squash", "message"),
    [
        (0.0, "sigmoid", "contrast must be above 0, got 0.0"),
        (float("nan"), "sigmoid", "contrast must be above 0, got nan"),
        ("photo", "sigmoid", "contrast must be a number above 0, 'photos' or None, got 'photo'"),
        (1.0, "clip", "contrast: .* squash='clip'"),
    ],
)
def test_bad_bounds_are_refused(contrast: Any, squash: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelImage(8, contrast=contrast, squash=squash)
