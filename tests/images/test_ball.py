"""Pictures in a ball: the formula in numpy, and a distance that no run exceeds."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import BallImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel

Norm = Literal["l2", "linf"]
norms = pytest.mark.parametrize("norm", ["l2", "linf"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre(count: int = 1) -> Tensor:
    drawn = torch.rand(count, 3, 6, 7, generator=generator(5))
    drawn[:, :, 0], drawn[:, :, 1] = 0.0, 1.0
    return drawn


def distances(one: NDArray[np.float32], other: NDArray[np.float32], norm: Norm) -> NDArray[np.float64]:
    difference = (one.astype(np.float64) - other).reshape(len(one), -1)
    return np.asarray(np.linalg.norm(difference, ord=2 if norm == "l2" else np.inf, axis=1))


@norms
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_picture_is_the_centre_and_a_vector_in_the_ball(norm: Norm, scale: float) -> None:
    weight = scale * np.random.default_rng(0).normal(size=(2, 3, 6, 7))
    image = BallImage(centre(), 0.6, norm=norm, count=2).double()
    with torch.no_grad():
        image.required_weight().copy_(torch.from_numpy(weight))
    if norm == "l2":
        vector = weight / np.sqrt(3 * 6 * 7)
        vector = vector / np.maximum(1, np.sqrt((vector**2).sum((1, 2, 3), keepdims=True)))
    else:
        vector = weight / np.maximum(1, np.abs(weight))
    np.testing.assert_allclose(image().detach().numpy(), np.clip(centre().numpy() + 0.6 * vector, 0, 1), atol=1e-7)


@norms
@pytest.mark.parametrize("radius", [0.05, 2.0])
def test_no_run_leaves_the_ball_nor_the_range(norm: Norm, radius: float) -> None:
    given = centre(2)
    problem = Ascent(BallImage(given, radius, norm=norm), FrozenNetwork(toy()), Channel("features.5", [1, 2]))
    problem.initialize()
    problem.prepare()
    before = problem.scores()
    seen: list[NDArray[np.float32]] = []
    after = ascend(
        problem, steps=20, optimizer=adam(50.0), on_step=lambda *_: seen.append(problem.image().detach().numpy().copy())
    )
    assert bool((after > before).all())
    for shown in seen:
        assert distances(shown, given.numpy(), norm).max() <= radius * (1 + 1e-5)
        assert shown.min() >= 0
        assert shown.max() <= 1
    if radius == 0.05:
        reached = distances(seen[-1], given.numpy(), norm)
        assert reached.min() > 0.8 * radius, "and it is used"


@norms
def test_a_picture_at_the_edge_can_come_back(norm: Norm) -> None:
    # By the formula alone the gradient of a weight outside never leads inwards, and a value would stay where it
    # overshot.
    image = BallImage(torch.full((1, 3, 4, 4), 0.5), 0.2, norm=norm, count=1)
    with torch.no_grad():
        image.required_weight().fill_(3.0)
    edge = image().detach().clone()
    for _ in range(3):
        image.advance(0, 1)
        ((image() - 0.5) ** 2).sum().backward()
        weight = image.required_weight()
        assert weight.grad is not None
        with torch.no_grad():
            weight.sub_(weight.grad, alpha=2.0 if norm == "linf" else 2.0 * 3 * 4 * 4)
        weight.grad = None
    assert float((image().detach() - 0.5).abs().max()) < 0.95 * float((edge - 0.5).abs().max())


@norms
def test_projecting_changes_no_picture_and_nothing_the_second_time(norm: Norm) -> None:
    image = BallImage(centre(), 0.3, norm=norm, deviation=5.0)
    image.initialize(2, generator())
    before = image().detach().clone()
    image.advance(0, 1)
    torch.testing.assert_close(image().detach(), before, rtol=0, atol=2e-5)
    once = image.required_weight().detach().clone()
    image.advance(0, 1)
    assert torch.equal(image.required_weight(), once)
    inside = BallImage(0.4 + 0.2 * centre(), 0.3, norm=norm, deviation=0.1)
    inside.initialize(1, generator())
    kept = inside.required_weight().detach().clone()
    inside.advance(0, 1)
    assert torch.equal(inside.required_weight(), kept), "what is inside stays"


@norms
def test_the_start_is_the_deviation_s_share_of_the_radius(norm: Norm) -> None:
    image = BallImage(torch.full((3, 20, 20), 0.5), 0.4, norm=norm, deviation=0.02)
    image.initialize(2, generator())
    spread = (image() - 0.5).detach().flatten(1)
    share = spread.norm(dim=1) / 0.4 if norm == "l2" else spread.std(1) / 0.4
    np.testing.assert_allclose(share.numpy(), 0.02, rtol=0.1)


@norms
def test_a_start_outside_the_ball_is_refused(norm: Norm) -> None:
    image = BallImage(torch.full((3, 4, 4), 0.5), 0.1, norm=norm)
    with pytest.raises(ValueError, match=r"image: must lie within 0.1 of the centre"):
        image.start_from(torch.full((3, 4, 4), 0.75))
    near = torch.full((3, 4, 4), 0.5)
    near[0, 0, 0] = 0.58
    image.start_from(near)
    np.testing.assert_allclose(image()[0].detach().numpy(), near.numpy(), atol=1e-6)


def test_one_centre_serves_all_pictures_and_several_decide_their_number() -> None:
    assert BallImage(centre(), 0.1).count is None
    assert BallImage(centre(), 0.1, count=3)().shape == (3, 3, 6, 7)
    assert BallImage(centre(2), 0.1).count == 2
    with pytest.raises(ValueError, match="count: 2 centres do not fit 3 pictures"):
        BallImage(centre(2), 0.1).allocate(3)


@norms
def test_a_pixel_that_overshot_white_can_come_back(norm: Norm) -> None:
    image = BallImage(torch.full((1, 3, 4, 4), 0.95), 0.8 if norm == "l2" else 0.1, norm=norm)
    image.allocate(1)
    with torch.no_grad():
        image.required_weight().fill_(0.95)
    image.advance(0, 2)
    assert float(image().detach().max()) > 0.999
    image().sum().backward()
    gradient = image.required_weight().grad
    assert gradient is not None
    assert bool((gradient > 0).all())
