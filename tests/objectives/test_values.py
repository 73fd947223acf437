"""Every term in closed form, against numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from featviz_pl.objectives import (
    L1,
    L2,
    Channel,
    ClassLogit,
    ClassProbability,
    Constant,
    DeepDream,
    Layer,
    Neuron,
    Objective,
    Observation,
    Source,
    TotalVariation,
)

Array = NDArray[np.float64]
PICTURES, VIEWS, UNITS = 3, 2, 4
NAMES = ("cat", "dog", "hen", "fox")
_random = np.random.default_rng(0)
# (pictures, views, …): maps that are not square, even and odd; tokens; vectors.
SHAPES: dict[str, tuple[int, ...]] = {
    "map": (UNITS, 4, 5),
    "odd map": (UNITS, 3, 1),
    "tokens": (6, UNITS),
    "vector": (UNITS,),
}
VALUES: dict[str, Array] = {kind: _random.normal(size=(PICTURES, VIEWS, *shape)) for kind, shape in SHAPES.items()}
PIXELS: Array = _random.random((PICTURES, 3, 4, 6))


def seen(activation: Array, layer: str = "layer", dtype: torch.dtype = torch.float64) -> Observation:
    return Observation(
        torch.from_numpy(PIXELS), {Source(layer): torch.from_numpy(activation).to(dtype)}, class_names=NAMES
    )


def units_last(activation: Array) -> Array:
    """Move the axis of units to the end: (pictures, views, positions…, units)."""
    return np.moveaxis(activation, 2, -1) if activation.ndim == 5 else activation


def at(values: Array, position: tuple[int, ...]) -> Array:
    """Pick one position of (pictures, views, positions…)."""
    for index in position:
        values = values[:, :, index]
    return values


def require(objective: Objective, observation: Observation, expected: Array) -> None:
    scores = objective(observation)
    assert scores.shape == expected.shape
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", SHAPES)
def test_layer_is_the_mean(kind: str) -> None:
    require(Layer("layer"), seen(VALUES[kind]), VALUES[kind].reshape(PICTURES, VIEWS, -1).mean(2))


@pytest.mark.parametrize("kind", SHAPES)
def test_deep_dream_is_the_mean_square(kind: str) -> None:
    require(DeepDream("layer"), seen(VALUES[kind]), (VALUES[kind].reshape(PICTURES, VIEWS, -1) ** 2).mean(2))


@pytest.mark.parametrize("unit", range(UNITS))
@pytest.mark.parametrize("kind", SHAPES)
def test_channel_is_the_mean_of_one_unit_over_positions(kind: str, unit: int) -> None:
    source = units_last(VALUES[kind])[..., unit]
    require(Channel("layer", unit), seen(VALUES[kind]), source.reshape(PICTURES, VIEWS, -1).mean(2))


@pytest.mark.parametrize(
    ("kind", "centre"),
    [
        ("map", (2, 2)),
        ("odd map", (1, 0)),
        ("tokens", (3,)),
        ("vector", ()),
    ],  # length // 2: lower right of the middle four
)
def test_neuron_is_at_the_centre(kind: str, centre: tuple[int, ...]) -> None:
    source = units_last(VALUES[kind])[..., 1]
    require(Neuron("layer", 1), seen(VALUES[kind]), at(source, centre))


@pytest.mark.parametrize(
    ("kind", "position", "index"),
    [
        ("map", (3, 4), (3, 4)),
        ("map", [0, 4], (0, 4)),
        ("map", (3, 0), (3, 0)),
        ("tokens", 5, (5,)),
        ("tokens", (0,), (0,)),
    ],
)
def test_neuron_is_at_row_and_column(kind: str, position: int | Sequence[int], index: tuple[int, ...]) -> None:
    source = units_last(VALUES[kind])[..., 2]
    require(Neuron("layer", 2, position), seen(VALUES[kind]), at(source, index))


@pytest.mark.parametrize(("selected", "index"), [(0, 0), (3, 3), ("cat", 0), ("fox", 3)])
def test_class_logit_is_one_entry_of_the_output(selected: int | str, index: int) -> None:
    require(ClassLogit(selected), seen(VALUES["vector"], "output"), VALUES["vector"][:, :, index])


@pytest.mark.parametrize(("selected", "index"), [(0, 0), ("hen", 2)])
def test_class_probability_is_one_entry_of_the_softmax(selected: int | str, index: int) -> None:
    powers = np.exp(VALUES["vector"])
    require(ClassProbability(selected), seen(VALUES["vector"], "output"), powers[:, :, index] / powers.sum(2))


@pytest.mark.parametrize("power", [1, 2, 1.5])
def test_total_variation_is_a_sum_over_both_axes(power: float) -> None:
    expected = (np.abs(PIXELS[:, :, 1:] - PIXELS[:, :, :-1]) ** power).sum((1, 2, 3))
    expected = expected + (np.abs(PIXELS[..., 1:] - PIXELS[..., :-1]) ** power).sum((1, 2, 3))
    require(TotalVariation(power), seen(VALUES["map"]), expected[:, None])


@pytest.mark.parametrize("center", [0.0, 0.5, 1.0])
def test_l1_is_a_sum_of_distances(center: float) -> None:
    require(L1(center), seen(VALUES["map"]), np.abs(PIXELS - center).sum((1, 2, 3))[:, None])


@pytest.mark.parametrize("center", [0.0, 0.5, 1.0])
def test_l2_is_a_euclidean_distance(center: float) -> None:
    require(L2(center), seen(VALUES["map"]), np.sqrt(1e-6 + ((PIXELS - center) ** 2).sum((1, 2, 3)))[:, None])


def test_penalties_of_a_picture_of_one_color_have_finite_gradients() -> None:
    picture = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    for penalty in (TotalVariation(), TotalVariation(2), L1(0.5), L2(0.5)):
        (gradient,) = torch.autograd.grad(penalty(Observation(picture, {})).sum(), picture)
        assert gradient.tolist() == torch.zeros(1, 3, 4, 4).tolist()


def test_a_constant_counts_once_for_each_picture() -> None:
    require(Constant(2.5), seen(VALUES["map"]), np.full((PICTURES, 1), 2.5))


# One unit for each picture


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("make", [Channel, Neuron])
def test_one_unit_for_each_picture_equals_each_alone(make: type[Channel], kind: str) -> None:
    units = [3, 0, 3]
    together = make("layer", units)(seen(VALUES[kind]))
    for picture, unit in enumerate(units):
        alone = make("layer", unit)(seen(VALUES[kind][picture : picture + 1]))
        torch.testing.assert_close(together[picture : picture + 1], alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("make", [ClassLogit, ClassProbability])
def test_one_class_for_each_picture_equals_each_alone(make: type[ClassLogit]) -> None:
    together = make(["fox", 0, "dog"])(seen(VALUES["vector"], "output"))
    for picture, index in enumerate([3, 0, 1]):
        alone = make(index)(seen(VALUES["vector"][picture : picture + 1], "output"))
        torch.testing.assert_close(together[picture : picture + 1], alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("units", [[2], (2,), range(2, 3), torch.tensor([2])], ids=["list", "tuple", "range", "tensor"])
def test_one_unit_in_a_sequence_is_that_unit(units: Sequence[int]) -> None:
    single = seen(VALUES["map"][:1])
    assert torch.equal(Channel("layer", units)(single), Channel("layer", 2)(single))


# Precision


# The record of terms


def test_terms_are_recorded_under_unique_names_and_without_a_graph() -> None:
    activation = torch.from_numpy(VALUES["map"]).requires_grad_(True)
    observation = Observation(torch.from_numpy(PIXELS), {Source("layer"): activation})
    objective = Channel("layer", 0) + 2 * Channel("layer", 1) - 0.5 * TotalVariation() - L2() + Channel("layer", 2)
    objective(observation)
    assert list(observation.terms) == ["Channel.layer", "Channel.layer.2", "TotalVariation", "L2", "Channel.layer.3"]
    assert not any(score.requires_grad for score in observation.terms.values())
    np.testing.assert_allclose(
        observation.terms["Channel.layer.2"].numpy(), VALUES["map"][:, :, 1].mean((2, 3)), rtol=1e-12
    )
    assert observation.terms["L2"].shape == (PICTURES, 1)  # as it is, without its sign and weight
