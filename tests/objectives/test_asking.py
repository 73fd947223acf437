"""Numbers of pictures, sources and targets of objectives."""

from __future__ import annotations

import pytest

from featviz_pl.objectives import (
    L2,
    Channel,
    ClassLogit,
    ClassProbability,
    DeepDream,
    Layer,
    Neuron,
    Objective,
    Source,
    TotalVariation,
)


@pytest.mark.parametrize(
    ("objective", "count"),
    [
        (Channel("map", 3), None),
        (Channel("map", [3]), 1),
        (Channel("map", range(5)), 5),
        (Neuron("map", [1, 2]), 2),
        (ClassLogit("cat"), None),
        (ClassLogit(["cat", 2]), 2),
        (ClassProbability(0), None),
        (Layer("map"), None),
        (DeepDream("map"), None),
        (TotalVariation(), None),
        (Channel("map", [1, 2]) - 0.1 * TotalVariation(), 2),
        (Channel("map", [1, 2]) + Channel("map", 3) / Neuron("tokens", [5, 6]), 2),
    ],
)
def test_number_of_pictures(objective: Objective, count: int | None) -> None:
    assert objective.count() == count


def test_terms_that_ask_for_different_numbers_are_named() -> None:
    objective = Channel("map", [1, 2]) - 2 * (ClassLogit(["cat", "dog", 2]) + L2())
    with pytest.raises(
        ValueError, match=r"different numbers.*Channel\('map', \[1, 2\]\) asks for 2, ClassLogit\(.*\) asks for 3"
    ):
        objective.count()


def test_sources_are_listed_once_in_the_order_of_the_formula() -> None:
    objective = Channel("b", 0) - TotalVariation() + 2 * Layer("a") / DeepDream("b") + ClassLogit(0)
    assert objective.sources() == [Source("b"), Source("a"), Source("output")]
    assert [type(term) for term in objective.terms()] == [Channel, TotalVariation, Layer, DeepDream, ClassLogit]


@pytest.mark.parametrize(
    ("objective", "count", "targets"),
    [
        (Channel("map", 3), 2, ["map:3", "map:3"]),
        (Channel("map", [3, 5]), 2, ["map:3", "map:5"]),
        (Neuron("map", 3), 1, ["map:3@"]),
        (Neuron("map", [3, 5], (1, 2)), 2, ["map:3@1,2", "map:5@1,2"]),
        (Layer("map"), 1, ["map"]),
        (ClassLogit("cat"), 1, ["output:cat"]),
        (ClassLogit([0, "dog"]), 2, ["output:0", "output:dog"]),
        (Channel("map", [3, 5]) - 1e-3 * TotalVariation(), 2, ["map:3", "map:5"]),
        (Channel("map", [3, 5]) + Channel("tokens", 1), 2, ["map:3 & tokens:1", "map:5 & tokens:1"]),
        (Channel("map", 3) / Channel("map", 3), 1, ["map:3"]),
        (-TotalVariation(), 2, ["-TotalVariation()", "-TotalVariation()"]),
    ],
)
def test_each_picture_has_a_target(objective: Objective, count: int, targets: list[str]) -> None:
    assert objective.targets(count) == targets
