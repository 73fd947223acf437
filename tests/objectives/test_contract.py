"""Contracts over everything that is exported: formulas, copies, precision, gradients, ascent, independence."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from references import moving, numbers, pictures
from torch import Tensor
from toys import adam, toy

from featviz_pl import objectives
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel, Interpolation, Objective, Observation, Reference, Setting, Source, Term
from featviz_pl.objectives.target_syntax import parse_objective
from featviz_pl.transforms import Views

IMAGE = repr(str(Path(__file__).resolve().parents[1] / "support" / "picture.png"))  # 12 x 12
PROBE = "[0.5, -1.0, 2.0, 0.1, 0.0, 1.0, -0.3, 1.0]"
BLOCK = "[" + ", ".join(f"[[{weight}]]" for weight in eval(PROBE)) + "]"
MATRIX = "[[0.5, -1.0, 2.0, 0.1, 0.0], [1.0, 0.0, -0.3, 1.0, 1.0]]"

# The formula of one example of every exported objective.
SCORED: dict[str, str] = {
    "Across": "Across([Channel('features.3', 2), ClassLogit(2)], [None, 'toys:toy'])",
    "Alignment": "Alignment(['features.3', 'output'], distance=2, decay=3)",
    "AlphaBlurDistance": "AlphaBlurDistance()",
    "AlphaMean": "AlphaMean(of_views=False)",
    "BlurDistance": "BlurDistance()",
    "BoundaryComplexity": "BoundaryComplexity(2, kernel=3)",
    "Caricature": f"Caricature('features.3', {IMAGE}, power=2, attribution=Channel('features.5', 1))",
    "Channel": "Channel('features.3', [1, 4])",
    "ClassLogit": "ClassLogit(['b', 3])",
    "ClassProbability": "ClassProbability('b')",
    "Constant": "0.125",
    "Content": f"Content('features.3', {IMAGE}, through_views=False)",
    "DeepDream": "DeepDream('features.3')",
    "Direction": f"Direction('features.3', {PROBE}, power=2)",
    "Diversity": "Diversity('features.3')",
    "Facet": f"Facet(Channel('features.5', 1), {{'features.3': {PROBE}}}, strength=2)",
    "HighFrequency": "HighFrequency(0.125)",
    "Interpolation": "Interpolation(Channel('features.3', 1), ClassLogit('b'), count=2)",
    "Inversion": f"Inversion('features.3', {IMAGE}, norm=1)",
    "L1": "L1(0.5)",
    "L2": "L2(0.5)",
    "LInfinity": "LInfinity(0.5)",
    "Latent": f"Latent('output', {MATRIX}, [1, 0])",
    "Layer": "Layer('features.3')",
    "Logged": "Logged(Channel('features.3', 1))",
    "Neuron": "Neuron('features.3', 2, (1, 3))",
    "NeuronDirection": f"NeuronDirection('output', {MATRIX}, compare='cosine')",
    "PerPicture": "PerPicture([Channel('features.3', 2), 2 * ClassLogit('b')])",
    "Power": "(DeepDream('features.3') + 1) ** 1.5",
    "Product": "Layer('features.3') * ClassLogit(1)",
    "Quotient": "Channel('features.3', 1) / L2()",
    "Similarity": f"Similarity('features.3', {PROBE})",
    "SortMatching": f"SortMatching(['features.3', 'output'], {IMAGE}, weights=[1, 2])",
    "StayNear": f"StayNear({IMAGE}, layer='features.3', norm=1)",
    "Style": f"Style(['features.0', 'features.3'], [{IMAGE}, {IMAGE}], weights=[1, 2])",
    "Sum": "Channel('features.3', 1) - L1() + 2",
    "TensorDirection": f"TensorDirection('features.3', {BLOCK}, power=2)",
    "TotalVariation": "TotalVariation(power=2)",
    "WeightedChannels": "WeightedChannels('features.3', {1: 0.5, 4: -0.1}, (1, 2, 3, 2))",
}
RECORDS: dict[str, Callable[[], Any]] = {
    "Observation": lambda: Observation(torch.ones(1, 3, 2, 2), {Source("a"): torch.ones(1, 1, 2)}, class_names=("b",)),
    "Reference": lambda: Reference(torch.full((1, 3, 2, 2), 0.25), through_views=True),
    "Setting": lambda: Setting({Source("a"): (2, 3)}, 4, (3, 8, 8), class_names=("b",)),
    "Source": lambda: Source("a", "squeezenet1_0"),
    "Target": lambda: objectives.Target("features.3", (0, 4), (1, 2)),
}
PENALTIES = ["BlurDistance", "BoundaryComplexity", "HighFrequency", "L1", "L2", "LInfinity", "TotalVariation"]
ALPHA = ["AlphaBlurDistance", "AlphaMean"]  # ascent of these is in test_penalties.py
WITHOUT_GRADIENT = ["Constant", "Logged"]
MAXIMIZED = [name for name in SCORED if name not in (*PENALTIES, *ALPHA, *WITHOUT_GRADIENT)]
DETACHED = ["AlphaBlurDistance", "BlurDistance"]  # whose gradient is not that of their value
JOINT = ["Alignment", "Diversity"]
CLASSES = ("a", "b", "c", "d", "e")
SHAPES: dict[str, tuple[int, ...]] = {
    **{"features.0": (6, 4, 5), "features.3": (8, 4, 5)},
    **{"features.5": (8, 4, 5), "output": (5,)},
}


def built(text: str) -> Objective:
    """Evaluate a formula as a user would who pastes it."""
    value = eval(text, {name: getattr(objectives, name) for name in objectives.__all__})
    return value if isinstance(value, Objective) else objectives.Constant(value)


def example(name: str) -> Objective:
    return built(SCORED[name])


def observation(
    objective: Objective, count: int = 2, views: int = 3, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> Observation:
    """Give an objective all activations that it reads, drawn from one seed."""
    generator = torch.Generator().manual_seed(0)
    activations = {}
    for source in objective.sources():
        reference = source.reference
        leading = (count, views if reference is None or reference.through_views else 1)
        if reference is not None and reference.together:
            leading = (1, len(reference.image))
        values = torch.rand(*leading, *SHAPES[source.layer], generator=generator, dtype=torch.float64)
        activations[source] = (scale * values).to(dtype)
    images = torch.rand(count, 3, 6, 7, generator=generator, dtype=torch.float64)
    images = images.to(torch.promote_types(dtype, torch.float32))  # only the network sees reduced precision
    return Observation(images, activations, class_names=CLASSES, class_names_of={"toys:toy": CLASSES})


def test_every_exported_class_has_an_entry() -> None:
    exported = {name for name in objectives.__all__ if inspect.isclass(getattr(objectives, name))}
    assert {*SCORED, *RECORDS, "Objective", "Term"} == exported
    for name in exported:
        assert inspect.isabstract(getattr(objectives, name)) == (name in ("Objective", "Term"))


@pytest.mark.parametrize("name", SCORED)
def test_the_formula_and_copies_build_the_same_objective(name: str) -> None:
    original = example(name)
    assert repr(original) == SCORED[name]
    expected = original(observation(original))
    for twin in (built(repr(original)), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert repr(twin) == repr(original)
        assert type(twin) is type(original)
        assert [source.layer for source in twin.sources()] == [source.layer for source in original.sources()]
        assert (twin.count(), twin.targets(2)) == (original.count(), original.targets(2))
        assert torch.equal(twin(observation(twin)), expected)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_records_survive_copies(name: str, copied: Callable[[Any], Any]) -> None:
    original, twin = RECORDS[name](), copied(RECORDS[name]())
    if isinstance(original, Reference):
        assert (twin.image.tolist(), twin.through_views) == (original.image.tolist(), True)
    elif isinstance(original, Observation):
        assert torch.equal(twin.pictures, original.pictures)
        assert torch.equal(twin.activation(Source("a")), original.activation(Source("a")))
        assert twin.class_names == original.class_names
    else:
        assert twin == original


@pytest.mark.parametrize("name", SCORED)
def test_objectives_hold_no_weights_and_casts_keep_single_precision(name: str) -> None:
    original, cast = example(name), example(name).half()
    assert not list(original.parameters())
    assert not original.state_dict()
    assert all(buffer.dtype == torch.float32 for buffer in cast.buffers())
    assert torch.equal(cast(observation(cast)), original(observation(original)))


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_are_single_precision_at_least(name: str, dtype: torch.dtype) -> None:
    objective = example(name)
    large = observation(objective, dtype=dtype, scale=1000.0)  # squares of these are infinite in half precision
    scores = objective(large)
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert scores.shape in ((2, 3), (2, 1))
    rows = 1 if name == "PerPicture" else 2  # that have each term
    assert all(score.shape in ((rows, 3), (rows, 1)) for score in large.terms.values())
    assert not any(score.requires_grad for score in large.terms.values())
    exact = {source: value.double() for source, value in large.activations.items()}
    expected = objective(replace(large, pictures=large.pictures.double(), activations=exact, terms={}))
    torch.testing.assert_close(scores.double(), expected.double(), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [name for name in SCORED if name not in (*DETACHED, *WITHOUT_GRADIENT)])
def test_gradients_are_those_of_differences(name: str) -> None:
    objective = example(name)
    observed_step = observation(objective, views=1, dtype=torch.float64)
    sources = [source for source in objective.sources() if source.reference is None and source.gradient_of is None]

    def scores(images: Tensor, *values: Tensor) -> Tensor:
        activations = dict(observed_step.activations) | dict(zip(sources, values))
        total: Tensor = objective(replace(observed_step, pictures=images, activations=activations, terms={}))
        return total

    inputs = [observed_step.pictures, *(observed_step.activations[source] for source in sources)]
    assert torch.autograd.gradcheck(scores, [value.clone().requires_grad_(True) for value in inputs], fast_mode=True)


@pytest.mark.parametrize("name", [name for name in SCORED if example(name).sources()])
def test_activations_of_zeros_have_finite_gradients(name: str) -> None:
    objective = example(name)
    for level in (0.0, 1.0):  # of references
        observed_step = observation(objective)
        for source, value in observed_step.activations.items():
            value.fill_(0.0 if source.reference is None else level).requires_grad_(True)
        scores = objective(observed_step)
        assert torch.isfinite(scores).all()
        if scores.requires_grad:
            gradients = torch.autograd.grad(scores.sum(), list(observed_step.activations.values()), allow_unused=True)
            assert all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("name", SCORED)
def test_pictures_and_views_are_coupled_only_where_it_is_said(name: str) -> None:
    """Change one view of one picture: only its own score may change, unless the objective is joint."""
    scores = []
    for change in (0.0, 0.5):
        objective = example(name)
        observed_step = observation(objective)
        for source, value in observed_step.activations.items():
            if source.reference is None:
                value[1, 2] += change * torch.rand(value[1, 2].shape, generator=torch.Generator().manual_seed(1))
        scores.append(objective(observed_step).expand(2, 3))
    changed = scores[0] != scores[1]
    assert objective.joint == (name in JOINT)
    assert not any(node.joint_views for node in objective.walk())
    assert not changed[:, :2].any()
    assert bool(changed[0, 2]) == any(node.joint for node in objective.walk())


def test_joint_terms_are_found_in_the_tree() -> None:
    class Together(Term):
        joint = joint_views = True

        def score(self, observation: Observation) -> Tensor:
            return observation.pictures.new_zeros(len(observation.pictures), 1)

    plain, mixed = built("Layer('a') - 2 * L2()"), built("Layer('a')") - 2 * (built("L2()") + Together())
    assert not any(node.joint or node.joint_views for node in plain.walk())
    assert any(node.joint for node in mixed.walk())
    assert any(node.joint_views for node in mixed.walk())
    assert repr(mixed) == "Layer('a') - 2 * (L2() + Together())"


# In runs


def problem(objective: Objective, start: Tensor | None = None, count: int | None = None, views: Any = None) -> Ascent:
    """Bind small pictures to the toy network in double precision."""
    image = PixelImage(12, count=count if start is None else len(start), color="none", deviation=0.3).double()
    if start is not None:
        image.start_from(start)
    bound = Ascent(image, FrozenNetwork(toy().double(), classes=CLASSES), objective, seed=3, views=views)
    bound.initialize()
    bound.prepare(dtype=torch.float64)
    return bound


@pytest.mark.parametrize("name", MAXIMIZED)
def test_ascent_raises_what_is_maximised(name: str) -> None:
    count = 3 if name in JOINT else example(name).count() or 1
    run = problem(example(name), count=count)
    before = run.scores()
    after = ascend(run, steps=6, optimizer=adam(0.05))
    assert before.shape == after.shape == (count,)
    assert bool((after.sum() > before.sum() if name in JOINT else after > before).all())


@pytest.mark.parametrize("name", PENALTIES)
def test_ascent_of_the_negative_lowers_a_penalty(name: str) -> None:
    run = problem(-example(name))
    before = -run.scores()
    after = -ascend(run, steps=6, optimizer=adam(0.05))
    assert bool((after < before).all())
    assert bool((after >= 0).all())


VECTORS = numbers(5, 8, seed=6)  # one for each unit
PHOTOS = pictures(5, seed=5)
FEATURE = "features.3"
INDEPENDENT: dict[str, Callable[[list[int]], Objective]] = {  # by the unit of each picture
    "Across": lambda units: objectives.Across([Channel(FEATURE, units), "features.5:1"], [None, "toys:toy"]),
    "Channel": lambda units: Channel(FEATURE, units),
    "Channel, one for all": lambda _: Channel(FEATURE, 1),
    "ClassLogit": lambda units: objectives.ClassLogit(units),
    "ClassProbability": lambda units: objectives.ClassProbability(units),
    "DeepDream": lambda _: objectives.DeepDream("output"),
    "Layer": lambda _: objectives.Layer(FEATURE),
    "Caricature": lambda units: 1e3 * objectives.Caricature(FEATURE, PHOTOS[units], attribution=Channel("head", units)),
    "Content": lambda units: objectives.Content(FEATURE, PHOTOS[units]),
    "Direction": lambda units: objectives.Direction(FEATURE, VECTORS[units], power=2),
    "Facet": lambda units: objectives.Facet(Channel("head", units), {FEATURE: VECTORS[0]}, [1 + u for u in units]),
    "Interpolation": lambda units: Interpolation(Channel(FEATURE, units), "head:3", weights=[u / 5 for u in units]),
    "Inversion": lambda units: objectives.Inversion(FEATURE, PHOTOS[units], through_views=False),
    "Latent": lambda units: objectives.Latent(FEATURE, VECTORS, units),
    "Neuron": lambda units: objectives.Neuron("features.0", units, (4, 5)),
    "NeuronDirection": lambda units: objectives.NeuronDirection(FEATURE, VECTORS[units], (1, 2), compare="cosine"),
    "PerPicture": lambda units: parse_objective("target", [f"{FEATURE}:4" if u == 4 else f"head:{u}" for u in units]),
    "Power": lambda units: Channel(FEATURE, units) ** 2,
    "Similarity": lambda units: objectives.Similarity(FEATURE, VECTORS[units]),
    "SortMatching": lambda _: objectives.SortMatching(FEATURE, PHOTOS[:2]),
    "StayNear": lambda units: objectives.StayNear(PHOTOS[units]),
    "StayNear, balanced": lambda units: objectives.StayNear(PHOTOS[units], FEATURE, balance=Channel("head", units)),
    "Style": lambda _: objectives.Style(["features.0", FEATURE], PHOTOS[:1]),
    "Style, averaged": lambda _: objectives.Style(["features.0", FEATURE], PHOTOS[:1], average=0.5),
    "TensorDirection": lambda units: objectives.TensorDirection(
        FEATURE, VECTORS[units].view(-1, 2, 2, 2).repeat(1, 4, 1, 1), power=1
    ),
    "WeightedChannels": lambda units: objectives.WeightedChannels(FEATURE, VECTORS[units], (1, 1, 3, 2)),
    "a formula": lambda units: Channel(FEATURE, units) * objectives.Layer("head") / 3 - 0.1 * built("L1() + L2(0.5)"),
    **{name: lambda _, name=name: -example(name) for name in PENALTIES},  # type: ignore[misc]
}


def gradient_of(run: Ascent) -> Tensor:
    run.step(0, 100)  # running states
    (gradient,) = torch.autograd.grad(run.step(20, 100).loss, list(run.image.parameters()))
    assert gradient.dtype == torch.float64
    return gradient


@pytest.mark.parametrize("make_views", [None, moving], ids=["no views", "views"])
@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_gradient_of_a_picture_does_not_depend_on_its_companions(
    name: str, make_views: Callable[[], Views] | None
) -> None:
    units, make, start = [4, 0, 2], INDEPENDENT[name], pictures(3)
    views = None if make_views is None else make_views()
    run = problem(make(units), start, views=views)
    together = gradient_of(run)
    for index, unit in enumerate(units):
        single = problem(make([unit]), start[index : index + 1], views=views)
        single.view_keys = run.view_keys[index : index + 1]
        alone = gradient_of(single)
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-10)
