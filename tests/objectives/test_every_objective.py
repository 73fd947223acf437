"""Contracts over everything that is exported: pickle, copies, formulas, ascent, and pictures that do not know of each other."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import toy

from featviz_pl import objectives
from featviz_pl.ascent import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
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
    Product,
    Quotient,
    Reference,
    Setting,
    Source,
    Sum,
    TotalVariation,
)
from featviz_pl.transforms import Compose, Jitter, Rotate, Views

# One example of every exported class; an export without an entry fails. Abstract classes have None.
EXAMPLES: dict[str, Callable[[], Any] | None] = {
    "Channel": lambda: Channel("features.3", [1, 4]),
    "ClassLogit": lambda: ClassLogit(["b", 3]),
    "ClassProbability": lambda: ClassProbability("b"),
    "Constant": lambda: Constant(0.125),
    "DeepDream": lambda: DeepDream("features.3"),
    "L1": lambda: L1(0.5),
    "L2": lambda: L2(0.5),
    "Layer": lambda: Layer("features.3"),
    "Neuron": lambda: Neuron("features.3", 2, (1, 3)),
    "Objective": None,
    "Observation": lambda: Observation(torch.ones(1, 3, 2, 2), {Source("a"): torch.ones(1, 1, 2)}, ("b",)),
    "Product": lambda: Product(Layer("features.3"), ClassLogit(1)),
    "Quotient": lambda: Quotient(Channel("features.3", 1), L2()),
    "Reference": lambda: Reference(torch.full((1, 3, 2, 2), 0.25), through_views=True),
    "Setting": lambda: Setting({Source("a"): (2, 3)}, 4, (3, 8, 8), ("b",)),
    "Source": lambda: Source("a", "squeezenet1_0"),
    "Sum": lambda: Sum([Channel("features.3", 1), -L1(), Constant(2)]),
    "Term": None,
    "TotalVariation": lambda: TotalVariation(power=2),
}
# What rises when it is maximised, and penalties, which are subtracted.
WANTED = ["Channel", "ClassLogit", "ClassProbability", "DeepDream", "Layer", "Neuron", "Product", "Quotient", "Sum"]
PENALTIES = ["L1", "L2", "TotalVariation"]
EXPORTED = [name for name in objectives.__all__ if inspect.isclass(getattr(objectives, name))]


def example(name: str) -> Any:
    make = EXAMPLES[name]
    assert make is not None
    return make()


CONCRETE = [name for name in EXPORTED if EXAMPLES.get(name) is not None]
SCORING = [name for name in CONCRETE if issubclass(getattr(objectives, name), Objective)]


def observation() -> Observation:
    generator = torch.Generator().manual_seed(0)
    activations = {
        Source("features.3"): torch.rand(2, 3, 6, 4, 5, generator=generator),
        Source("output"): torch.rand(2, 3, 5, generator=generator),
    }
    return Observation(torch.rand(2, 3, 6, 7, generator=generator), activations, ("a", "b", "c", "d", "e"))


def test_every_exported_class_has_an_entry() -> None:
    assert set(EXAMPLES) == set(EXPORTED)
    assert set(WANTED) | set(PENALTIES) | {"Constant"} == set(SCORING)
    for name in EXPORTED:
        assert inspect.isabstract(getattr(objectives, name)) == (EXAMPLES[name] is None)


@pytest.mark.parametrize("name", CONCRETE)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"])
def test_survives_copies(name: str, copied: Callable[[Any], Any]) -> None:
    original = example(name)
    twin = copied(original)
    assert type(twin) is type(original)
    assert twin is not original
    if isinstance(original, Objective):
        assert repr(twin) == repr(original)
        assert torch.equal(twin(observation()), original(observation()))
        assert (twin.count(), twin.sources(), twin.targets(2)) == (original.count(), original.sources(), original.targets(2))
    elif isinstance(original, Reference):
        assert torch.equal(twin.image, original.image)
        assert twin.through_views is True
    elif isinstance(original, Observation):
        assert torch.equal(twin.pictures, original.pictures)
        assert torch.equal(twin.activation(Source("a")), original.activation(Source("a")))
        assert twin.class_names == original.class_names
    else:
        assert twin == original


@pytest.mark.parametrize("name", SCORING)
def test_the_formula_builds_the_objective(name: str) -> None:
    made = eval(repr(example(name)), {exported: getattr(objectives, exported) for exported in objectives.__all__})
    rebuilt = made if isinstance(made, Objective) else Constant(made)
    torch.testing.assert_close(rebuilt(observation()), example(name)(observation()))
    assert repr(rebuilt) == repr(example(name))


@pytest.mark.parametrize("name", SCORING)
def test_holds_no_weights_and_nothing_in_checkpoints(name: str) -> None:
    assert not list(example(name).parameters())
    assert not example(name).state_dict()


def problem(objective: Objective, count: int | None = None, views: Views | None = None, picture: Tensor | None = None) -> Ascent:
    """Bind small pictures to the toy network in double precision."""
    image = PixelImage(12, count=count, color="none", deviation=0.3)
    made = Ascent(image, FrozenNetwork(toy().double(), classes=["a", "b", "c", "d", "e"]), objective, seed=3, views=views)
    image.double()
    if picture is not None:
        image.start_from(picture)
    made.initialize()
    made.prepare(dtype=torch.float64)
    return made


@pytest.mark.parametrize("name", WANTED)
def test_ascent_raises_what_is_wanted(name: str) -> None:
    made = problem(example(name))
    before = made.scores()
    after = ascend(made, steps=6, lr=0.05)
    assert before.shape == after.shape == (example(name).count() or 1,)
    assert bool((after > before).all())


@pytest.mark.parametrize("name", PENALTIES)
def test_ascent_of_the_negative_lowers_a_penalty(name: str) -> None:
    made = problem(-example(name))
    before = -made.scores()
    after = -ascend(made, steps=6, lr=0.05)
    assert bool((after < before).all())
    assert bool((after >= 0).all())


def gradient_of(made: Ascent) -> Tensor:
    assert made.image.weight is not None
    (gradient,) = torch.autograd.grad(made.step(20, 100).loss, made.image.weight)
    assert gradient.dtype == torch.float64
    return gradient


def through() -> Views:
    return Views(Compose([Jitter(2), Rotate((-20, 20))]), count=3)


OWN_UNITS: dict[str, Callable[[Any], Objective]] = {
    "Channel": lambda units: Channel("features.3", units),
    "Neuron": lambda units: Neuron("features.0", units, (4, 5)),
    "ClassLogit": lambda units: ClassLogit(units),
    "ClassProbability": lambda units: ClassProbability(units),
    "a formula": lambda units: Channel("features.3", units) * Layer("head") / 3 - 1e-2 * TotalVariation(2) - 0.1 * L1() - 0.1 * L2(0.5),
}


@pytest.mark.parametrize("seen_through", [None, through], ids=["as it is", "through views"])
@pytest.mark.parametrize("name", OWN_UNITS)
def test_a_picture_with_a_unit_of_its_own_does_not_know_its_companions(name: str, seen_through: Callable[[], Views] | None) -> None:
    units, make = [4, 0, 2], OWN_UNITS[name]
    views = None if seen_through is None else seen_through()
    together = gradient_of(problem(make(units), views=views))
    assert len(together) == 3
    for picture, unit in enumerate(units):
        alone = gradient_of(problem(make([unit]), views=views))
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[picture : picture + 1], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "objective",
    [Layer("features.3"), DeepDream("output"), Channel("features.5", 1), ClassProbability(2), -TotalVariation(), -L1(0.3), -L2()],
    ids=repr,
)
def test_pictures_of_one_objective_do_not_know_each_other(objective: Objective) -> None:
    pictures = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    together = gradient_of(problem(copy.deepcopy(objective), count=3, picture=pictures))
    for index in range(3):
        alone = gradient_of(problem(copy.deepcopy(objective), picture=pictures[index : index + 1]))
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-10)
