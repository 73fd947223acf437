"""Interpolation, alignment and diversity: values by loops over pictures, signs, and what couples what."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import (
    Alignment,
    Channel,
    Diversity,
    Interpolation,
    Layer,
    Objective,
    Observation,
    PerPicture,
    Setting,
    Source,
    Target,
)
from featviz_pl.objectives.target_syntax import parse_objective

Array = NDArray[np.float64]
SHAPES: dict[str, tuple[int, ...]] = {"map": (4, 3, 5), "tokens": (6, 4), "vector": (4,)}


def values(kind: str, pictures: int, views: int, seed: int = 0) -> Array:
    return np.random.default_rng([pictures, views, seed]).normal(size=(pictures, views, *SHAPES[kind]))


def seen(**layers: Array | Tensor) -> Observation:
    argument = {Source(layer): torch.as_tensor(value) for layer, value in layers.items()}
    count = len(next(iter(argument.values())))
    return Observation(torch.zeros(count, 3, 4, 4, dtype=torch.float64), argument)


def setting(shape: tuple[int, ...], count: int) -> Setting:
    return Setting({Source("a"): shape, Source("b"): shape}, count, (3, 32, 32))


# Interpolation


@pytest.mark.parametrize(("pictures", "views"), [(2, 1), (6, 4)])
@pytest.mark.parametrize("kind", SHAPES)
def test_interpolation_goes_from_one_to_the_other(kind: str, pictures: int, views: int) -> None:
    first, second = values(kind, pictures, views, 1), values(kind, pictures, views, 2)
    for objective in (Interpolation("a:1", Channel("b", 3)), Interpolation("a:1", "b:3", count=pictures)):
        scores = objective(seen(a=first, b=second))
        assert scores.shape == (pictures, views)
        for n, v in itertools.product(range(pictures), range(views)):
            ends = [
                (source[n, v, :, unit] if kind == "tokens" else source[n, v, unit]).mean()
                for source, unit in ((first, 1), (second, 3))
            ]
            weight = n / (pictures - 1)
            assert scores[n, v].item() == pytest.approx((1 - weight) * ends[0] + weight * ends[1], rel=1e-12)


def test_weights_may_be_given() -> None:
    objective = Interpolation("a:0", "a:1", weights=[0, 0.25, 1.5])
    activation = torch.tensor([10.0, 20.0]).expand(3, 1, 2)
    assert objective(seen(a=activation)).flatten().tolist() == [10.0, 12.5, 25.0]
    assert objective.count() == 3
    assert repr(objective) == "Interpolation(Channel('a', 0), Channel('a', 1), weights=[0, 0.25, 1.5])"


def test_the_target_tells_the_weight() -> None:
    objective = Interpolation("a:476", "b:460", count=6)
    assert objective.count() == 6
    assert objective.targets(6) == [f"a:476 to b:460 at {weight}" for weight in ("0", "0.2", "0.4", "0.6", "0.8", "1")]
    mixed = Interpolation("a:1", Channel("a", 2) + Channel("b", 3), count=2) + 0.1 * Alignment("a")
    assert mixed.targets(2) == ["a:1 to a:2 & b:3 at 0", "a:1 to a:2 & b:3 at 1"]


def test_interpolation_counts_its_pictures() -> None:
    assert Interpolation("a:1", "a:2").count() is None
    assert Interpolation("a:1,2,3", "a:2", count=3).count() == 3
    assert Interpolation("a:1,2,3", "a:2").count() == 3
    with pytest.raises(
        ValueError,
        match=r"different numbers of pictures: Channel\('a', \[1, 2\]\) asks for 2, Interpolation.* asks for 4",
    ):
        Interpolation("a:1,2", "a:2", count=4).count()


def test_the_ends_are_checked_and_logged() -> None:
    objective = Interpolation("a:1", "b:9", count=2)
    assert objective.sources() == [Source("a"), Source("b")]
    with pytest.raises(ValueError, match="unit: 'b' has 4 units"):
        objective.check(setting((4, 3, 5), 2))
    observation = seen(a=values("vector", 2, 1), b=values("vector", 2, 1))
    Interpolation("a:1", "b:2")(observation)
    assert list(observation.terms) == ["Channel.a", "Channel.b"]


# One objective for each picture


def test_each_picture_is_scored_and_named_by_its_own_objective() -> None:
    first, second = values("map", 4, 2, 1), values("vector", 4, 2, 2)
    parts = [Layer("a"), Channel("b", [2, 0]), 3 * Channel("b", 1)]
    objective, observation = PerPicture(parts), seen(a=first, b=second)
    scores = objective(observation).numpy()
    np.testing.assert_allclose(scores[0], first[0].mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(scores[1:], [second[1, :, 2], second[2, :, 0], 3 * second[3, :, 1]], rtol=1e-12)
    assert (objective.count(), objective.targets(4)) == (4, ["a", "b:2", "b:0", "b:1"])
    assert {name: len(score) for name, score in observation.terms.items()} == {
        "Layer.a": 1,
        "Channel.b": 2,
        "Channel.b.2": 1,
    }
    with pytest.raises(ValueError, match="different numbers of pictures"):
        (objective + Channel("a", [1, 2])).count()


def test_lists_of_targets_and_objectives_are_one_objective() -> None:
    parsed = parse_objective("target", ["a:1", Target("b", (2, 3)), Layer("a"), "c:all"], {"c": 2}.__getitem__)
    assert parsed.targets(6) == ["a:1", "b:2", "b:3", "a", "c:0", "c:1"]
    assert repr(parse_objective("target", ["a:1"])) == "Channel('a', 1)"
    for wrong in ([], ["a:1", 3]):
        with pytest.raises(TypeError, match="target must be an Objective or a target such as"):
            parse_objective("target", wrong)  # type: ignore[arg-type]


# Alignment


def literal_alignment(arr: Array, distances: int, decay: float) -> float:
    """Add up all pairs as the source does, for one view: (pictures, …)."""
    accumulated = 0.0
    for d in range(1, distances + 1):
        for i in range(len(arr) - d):
            accumulated += ((arr[i] - arr[i + d]) ** 2).mean() / decay ** float(d)
    return -accumulated


@pytest.mark.parametrize(("pictures", "views"), [(2, 1), (6, 4)])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("distance", "decay"), [(4, 2.0), (4, 5.0), (1, 2.0), (9, 0.5)])
def test_alignment_sums_to_the_source_s(kind: str, pictures: int, views: int, distance: int, decay: float) -> None:
    first, second = values(kind, pictures, views, 1), values(kind, pictures, views, 2)
    scores = Alignment(["a", "b"], distance, decay)(seen(a=first, b=second))
    assert scores.shape == (pictures, views)
    for view in range(views):
        expected = literal_alignment(first[:, view], distance, decay) + literal_alignment(
            second[:, view], distance, decay
        )
        assert scores[:, view].sum().item() == pytest.approx(expected, rel=1e-12)


def test_half_of_each_pair_counts_for_either_picture() -> None:
    arr = values("map", 5, 1)
    scores = Alignment("a")(seen(a=arr))
    for source in range(5):
        expected = 0.0
        for second in range(5):
            if second != source:
                expected -= ((arr[source] - arr[second]) ** 2).mean() / 2 ** abs(source - second) / 2
        assert scores[source, 0].item() == pytest.approx(expected, rel=1e-12)


# Diversity


def literal_diversity(layer: Array) -> float:
    """Add up all pairs as the source does, for one view: (pictures, positions, units)."""
    grams = []
    for source in layer:
        gram = source.T @ source
        grams.append(gram / np.sqrt(max((gram**2).sum(), 1e-10)))
    total = sum((grams[i] * grams[j]).sum() for i in range(len(grams)) for j in range(len(grams)) if i != j)
    return float(total / len(grams))


@pytest.mark.parametrize(("pictures", "views"), [(2, 1), (5, 4)])
@pytest.mark.parametrize("kind", ["map", "tokens"])
def test_diversity_sums_to_minus_the_source_s(kind: str, pictures: int, views: int) -> None:
    layer = values(kind, pictures, views)
    lined = layer.reshape(pictures, views, 4, 15).swapaxes(2, 3) if kind == "map" else layer
    scores = Diversity("a")(seen(a=layer))
    assert scores.shape == (pictures, views)
    for view in range(views):
        assert scores[:, view].sum().item() == pytest.approx(-literal_diversity(lined[:, view]), rel=1e-11)


def test_equal_pictures_are_the_worst_and_layers_without_anything_in_common_the_best() -> None:
    same = torch.from_numpy(values("map", 1, 1)).expand(4, 1, -1, -1, -1)
    torch.testing.assert_close(Diversity("a")(seen(a=same)).flatten(), torch.full((4,), -0.75, dtype=torch.float64))
    apart = torch.eye(4, dtype=torch.float64).view(4, 1, 4, 1, 1).expand(-1, -1, -1, 3, 5)
    assert Diversity("a")(seen(a=apart)).abs().max().item() == 0
    assert Diversity("a")(seen(a=torch.zeros(3, 1, 4, 3, 5))).abs().max().item() == 0


# Both

JOINT: dict[str, Any] = {"Alignment": lambda: Alignment("a"), "Diversity": lambda: Diversity("a")}


@pytest.mark.parametrize("name", JOINT)
def test_joint_objectives_say_so_and_stay_within_a_view(name: str) -> None:
    objective = JOINT[name]()
    assert objective.joint
    assert not objective.joint_views
    first = values("map", 3, 3)
    second = first.copy()
    second[1, 2] += 1
    changed = objective(seen(a=first)) != objective(seen(a=second))
    assert changed[:, :2].any().item() is False
    assert changed[:, 2].all().item() is True
    assert objective.named_targets(3) == []
    assert (Channel("a", 7) + objective).targets(3) == ["a:7"] * 3
    assert objective.targets(2) == [repr(objective)] * 2


# Signs, on a network


def rendered(objective: Objective, count: int = 4) -> Tensor:
    """Render small pictures and return their features (pictures, units, positions)."""
    network = FrozenNetwork(toy().double())
    image = PixelImage(12, count=count, color="none", deviation=0.3).double()
    problem = Ascent(image, network, objective, seed=5)
    problem.initialize()
    problem.prepare(dtype=torch.float64)
    ascend(problem, steps=30, optimizer=adam(0.05))
    return network.activations(image().detach(), ["features.5"])["features.5"]


def mean_cosine(features: Tensor) -> float:
    grams = [source.flatten(1) @ source.flatten(1).T for source in features]
    pairs = itertools.combinations([gram.flatten() / gram.norm() for gram in grams], 2)
    return float(np.mean([float(first @ second) for first, second in pairs]))


def test_adding_diversity_lowers_the_cosine_of_gram_matrices() -> None:
    plain = Layer("features.5")
    with_it, without = rendered(plain + 10 * Diversity("features.5")), rendered(plain + 0 * Diversity("features.5"))
    assert mean_cosine(with_it) < mean_cosine(without) - 0.02


def test_adding_alignment_draws_neighbours_together() -> None:
    ends = Interpolation("features.5:1", "features.5:2", count=4)
    distances = []
    for weight in (1000.0, 0.0):
        features = rendered(ends + weight * Alignment("features.5"))
        distances.append(float((features[1:] - features[:-1]).square().mean()))
    assert distances[0] < 0.5 * distances[1]
