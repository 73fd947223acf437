"""Ranges: one number, a list, or any distribution of torch, each drawn as it says."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Beta,
    Categorical,
    Cauchy,
    Distribution,
    Gamma,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    Poisson,
    StudentT,
    TransformedDistribution,
    Uniform,
    VonMises,
    Weibull,
)

from featviz_pl.transforms import Blur, Jitter, Rotate, Scale
from featviz_pl.transforms.ranges import checked_range, described, draw, draw_seeds, extent, shown


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture() -> Distribution:
    return MixtureSameFamily(
        Categorical(torch.tensor([0.25, 0.75])), Normal(torch.tensor([-1.0, 3.0]), torch.tensor([0.1, 0.2]))
    )


def affine() -> Distribution:
    return TransformedDistribution(Beta(2.0, 3.0), [AffineTransform(1.0, 4.0)])


# Mean and deviation in closed form.
MOMENTS: list[tuple[Callable[[], Distribution], float, float]] = [
    (lambda: Uniform(0.9, 1.1), 1.0, 0.2 / math.sqrt(12)),
    (lambda: Normal(0.5, 0.15), 0.5, 0.15),
    (lambda: LogNormal(0.0, 0.25), math.exp(0.03125), math.sqrt((math.exp(0.0625) - 1) * math.exp(0.0625))),
    (lambda: Beta(2.0, 3.0), 0.4, 0.2),
    (affine, 1 + 4 * 0.4, 4 * 0.2),
    (mixture, 2.0, math.sqrt(0.25 * (0.01 + 9) + 0.75 * (0.04 + 1))),
    (lambda: Poisson(4.0), 4.0, 2.0),
]


@pytest.mark.parametrize(("make", "mean", "deviation"), MOMENTS)
def test_draws_have_the_mean_and_the_spread_of_their_distribution(
    make: Callable[[], Distribution], mean: float, deviation: float
) -> None:
    drawn = draw(make(), generator(), 20_000)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (20_000,)
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * deviation / math.sqrt(20_000))
    assert float(drawn.std()) == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("make", [moments[0] for moments in MOMENTS])
def test_the_global_generator_is_neither_read_nor_changed(make: Callable[[], Distribution]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = draw(make(), generator(), 10)
        torch.default_generator.manual_seed(2)
        before = torch.get_rng_state()
        assert torch.equal(draw(make(), generator(), 10), first)
        extent(make())
        assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(draw(make(), generator(1), 10), first)


def test_a_list_is_drawn_evenly_and_one_number_always() -> None:
    drawn = draw((1.0, 2.0, 2.0, 5.0), generator(), 8000)
    for value, share in [(1.0, 0.25), (2.0, 0.5), (5.0, 0.25)]:
        assert float((drawn == value).float().mean()) == pytest.approx(share, abs=0.03)
    assert draw((0.5,), generator(), 3).tolist() == [0.5] * 3


def test_seeds_are_different_whole_numbers_of_63_bits() -> None:
    seeds = draw_seeds(generator(), 1000)
    assert seeds.dtype == torch.int64
    assert len(set(seeds.tolist())) == 1000
    assert 0 <= int(seeds.min()) < 2**55
    assert 2**62 < int(seeds.max()) < 2**63


def test_float64_parameters_are_drawn_in_float32() -> None:
    wide = Uniform(torch.tensor(0.9, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64))
    assert draw(wide, generator(), 3).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "lower", "upper"),
    [
        (lambda: Uniform(0.9, 1.1), 0.9, 1.1),
        (lambda: Beta(2.0, 3.0), 0.0, 1.0),
        (lambda: HalfNormal(1.0), 0.0, None),
        (lambda: LogNormal(0.0, 0.1), None, None),  # never reaches 0
        (lambda: Normal(3.0, 0.5), None, None),
        (mixture, None, None),
    ],
)
def test_the_ends_are_those_of_the_support_or_of_a_thousand_draws(
    make: Callable[[], Distribution], lower: Any, upper: Any
) -> None:
    low, high = extent(make())
    drawn = draw(make(), generator(0), 1000)
    assert low == pytest.approx(float(drawn.min()) if lower is None else lower)
    assert high == pytest.approx(float(drawn.max()) if upper is None else upper)
    assert extent(make()) == (low, high), "the same at every construction"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Uniform(0.9, 1.1), "Uniform(low=0.9, high=1.1)"),
        (lambda: Normal(torch.tensor(0.5), 0.15), "Normal(loc=0.5, scale=0.15)"),
        (lambda: LogNormal(0.0, 0.25), "LogNormal(loc=0, scale=0.25)"),
        (lambda: Bernoulli(0.5), "Bernoulli(probs=0.5)"),
        (lambda: Bernoulli(logits=torch.tensor(0.0)), "Bernoulli(probs=0.5)"),
        (
            affine,
            "TransformedDistribution(base_distribution=Beta(concentration1=2, concentration0=3), "
            "transforms=[AffineTransform(loc=1, scale=4, event_dim=0)])",
        ),
        (
            mixture,
            "MixtureSameFamily(mixture_distribution=Categorical(probs=[0.25, 0.75]), "
            "component_distribution=Normal(loc=[-1, 3], scale=[0.1, 0.2]))",
        ),
    ],
)
def test_a_distribution_is_shown_as_its_constructor(make: Callable[[], Distribution], text: str) -> None:
    distribution = make()
    assert described(distribution) == text
    draw(distribution, generator(), 3)
    assert described(distribution) == text, "drawing changes nothing"
    assert described(pickle.loads(pickle.dumps(distribution))) == described(copy.deepcopy(distribution)) == text


@pytest.mark.parametrize(
    "kind", [Uniform, Normal, LogNormal, Beta, Cauchy, Gumbel, Laplace, Gamma, Pareto, VonMises, Weibull, StudentT]
)
def test_distributions_of_torch_are_shown_with_their_numbers_and_no_address(kind: type[Distribution]) -> None:
    # Two numbers each, the first of StudentT being its degrees of freedom.
    one, same, other = (kind(torch.tensor(2.5), torch.tensor(second)) for second in (3.5, 3.5, 4.5))  # type: ignore[arg-type]
    assert described(one) == described(same) != described(other)
    assert described(one).startswith(f"{kind.__name__}(")
    assert "2.5" in described(one)
    assert "0x" not in described(one)


def test_long_lists_are_shortened() -> None:
    assert shown((0.5,)) == "[0.5]"
    assert shown(tuple(map(float, range(20)))) == "[0, 1, 2, 17, 18, 19; 20 values]"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Scale(Uniform(0.0, 1.0)),
            ValueError,
            r"factors must be above 0, and Uniform\(low=0, high=1\) reaches down to 0",
        ),
        (lambda: Scale(Uniform(-0.5, 1.0)), ValueError, "reaches down to -0.5"),
        (
            lambda: Scale(Normal(1.0, 0.5)),
            ValueError,
            r"factors must be above 0, and Normal\(loc=1, scale=0.5\) reaches down to -",
        ),
        (lambda: Scale(HalfNormal(1.0)), ValueError, "reaches down to 0"),
        (
            lambda: Rotate(Normal(torch.zeros(3), torch.ones(3))),
            ValueError,
            r"degrees must be a distribution of single numbers, got Normal\(.*\) of shape \(3,\)",
        ),
        (
            lambda: Jitter(Normal(torch.zeros(1), torch.ones(1))),
            ValueError,
            "pixels must be a distribution of single numbers",
        ),
        (
            lambda: Rotate(Normal(torch.tensor(0.0, device="meta"), 1.0, validate_args=False)),
            ValueError,
            "degrees must draw on the CPU",
        ),
        (lambda: Blur(-1.0), ValueError, "sigma must be at least 0, got -1.0"),
        (lambda: Rotate("ten"), TypeError, "degrees must be a number, got 'ten'"),  # type: ignore[arg-type]
        (lambda: checked_range("side", [0.5, 2.0], most=1.0), ValueError, "side must be at most 1, got 2.0"),
    ],
)
def test_bad_ranges_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_factors_without_a_smallest_one_are_cut_off_where_the_blur_ends() -> None:
    scale = Scale(Normal(1.0, 0.1))
    drawn = scale.sample(generator(5), 20_000)
    bound = float(draw(Normal(1.0, 0.1), generator(0), 1000).min())
    assert float(drawn.min()) == pytest.approx(bound)
    assert scale.largest_shrink == pytest.approx(1 / bound)
    assert float(drawn.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.05)
    # A distribution that has a smallest number, or never reaches 0, is not cut off before it.
    assert Scale(Uniform(0.8, 1.2)).largest_shrink == pytest.approx(1.25)
    assert Scale(LogNormal(0.0, 0.25)).largest_shrink == pytest.approx(
        1 / float(draw(LogNormal(0.0, 0.25), generator(0), 1000).min())
    )


def test_shifts_of_a_distribution_are_drawn_for_each_axis() -> None:
    drawn = Jitter(Normal(1.0, 2.0)).sample(generator(), 10_000)
    assert drawn.shape == (10_000, 2)
    assert drawn.mean(0).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert drawn.std(0).tolist() == pytest.approx([2.0, 2.0], rel=0.05)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.04
    assert bool((drawn != drawn.round()).any())


def test_angles_of_a_distribution() -> None:
    drawn = Rotate(Uniform(-10.0, 30.0)).sample(generator(), 10_000)
    assert float(drawn.mean()) == pytest.approx(10.0, abs=0.5)
    assert float(drawn.std()) == pytest.approx(40 / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda: Scale(Uniform(0.9, 1.1)), "Scale(Uniform(low=0.9, high=1.1))"),
        (lambda: Rotate(Normal(0.0, 5.0)), "Rotate(Normal(loc=0, scale=5))"),
        (lambda: Jitter(Uniform(-3.0, 3.0)), "Jitter(Uniform(low=-3, high=3))"),
        (lambda: Blur(Uniform(1.0, 1.1), kernel=11), "Blur(Uniform(low=1, high=1.1), kernel=11)"),
    ],
)
def test_repr_shows_the_distribution(transform: Any, text: str) -> None:
    assert repr(transform()) == text
