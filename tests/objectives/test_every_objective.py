"""Contracts over everything that is exported: pickle, copies, formulas, ascent, and pictures that do not know of each other."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import adam, toy

from featviz_pl import objectives
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import (
    L1,
    L2,
    Across,
    Alignment,
    AlphaBlurDistance,
    AlphaMean,
    BlurDistance,
    BoundaryComplexity,
    Caricature,
    Channel,
    ClassLogit,
    ClassProbability,
    Constant,
    Content,
    DeepDream,
    Direction,
    Diversity,
    Facet,
    HighFrequency,
    Interpolation,
    Inversion,
    Latent,
    Layer,
    LInfinity,
    Logged,
    Neuron,
    NeuronDirection,
    Objective,
    Observation,
    Power,
    Product,
    Quotient,
    Reference,
    Setting,
    Similarity,
    SortMatching,
    Source,
    StayNear,
    Style,
    Sum,
    TensorDirection,
    TotalVariation,
    WeightedChannels,
)
from featviz_pl.transforms import Compose, Jitter, Rotate, Views

PICTURE = str(Path(__file__).resolve().parents[1] / "support" / "picture.png")  # 12 x 12
PROBE = [0.5, -1, 2, 0.1, 0, 1, -0.3, 1]

# One example of every exported class; an export without an entry fails. Abstract classes have None.
EXAMPLES: dict[str, Callable[[], Any] | None] = {
    "Across": lambda: Across(["features.3:2", ClassLogit(2)], [None, "toys:toy"]),
    "Alignment": lambda: Alignment(["features.3", "output"], 2, decay=3),
    "AlphaBlurDistance": lambda: AlphaBlurDistance(),
    "AlphaMean": lambda: AlphaMean(of_views=False),
    "BlurDistance": lambda: BlurDistance(),
    "BoundaryComplexity": lambda: BoundaryComplexity(2, kernel=3),
    "Channel": lambda: Channel("features.3", [1, 4]),
    "Caricature": lambda: Caricature("features.3", PICTURE, power=2, attribution=Channel("features.5", 1)),
    "ClassLogit": lambda: ClassLogit(["b", 3]),
    "ClassProbability": lambda: ClassProbability("b"),
    "Constant": lambda: Constant(0.125),
    "Content": lambda: Content("features.3", PICTURE),
    "DeepDream": lambda: DeepDream("features.3"),
    "Direction": lambda: Direction("features.3", [0.5, -1, 2, 0.1, 0, 1, -0.3, 1], power=2),
    "Diversity": lambda: Diversity("features.3"),
    "Facet": lambda: Facet(Channel("features.5", 1), {"features.3": PROBE}, 2),
    "HighFrequency": lambda: HighFrequency(0.125),
    "Interpolation": lambda: Interpolation("features.3:1", ClassLogit("b"), count=2),
    "Inversion": lambda: Inversion("features.3", PICTURE, norm=1),
    "L1": lambda: L1(0.5),
    "L2": lambda: L2(0.5),
    "LInfinity": lambda: LInfinity(0.5),
    "Latent": lambda: Latent("output", [[0.5, -1, 2, 0.1, 0], [1, 0, -0.3, 1, 1]], [1, 0]),
    "Layer": lambda: Layer("features.3"),
    "Logged": lambda: Logged(Channel("features.3", 1)),
    "Neuron": lambda: Neuron("features.3", 2, (1, 3)),
    "NeuronDirection": lambda: NeuronDirection("output", [[0.5, -1, 2, 0.1, 0], [1, 0, -0.3, 1, 1]]),
    "Objective": None,
    "Observation": lambda: Observation(torch.ones(1, 3, 2, 2), {Source("a"): torch.ones(1, 1, 2)}, class_names=("b",)),
    "Power": lambda: Power(DeepDream("features.3") + 1, 1.5),
    "Product": lambda: Product(Layer("features.3"), ClassLogit(1)),
    "Quotient": lambda: Quotient(Channel("features.3", 1), L2()),
    "Reference": lambda: Reference(torch.full((1, 3, 2, 2), 0.25), through_views=True),
    "Setting": lambda: Setting({Source("a"): (2, 3)}, 4, (3, 8, 8), class_names=("b",)),
    "Similarity": lambda: Similarity("features.3", [0.5, -1, 2, 0.1, 0, 1, -0.3, 1]),
    "SortMatching": lambda: SortMatching(["features.3", "output"], PICTURE, [1, 2]),
    "Source": lambda: Source("a", "squeezenet1_0"),
    "Target": lambda: objectives.Target("features.3", (0, 4), (1, 2)),
    "StayNear": lambda: StayNear(PICTURE, "features.3", norm=1),
    "Style": lambda: Style(["features.0", "features.3"], [PICTURE, PICTURE], weights=[1, 2]),
    "Sum": lambda: Sum([Channel("features.3", 1), -L1(), Constant(2)]),
    "TensorDirection": lambda: TensorDirection(
        "features.3", [[[channel]] for channel in (0.5, -1, 2, 0.1, 0, 1, -0.3, 1)]
    ),
    "Term": None,
    "TotalVariation": lambda: TotalVariation(power=2),
    "WeightedChannels": lambda: WeightedChannels("features.3", {1: 0.5, 4: -0.1}, (1, 2, 3, 2)),
}
# What rises when it is maximised, and penalties, which are subtracted.
WANTED = [
    *("Channel", "ClassLogit", "ClassProbability", "DeepDream", "Layer", "Neuron", "Product", "Quotient", "Sum"),
    *(
        "Across",
        "Alignment",
        "Direction",
        "Diversity",
        "Interpolation",
        "Latent",
        "NeuronDirection",
        "Power",
        "Similarity",
    ),
    *("TensorDirection", "WeightedChannels"),
    *("Caricature", "Content", "Facet", "Inversion", "SortMatching", "StayNear", "Style"),
]
PENALTIES = ["BlurDistance", "BoundaryComplexity", "HighFrequency", "L1", "L2", "LInfinity", "TotalVariation"]
NOT_RAISED = [
    "AlphaBlurDistance",
    "AlphaMean",
    "Constant",
    "Logged",
]  # the pictures here are opaque; see test_penalties.py
JOINT = ["Alignment", "Diversity"]
EXPORTED = [name for name in objectives.__all__ if inspect.isclass(getattr(objectives, name))]


def example(name: str) -> Any:
    make = EXAMPLES[name]
    assert make is not None
    return make()


CONCRETE = [name for name in EXPORTED if EXAMPLES.get(name) is not None]
SCORING = [name for name in CONCRETE if issubclass(getattr(objectives, name), Objective)]


SHAPES: dict[str, tuple[int, ...]] = {
    "features.0": (6, 4, 5),
    "features.3": (8, 4, 5),
    "features.5": (8, 4, 5),
    "output": (5,),
}
CLASSES = ("a", "b", "c", "d", "e")


def observation(
    objective: Objective, count: int = 2, views: int = 3, dtype: torch.dtype = torch.float32
) -> Observation:
    """Give an objective everything that it asks for, drawn from one seed."""
    generator = torch.Generator().manual_seed(0)
    activations = {}
    for source in objective.sources():
        fixed = source.reference is not None and not source.reference.through_views
        together = source.reference is not None and source.reference.together
        leading = (
            (1, len(source.reference.image))
            if source.reference is not None and together
            else (count, 1 if fixed else views)
        )
        activations[source] = torch.rand(*leading, *SHAPES[source.layer], generator=generator, dtype=torch.float64).to(
            dtype
        )
    pictures = torch.rand(count, 3, 6, 7, generator=generator, dtype=torch.float64).to(dtype)
    return Observation(pictures, activations, class_names=CLASSES, class_names_of={"toys:toy": CLASSES})


def test_every_exported_class_has_an_entry() -> None:
    assert set(EXAMPLES) == set(EXPORTED)
    assert set(WANTED) | set(PENALTIES) | set(NOT_RAISED) == set(SCORING)
    for name in EXPORTED:
        assert inspect.isabstract(getattr(objectives, name)) == (EXAMPLES[name] is None)


@pytest.mark.parametrize("name", CONCRETE)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_survives_copies(name: str, copied: Callable[[Any], Any]) -> None:
    original = example(name)
    twin = copied(original)
    assert type(twin) is type(original)
    assert twin is not original
    if isinstance(original, Objective):
        assert repr(twin) == repr(original)
        assert torch.equal(twin(observation(twin)), original(observation(original)))
        assert [source.layer for source in twin.sources()] == [source.layer for source in original.sources()]
        assert (twin.count(), twin.targets(2)) == (original.count(), original.targets(2))
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
    original = example(name)
    made = eval(repr(original), {exported: getattr(objectives, exported) for exported in objectives.__all__})
    rebuilt = made if isinstance(made, Objective) else Constant(made)
    torch.testing.assert_close(rebuilt(observation(rebuilt)), original(observation(original)))
    assert repr(rebuilt) == repr(original)


@pytest.mark.parametrize("name", SCORING)
def test_holds_no_weights_and_nothing_in_checkpoints(name: str) -> None:
    assert not list(example(name).parameters())
    assert not example(name).state_dict()


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_single_precision_at_least(name: str, dtype: torch.dtype) -> None:
    objective = example(name)
    seen = observation(objective, dtype=dtype)
    if dtype != torch.float64:
        seen.pictures = seen.pictures.float()  # only the network sees reduced precision
    scores = objective(seen)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert scores.shape in ((2, 3), (2, 1))
    assert all(score.shape in ((2, 3), (2, 1)) and not score.requires_grad for score in seen.terms.values())


@pytest.mark.parametrize("name", SCORING)
def test_pictures_and_views_are_coupled_only_where_it_is_said(name: str) -> None:
    """Change one view of one picture: without saying so, only its own score may change."""
    scores = []
    for change in (0.0, 0.5):
        objective = example(name)
        seen = observation(objective)
        for source, value in seen.activations.items():
            if source.reference is None:
                value[1, 2] += change * torch.rand(value[1, 2].shape, generator=torch.Generator().manual_seed(1))
        scores.append(objective(seen).expand(2, 3))
    changed = scores[0] != scores[1]
    assert objective.joint == (name in JOINT)
    if not any(node.joint for node in objective.walk()):
        assert not changed[0].any()
    if not any(node.joint_views for node in objective.walk()):
        assert not changed[:, :2].any()
    if name in JOINT:
        assert changed[0].any()


def problem(
    objective: Objective, count: int | None = None, views: Views | None = None, picture: Tensor | None = None
) -> Ascent:
    """Bind small pictures to the toy network in double precision."""
    image = PixelImage(12, count=count, color="none", deviation=0.3)
    made = Ascent(
        image, FrozenNetwork(toy().double(), classes=["a", "b", "c", "d", "e"]), objective, seed=3, views=views
    )
    image.double()
    if picture is not None:
        image.start_from(picture)
    made.initialize()
    made.prepare(dtype=torch.float64)
    return made


@pytest.mark.parametrize("name", WANTED)
def test_ascent_raises_what_is_wanted(name: str) -> None:
    count = 3 if name in JOINT else example(name).count() or 1
    made = problem(example(name), count)
    before = made.scores()
    after = ascend(made, steps=6, optimizer=adam(0.05))
    assert before.shape == after.shape == (count,)
    assert bool((after.sum() > before.sum() if name in JOINT else after > before).all())


@pytest.mark.parametrize("name", PENALTIES)
def test_ascent_of_the_negative_lowers_a_penalty(name: str) -> None:
    made = problem(-example(name))
    before = -made.scores()
    after = -ascend(made, steps=6, optimizer=adam(0.05))
    assert bool((after < before).all())
    assert bool((after >= 0).all())


def gradient_of(made: Ascent) -> Tensor:
    (weight,) = made.image.parameters()
    (gradient,) = torch.autograd.grad(made.step(20, 100).loss, weight)
    assert gradient.dtype == torch.float64
    return gradient


def through() -> Views:
    return Views(Compose([Jitter(2), Rotate((-20, 20))]), count=3)


VECTORS = torch.randn(
    5, 8, generator=torch.Generator().manual_seed(6), dtype=torch.float64
)  # one for each unit that is asked for
OWN_UNITS: dict[str, Callable[[Any], Objective]] = {
    "Across": lambda units: Across([Channel("features.3", units), "features.5:1"], [None, "toys:toy"]),
    "Direction": lambda units: Direction("features.3", VECTORS[units], power=2),
    "Interpolation": lambda units: Interpolation(
        Channel("features.3", units), "features.3:3", weights=[unit / 5 for unit in units]
    ),
    "Latent": lambda units: Latent("features.3", VECTORS, units),
    "NeuronDirection": lambda units: NeuronDirection("features.3", VECTORS[units], (1, 2), compare="cosine"),
    "Power": lambda units: Channel("features.3", units) ** 2,
    "Similarity": lambda units: Similarity("features.3", VECTORS[units]),
    "TensorDirection": lambda units: TensorDirection(
        "features.3", VECTORS[units].view(-1, 2, 2, 2).repeat(1, 4, 1, 1), power=1
    ),
    "WeightedChannels": lambda units: WeightedChannels("features.3", VECTORS[units], (1, 1, 3, 2)),
    "Channel": lambda units: Channel("features.3", units),
    "Neuron": lambda units: Neuron("features.0", units, (4, 5)),
    "ClassLogit": lambda units: ClassLogit(units),
    "ClassProbability": lambda units: ClassProbability(units),
    "a formula": lambda units: (
        Channel("features.3", units) * Layer("head") / 3 - 1e-2 * TotalVariation(2) - 0.1 * L1() - 0.1 * L2(0.5)
    ),
}


@pytest.mark.parametrize("seen_through", [None, through], ids=["as it is", "through views"])
@pytest.mark.parametrize("name", OWN_UNITS)
def test_a_picture_with_a_unit_of_its_own_does_not_know_its_companions(
    name: str, seen_through: Callable[[], Views] | None
) -> None:
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
    [
        Layer("features.3"),
        DeepDream("output"),
        Channel("features.5", 1),
        ClassProbability(2),
        -TotalVariation(),
        -L1(0.3),
        -L2(),
    ],
    ids=repr,
)
def test_pictures_of_one_objective_do_not_know_each_other(objective: Objective) -> None:
    pictures = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    together = gradient_of(problem(copy.deepcopy(objective), count=3, picture=pictures))
    for index in range(3):
        alone = gradient_of(problem(copy.deepcopy(objective), picture=pictures[index : index + 1]))
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-10)
