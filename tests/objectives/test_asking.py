"""What objectives ask for, and what they refuse before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from featviz_pl.objectives import (
    L2,
    Channel,
    ClassLogit,
    ClassProbability,
    DeepDream,
    Layer,
    Neuron,
    Objective,
    Observation,
    Setting,
    Source,
    Term,
    TotalVariation,
)

SHAPES: dict[Source, tuple[int, ...]] = {
    Source("map"): (8, 4, 5),
    Source("tokens"): (17, 12),
    Source("number"): (),
    Source("output"): (3,),
}


def setting(count: int = 1, names: Sequence[str] = ("cat", "dog", "golf ball"), **shapes: tuple[int, ...]) -> Setting:
    changed = {Source(layer): shape for layer, shape in shapes.items()}
    return Setting(SHAPES | changed, count, (3, 32, 32), class_names=tuple(names))


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
def test_number_of_pictures_asked_for(objective: Objective, count: int | None) -> None:
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


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Channel("map", 8), "unit: 'map' has 8 units, 0 to 7; there is no 8"),
        (Channel("map", [0, 99]), "unit: 'map' has 8 units, 0 to 7; there is no 99"),
        (Channel("tokens", 12), "unit: 'tokens' has 12 units, 0 to 11; there is no 12"),
        (Channel("output", 3), "unit: 'output' has 3 units, 0 to 2; there is no 3"),
        (Channel("number", 0), "'number' gives one number for each picture and has no units"),
        (Neuron("map", 8), "there is no 8"),
        (Neuron("map", 0, (4, 0)), r"position: \(4, 0\) lies outside the map of 'map', which is \(4, 5\)"),
        (Neuron("map", 0, (0, 5)), r"position: \(0, 5\) lies outside the map of 'map', which is \(4, 5\)"),
        (Neuron("tokens", 0, 17), r"position: \(17,\) lies outside .* \(17,\)"),
        (Neuron("map", 0, 3), r"position: 'map' has 2 axes of positions \(4, 5\), got \(3,\)"),
        (Neuron("tokens", 0, (1, 2)), r"position: 'tokens' has 1 axes of positions \(17,\), got \(1, 2\)"),
        (Neuron("output", 0, 0), r"position: 'output' has 0 axes"),
        (ClassLogit(3), "class: the network has 3 classes, 0 to 2; there is no 3"),
        (ClassProbability([0, 7]), "class: the network has 3 classes, 0 to 2; there is no 7"),
        (ClassLogit("golfball"), "class: unknown class 'golfball'; did you mean 'golf ball'"),
        (Layer("map") - 0.1 * Channel("map", 8), "there is no 8"),
    ],
)
def test_the_impossible_is_refused_before_the_first_step(objective: Objective, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objective.check(setting())


@pytest.mark.parametrize(
    "objective",
    [
        Channel("map", 7),
        Channel("tokens", 11),
        Neuron("map", 7, (3, 4)),
        Neuron("tokens", 0, 16),
        Neuron("output", 2),
        ClassLogit("dog"),
    ],
)
def test_the_last_of_everything_is_allowed(objective: Objective) -> None:
    objective.check(setting())


def test_a_class_by_name_needs_names() -> None:
    with pytest.raises(ValueError, match="no class names, so 'cat' is unknown; give an index"):
        ClassLogit("cat").check(setting(names=()))
    ClassLogit(2).check(setting(names=()))


def test_an_output_that_is_a_map_has_no_classes() -> None:
    with pytest.raises(ValueError, match=r"classes: the network's output has shape \(3, 9, 9\).*use Channel"):
        ClassLogit(0).check(setting(output=(3, 9, 9)))


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (Channel, ("a", -1), ValueError, "unit must be at least 0, got -1"),
        (Channel, ("a", [0, -2]), ValueError, "unit must be at least 0, got -2"),
        (Channel, ("a", []), ValueError, "at least one unit"),
        (Channel, ("a", 1.5), TypeError, "unit must be a whole number"),
        (Channel, ("a", "3"), TypeError, "unit must be a whole number"),
        (Channel, ("a", True), TypeError, "unit must be a whole number"),
        (Channel, ("a", None), TypeError, "unit must be a whole number"),
        (Channel, ("", 1), TypeError, "layer must be a module name"),
        (Channel, (3, 1), TypeError, "layer must be a module name"),
        (Layer, (None,), TypeError, "layer must be a module name"),
        (Neuron, ("a", 0, -1), ValueError, "position must be at least 0"),
        (Neuron, ("a", 0, (1, 2.5)), TypeError, "position must be a whole number"),
        (ClassLogit, ([],), ValueError, "at least one class"),
        (ClassLogit, (-1,), ValueError, "class must be at least 0"),
        (ClassLogit, (0.5,), TypeError, "class must be a whole number"),
        (TotalVariation, (0,), ValueError, "power must be at least 1"),
        (TotalVariation, ("2",), TypeError, "power must be a number"),
        (L2, (float("nan"),), ValueError, "center must be finite"),
    ],
)
def test_impossible_arguments_are_refused_where_they_are_given(
    make: Any, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(*arguments)


def test_joint_terms_say_so_through_the_tree() -> None:
    class Together(Term):
        joint = joint_views = True

        def score(self, seen: Observation) -> Tensor:
            return seen.pictures.new_zeros(len(seen.pictures), 1)

        def formula(self) -> str:
            return "Together()"

    assert not any(node.joint or node.joint_views for node in (Layer("a") - 2 * L2()).walk())
    mixed = Layer("a") - 2 * (L2() + Together())
    assert any(node.joint for node in mixed.walk())
    assert any(node.joint_views for node in mixed.walk())


def test_no_exported_term_couples_pictures_or_views_without_saying_so() -> None:
    """Change one view of one picture: only its own score may change."""
    generator = torch.Generator().manual_seed(0)
    maps = {Source(name): torch.rand(2, 3, 6, 4, 4, generator=generator) for name in ("a",)} | {
        Source("output"): torch.rand(2, 3, 6, generator=generator)
    }
    moved = {source: value.clone() for source, value in maps.items()}
    for value in moved.values():
        value[1, 2] += torch.rand(value[1, 2].shape, generator=generator)
    pictures = torch.rand(2, 3, 8, 8, generator=generator)
    for term in (Layer("a"), DeepDream("a"), Channel("a", 1), Neuron("a", 1), ClassLogit(1), ClassProbability(1)):
        changed = term(Observation(pictures, maps)) != term(Observation(pictures, moved))
        assert changed.tolist() == [[False, False, False], [False, False, True]]
        assert not term.joint
        assert not term.joint_views
