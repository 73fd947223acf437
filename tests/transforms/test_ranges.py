"""Ranges: a number, a pair, a choice or a distribution of torch, each drawn as torchvision would."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
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

from featviz_pl.transforms import Blur, Choice, Crop, Jitter, MeshView, Roll, Rotate, Scale, Transform
from featviz_pl.transforms.ranges import describe, draw, draw_seeds, extent


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture() -> Distribution:
    return MixtureSameFamily(
        Categorical(torch.tensor([0.25, 0.75])), Normal(torch.tensor([-1.0, 3.0]), torch.tensor([0.1, 0.2]))
    )


def affine() -> Distribution:
    return TransformedDistribution(Beta(2.0, 3.0), [AffineTransform(1.0, 4.0)])


def drawn(transform: Transform) -> Tensor:
    """Return what 4,000 draws say of the range: the side of a crop, the distance of a mesh, else everything."""
    parameters: Any = transform.sample(generator(), 4000)
    if isinstance(transform, MeshView):
        parameters = parameters[1]
    numbers: Tensor = parameters[:, 2] if isinstance(transform, Crop) else parameters
    return numbers


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (lambda: Rotate(10), -10, 10),
        (lambda: Rotate((-10, 30)), -10, 30),
        (lambda: Scale((0.5, 2.0)), 0.5, 2.0),
        (lambda: Blur([0.5, 1.5]), 0.5, 1.5),
        (lambda: Crop(side=(0.25, 0.75)), 0.25, 0.75),
        (lambda: Crop(), 0.2, 0.25),
        (lambda: MeshView("cube", distance=(3, 4)), 3, 4),
        (lambda: MeshView("cube"), 11, 13),
    ],
)
def test_a_pair_is_a_uniform_range_and_an_angle_a_symmetric_one(
    make: Callable[[], Transform], low: float, high: float
) -> None:
    numbers = drawn(make())
    spread = high - low
    assert low <= float(numbers.min()) < low + 0.01 * spread
    assert high - 0.01 * spread < float(numbers.max()) <= high
    assert float(numbers.mean()) == pytest.approx((low + high) / 2, abs=0.02 * spread)
    assert float(numbers.std()) == pytest.approx(spread / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize("kind", [Jitter, Roll])
@pytest.mark.parametrize(("pixels", "low", "high"), [(2, -2, 2), ((0, 3), 0, 3), ((-1, -1), -1, -1), (0, 0, 0)])
def test_shifts_are_whole_and_drawn_evenly_for_each_axis(kind: type, pixels: Any, low: int, high: int) -> None:
    counts = Counter((int(down), int(right)) for down, right in drawn(kind(pixels)).tolist())
    each = range(low, high + 1)
    assert set(counts) == {(down, right) for down in each for right in each}
    expected = 4000 / len(counts)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: Blur(1.5), 1.5),
        (lambda: Crop(side=0.5), 0.5),
        (lambda: MeshView("cube", distance=4), 4.0),
        (lambda: Scale((2, 2)), 2.0),
        (lambda: Rotate(0), 0.0),
        (lambda: Rotate(Choice([90])), 90.0),
    ],
)
def test_one_number_of_a_blur_a_crop_or_a_distance_is_always_used(make: Callable[[], Transform], value: float) -> None:
    assert set(drawn(make()).tolist()) == {value}


@pytest.mark.parametrize("kind", [Scale, Rotate, Blur, lambda choice: Crop(side=choice), Jitter, Roll])
@pytest.mark.parametrize("values", [[0.25, 0.5, 1.0], [1.0], [0.5, 0.5, 0.25]])
def test_a_choice_is_drawn_evenly_from_its_list(kind: Any, values: list[float]) -> None:
    transform = kind(Choice(values))
    expected = Counter(map(round, values) if isinstance(transform, Roll) else values)
    counts = Counter(drawn(transform).flatten().tolist())
    assert set(counts) == set(expected)
    for value, times in expected.items():
        assert counts[value] / counts.total() == pytest.approx(times / len(values), abs=0.03)


def test_choices_are_values() -> None:
    assert Choice([0.5, 1]) == Choice((0.5, 1.0)) != Choice([1, 0.5])
    assert hash(Choice([0.5, 1])) == hash(Choice((0.5, 1.0)))
    assert repr(Choice([0.5])) == "Choice([0.5])"
    assert repr(Choice(range(20))) == "Choice([0, 1, 2, 17, 18, 19; 20 values])"
    assert copy.deepcopy(Choice([1, 2])) == pickle.loads(pickle.dumps(Choice([1, 2]))) == Choice([1, 2])


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
def test_distributions_are_drawn_without_the_global_generator(
    make: Callable[[], Distribution], mean: float, deviation: float
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        numbers = draw(make(), generator(), 20_000)
        torch.default_generator.manual_seed(2)
        before = torch.get_rng_state()
        assert torch.equal(draw(make(), generator(), 20_000), numbers)
        extent(make())
        assert torch.equal(torch.get_rng_state(), before)
    assert numbers.dtype == torch.float32
    assert not torch.equal(draw(make(), generator(1), 20_000), numbers)
    assert float(numbers.mean()) == pytest.approx(mean, abs=4 * deviation / math.sqrt(20_000))
    assert float(numbers.std()) == pytest.approx(deviation, rel=0.03)


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
        (lambda: Choice([2, 1, 3]), 1.0, 3.0),
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
    sample = draw(make(), generator(0), 1000)
    assert low == pytest.approx(float(sample.min()) if lower is None else lower)
    assert high == pytest.approx(float(sample.max()) if upper is None else upper)
    assert extent(make()) == (low, high), "the same at every construction"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Uniform(0.9, 1.1), "Uniform(low=0.9, high=1.1)"),
        (lambda: Normal(torch.tensor(0.5), 0.15), "Normal(loc=0.5, scale=0.15)"),
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
def test_a_distribution_is_described_by_its_constructor(make: Callable[[], Distribution], text: str) -> None:
    distribution = make()
    assert describe(distribution) == text
    draw(distribution, generator(), 3)
    assert describe(distribution) == text, "drawing changes nothing"
    assert describe(pickle.loads(pickle.dumps(distribution))) == describe(copy.deepcopy(distribution)) == text


@pytest.mark.parametrize(
    "kind", [Uniform, Normal, LogNormal, Beta, Cauchy, Gumbel, Laplace, Gamma, Pareto, VonMises, Weibull, StudentT]
)
def test_descriptions_hold_the_numbers_and_no_address(kind: type[Distribution]) -> None:
    # Two numbers each, the first of StudentT being its degrees of freedom.
    first, equal, different = (kind(torch.tensor(2.5), torch.tensor(number)) for number in (3.5, 3.5, 4.5))  # type: ignore[arg-type]
    assert describe(first) == describe(equal) != describe(different)
    assert describe(first).startswith(f"{kind.__name__}(")
    assert "2.5" in describe(first)
    assert "0x" not in describe(first)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Scale(1.1), TypeError, r"factors must be a pair .* got 1.1; or Choice"),  # type: ignore[arg-type]
        (lambda: Scale("2"), TypeError, "factors must be a pair"),  # type: ignore[arg-type]
        (lambda: Scale((0.0, 1.0)), ValueError, "factors must be above 0, got 0.0"),
        (lambda: Scale(Choice([1.0, 0.0])), ValueError, "factors must be above 0, got 0.0"),
        (lambda: Scale(Uniform(-0.5, 1.0)), ValueError, "factors must be above 0, .* down to -0.5"),
        (lambda: Scale(Normal(1.0, 0.5)), ValueError, r"Normal\(loc=1, scale=0.5\) reaches down to -"),
        (lambda: Scale(HalfNormal(1.0)), ValueError, "reaches down to 0"),
        (lambda: Rotate([-5, 0, 5]), ValueError, r"degrees must be .* list of 3; Choice\(\[...\]\)"),
        (lambda: Rotate([]), ValueError, "degrees must be .* list of 0"),
        (lambda: Rotate((5, -5)), ValueError, r"degrees must be a pair \(low, high\), got \(5, -5\)"),
        (lambda: Rotate(-5), ValueError, "degrees must be at least 0, got -5"),
        (lambda: Rotate(float("nan")), ValueError, "degrees must be at least 0, got nan"),
        (lambda: Rotate("ten"), TypeError, "degrees must be a number, got 'ten'"),  # type: ignore[arg-type]
        (lambda: Rotate(Normal(torch.zeros(3), torch.ones(3))), ValueError, r"degrees .* of shape \(3,\)"),
        (
            lambda: Rotate(Normal(torch.tensor(0.0, device="meta"), 1.0, validate_args=False)),
            ValueError,
            "degrees must draw on the CPU",
        ),
        (lambda: Blur(-1.0), ValueError, "sigma must be at least 0, got -1.0"),
        (lambda: Crop(side=[0.5, 2.0]), ValueError, "side must be .* at most 1, got 2.0"),
        (lambda: Jitter(-1), ValueError, "pixels must be at least 0, got -1"),
        (lambda: Jitter(1.5), TypeError, "pixels must be a whole number of at least 0, got 1.5"),  # type: ignore[arg-type]
        (lambda: Jitter((-1.5, 1.5)), ValueError, r"pixels must be whole .*\(-1.5, 1.5\)"),  # type: ignore[arg-type]
        (lambda: Jitter(Normal(torch.zeros(1), torch.ones(1))), ValueError, "pixels must be a distribution of single"),
        (lambda: Roll([1, 2, 3]), ValueError, "pixels must be .* list of 3; Choice"),
        (lambda: Choice([]), ValueError, "values must hold at least one"),
        (lambda: Choice([float("inf")]), ValueError, "values must be finite, got inf"),
        (lambda: Choice("12"), TypeError, "values must be a list"),  # type: ignore[arg-type]
        (lambda: Choice(3), TypeError, "values must be a list"),  # type: ignore[arg-type]
    ],
)
def test_bad_ranges_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_factors_without_a_smallest_one_are_cut_off_where_the_blur_ends() -> None:
    scale = Scale(Normal(1.0, 0.1))
    factors = scale.sample(generator(5), 20_000)
    bound = float(draw(Normal(1.0, 0.1), generator(0), 1000).min())
    assert float(factors.min()) == pytest.approx(bound)
    assert scale.largest_shrink == pytest.approx(1 / bound)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(factors.std()) == pytest.approx(0.1, rel=0.05)
    # A distribution that has a smallest number, or never reaches 0, is not cut off before it.
    assert Scale((0.8, 1.2)).largest_shrink == pytest.approx(1.25)
    assert Scale(LogNormal(0.0, 0.25)).largest_shrink == pytest.approx(
        1 / float(draw(LogNormal(0.0, 0.25), generator(0), 1000).min())
    )


def test_shifts_of_a_distribution_are_drawn_for_each_axis() -> None:
    shifts = Jitter(Normal(1.0, 2.0)).sample(generator(), 10_000)
    assert shifts.mean(0).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert shifts.std(0).tolist() == pytest.approx([2.0, 2.0], rel=0.05)
    assert abs(float(torch.corrcoef(shifts.T)[0, 1])) < 0.04
    assert bool((shifts != shifts.round()).any())


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (lambda: Scale((0.9, 1.1)), "Scale(Uniform(low=0.9, high=1.1))"),
        (lambda: Scale(Choice([0.9, 1.1])), "Scale(Choice([0.9, 1.1]))"),
        (lambda: Rotate(5), "Rotate(Uniform(low=-5, high=5))"),
        (lambda: Rotate(Normal(0.0, 5.0)), "Rotate(Normal(loc=0, scale=5))"),
        (lambda: Jitter(3), "Jitter(3)"),
        (lambda: Jitter((0, 3)), "Jitter((0, 3))"),
        (lambda: Jitter(Uniform(-3.0, 3.0)), "Jitter(Uniform(low=-3, high=3))"),
        (lambda: Roll((-3, 1)), "Roll((-3, 1))"),
        (lambda: Blur((1.0, 1.1), kernel=11), "Blur(Uniform(low=1, high=1.1), kernel=11)"),
    ],
)
def test_repr_shows_the_range(transform: Any, text: str) -> None:
    assert repr(transform()) == text
