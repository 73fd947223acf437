"""Caricature, Inversion and Content: values against loops, pictures as arguments, and whole runs against plain autograd."""

from __future__ import annotations

import copy
import os
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from references import (
    bound,
    from_yaml,
    moving,
    numbers,
    observed,
    pictures,
    run_parts,
    small,
    views_of,
    weight_gradient,
)
from torch import Tensor
from toys import adam

from featviz_pl import objectives
from featviz_pl.engine import ascend
from featviz_pl.io import save_png
from featviz_pl.objectives import (
    Caricature,
    Channel,
    ClassLogit,
    Content,
    Inversion,
    Objective,
    Observation,
    Setting,
    Source,
)

Array = NDArray[np.float64]
SHAPES: dict[str, tuple[int, ...]] = {"map": (4, 3, 5), "tokens": (6, 4), "vector": (4,)}
PICTURE = torch.full((3, 12, 12), 0.25)
MAKERS: dict[str, Callable[..., Any]] = {"Caricature": Caricature, "Inversion": Inversion, "Content": Content}


def vectors_of(activation: Array) -> Array:
    """Lay an activation of one picture in one view out as (positions, units)."""
    if activation.ndim == 3:
        return activation.reshape(activation.shape[0], -1).T
    return activation if activation.ndim == 2 else activation[None]


def caricature(own: Array, wanted: Array, power: float) -> float:
    values: list[float] = []
    for a, r in zip(vectors_of(own), vectors_of(wanted)):
        dot = sum(x * y for x, y in zip(a, r))
        cosine = dot / (1e-4 + sum(x * x for x in a) ** 0.5) / (1e-4 + sum(y * y for y in r) ** 0.5)
        values.append(float(dot * max(0.1, cosine) ** power))
    return sum(values) / len(values)


def pairs(term: Any, seen: Observation) -> list[list[tuple[Array, Array]]]:
    """Return own and wanted activation of each picture in each view."""
    own, wanted = (seen.activations[source] for source in term.term_sources()[:2])
    count, views = own.shape[:2]
    wanted = wanted.expand(count, views, *wanted.shape[2:])
    return [[(own[n, v].numpy(), wanted[n, v].numpy()) for v in range(views)] for n in range(count)]


@pytest.mark.parametrize("through_views", [True, False])
@pytest.mark.parametrize(("count", "views", "references"), [(1, 1, 1), (3, 1, 1), (3, 4, 1), (3, 4, 3)])
@pytest.mark.parametrize("kind", SHAPES)
def test_values_are_those_of_loops(kind: str, count: int, views: int, references: int, through_views: bool) -> None:
    image = PICTURE.expand(references, -1, -1, -1)
    expected: dict[Any, Callable[[Array, Array], float]] = {
        Caricature("a", image, through_views=through_views): lambda a, r: caricature(a, r, 0),
        Caricature("a", image, power=1, through_views=through_views): lambda a, r: caricature(a, r, 1),
        Caricature("a", image, power=2.5, through_views=through_views): lambda a, r: caricature(a, r, 2.5),
        Inversion("a", image, through_views=through_views): lambda a, r: -float(((a - r) ** 2).sum() / (r**2).sum()),
        Inversion("a", image, norm=1, through_views=through_views): lambda a, r: (
            -float(np.abs(a - r).sum() / np.abs(r).sum())
        ),
        Content("a", image, through_views=through_views): lambda a, r: -float(np.abs(a - r).mean()),
    }
    for term, value in expected.items():
        seen = observed(term, {"a": SHAPES[kind]}, count, views)
        scores = term(seen)
        assert scores.shape == (count, views)
        np.testing.assert_allclose(
            scores.numpy(), [[value(a, r) for a, r in row] for row in pairs(term, seen)], rtol=1e-12
        )


@pytest.mark.parametrize("kind", SHAPES)
def test_an_attribution_weighs_the_reference(kind: str) -> None:
    term = Caricature("a", PICTURE, power=2, attribution=Channel("a", 1))
    assert [source.gradient_of for source in term.sources()] == [None, None, term.attribution]
    seen = observed(term, {"a": SHAPES[kind]}, 2, 3)
    own, wanted, gradient = (seen.activations[source].numpy() for source in term.term_sources())
    expected = [[caricature(own[n, v], wanted[0, v] * gradient[0, v], 2) for v in range(3)] for n in range(2)]
    np.testing.assert_allclose(term(seen).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "term",
    [Caricature("a", PICTURE), Caricature("a", PICTURE, power=2), Inversion("a", PICTURE), Inversion("a", PICTURE, 1)],
)
@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_are_those_of_differences(kind: str, term: Any) -> None:
    seen = observed(term, {"a": SHAPES[kind]}, 2, 2)
    own, wanted = term.term_sources()[:2]

    def scores(activation: Tensor) -> Tensor:
        return torch.as_tensor(term(Observation(seen.pictures, {own: activation, wanted: seen.activations[wanted]})))

    assert torch.autograd.gradcheck(scores, seen.activations[own].requires_grad_(True))


@pytest.mark.parametrize(
    "term",
    [Caricature("a", PICTURE, power=2), Inversion("a", PICTURE), Inversion("a", PICTURE, 1), Content("a", PICTURE)],
)
def test_what_a_rectifier_left_empty_has_finite_gradients(term: Any) -> None:
    own, wanted = term.term_sources()
    activation = torch.zeros(1, 1, 3, 2, 2, requires_grad=True)
    for reference in (torch.zeros(1, 1, 3, 2, 2), torch.ones(1, 1, 3, 2, 2)):
        scores = term(Observation(torch.zeros(1, 3, 4, 4), {own: activation, wanted: reference}))
        (gradient,) = torch.autograd.grad(scores.sum(), activation)
        assert torch.isfinite(scores).all()
        assert torch.isfinite(gradient).all()


def test_the_reference_itself_is_the_best_inversion_and_content() -> None:
    for term in (Inversion("a", PICTURE), Inversion("a", PICTURE, 1), Content("a", PICTURE)):
        own, wanted = term.term_sources()
        reference = numbers(1, 1, 4, 3, 3)
        assert term(Observation(pictures(1), {own: reference, wanted: reference})).item() == 0
        assert term(Observation(pictures(1), {own: reference * 0.5, wanted: reference})).item() < 0
    grey = Inversion("a", PICTURE)
    own, wanted = grey.term_sources()
    assert grey(
        Observation(pictures(1), {own: torch.zeros_like(reference), wanted: reference})
    ).item() == pytest.approx(-1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_activations_in_reduced_precision_are_scored_in_single_precision(
    make: Callable[..., Any], dtype: torch.dtype
) -> None:
    term = make("a", PICTURE)
    own, wanted = term.term_sources()
    # 30,000 squared is infinite in half precision
    read = {own: torch.full((1, 1, 2, 4, 4), 30000.0).to(dtype), wanted: torch.full((1, 1, 2, 4, 4), 15000.0).to(dtype)}
    a, r = (float(value.double().flatten()[0]) for value in read.values())
    scores = term(Observation(torch.zeros(1, 3, 4, 4), read))
    assert scores.dtype == torch.float32
    expected = {"Caricature": 2 * a * r, "Inversion": -((a - r) ** 2) / r**2, "Content": -abs(a - r)}
    assert scores.item() == pytest.approx(expected[type(term).__name__], rel=1e-5)


# Whole runs


def by_hand(
    made: Any, term: Any, image: Tensor, step: int, scores: Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]
) -> None:
    """Compare a step with scores that are computed from all parts' results for the views of picture and reference."""
    network = small()
    views = views_of(made, made.image(), step, 10)
    count, number = views.shape[:2]
    moved = (
        views_of(made, image.expand(count, -1, -1, -1), step, 10)
        if term.through_views
        else image[:, None].expand(-1, number, -1, -1, -1)
    )
    own = run_parts(network, views.flatten(0, 1))
    reference = run_parts(network, moved.expand(count, -1, -1, -1, -1).flatten(0, 1))
    expected = scores(own, reference).view(count, number)
    made_step = made.step(step, 10)
    torch.testing.assert_close(made_step.scores, expected.mean(1).detach(), rtol=0, atol=1e-10)
    wanted = weight_gradient(made, -expected.mean(1).sum())
    assert float(wanted.abs().max()) > 1e-6
    torch.testing.assert_close(weight_gradient(made, made_step.loss), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
@pytest.mark.parametrize("references", [1, 2])
def test_a_run_of_an_inversion_equals_plain_autograd(references: int, seen_through: Any) -> None:
    image = pictures(references, seed=5)
    for through_views in (True, False):
        term = Inversion("2", image, through_views=through_views)
        made = bound(term, pictures(2), None if seen_through is None else seen_through())

        def scores(own: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
            return -(own["2"] - reference["2"]).square().sum((1, 2, 3)) / reference["2"].square().sum((1, 2, 3))

        by_hand(made, term, image, 3, scores)


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
@pytest.mark.parametrize("through_views", [True, False])
@pytest.mark.parametrize("layer", ["1", "2"])
def test_a_run_of_an_attributed_caricature_equals_plain_autograd(
    layer: str, through_views: bool, seen_through: Any
) -> None:
    image = pictures(1, seed=5)
    units = [2, 0]
    term = Caricature(
        layer, image, power=1, attribution=Channel("4", units) + 0.5 * Channel("3", 1), through_views=through_views
    )
    made = bound(term, pictures(2), None if seen_through is None else seen_through())
    assert term.count() == 2

    def scores(own: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
        number = len(own[layer]) // 2
        of_each = reference["4"].mean((2, 3)).view(2, number, -1)
        attribution = (
            of_each[0, :, units[0]].sum()
            + of_each[1, :, units[1]].sum()
            + 0.5 * reference["3"][:, 1].mean((1, 2)).sum()
        )
        (gradient,) = torch.autograd.grad(attribution, reference[layer])
        wanted = (reference[layer] * gradient).detach()
        dot = (own[layer] * wanted).sum(1)
        cosine = dot / (1e-4 + own[layer].norm(dim=1)) / (1e-4 + wanted.norm(dim=1))
        floored: Tensor = dot * cosine.clamp(min=0.1)
        return floored.mean((1, 2))

    reference = pictures(1, seed=5).requires_grad_(True)  # the loop above differentiates what it gives
    by_hand(made, term, reference, 3, scores)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_ascent_raises_the_score(make: Callable[..., Any]) -> None:
    made = bound(make("2", pictures(1, seed=5)), pictures(2), moving(4))
    before = made.scores()
    assert bool((ascend(made, steps=8, optimizer=adam(0.03)) > before).all())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_pictures_with_references_of_their_own_do_not_know_each_other(make: Callable[..., Any]) -> None:
    start, images = pictures(3), pictures(3, seed=5)
    made = bound(make("2", images), start, moving())
    together = weight_gradient(made, made.step(20, 100).loss)
    for index in range(3):
        one = bound(make("2", images[index]), start[index : index + 1], moving())
        alone = weight_gradient(one, one.step(20, 100).loss)
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-10)


# What is asked for and refused


def setting(own: tuple[int, ...], wanted: tuple[int, ...], term: Any) -> Setting:
    sources = term.term_sources()
    return Setting({sources[0]: own, sources[1]: wanted}, 1, (3, 224, 200))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_reference_of_another_size_is_refused(make: Callable[..., Any]) -> None:
    term = make("features.9", torch.zeros(3, 64, 48), through_views=False)
    with pytest.raises(
        ValueError, match=re.escape("reference: activations of 'features.9' are (8, 4, 3) for a picture of 64 x 48")
    ) as caught:
        term.check(setting((8, 14, 13), (8, 4, 3), term))
    assert "and (8, 14, 13) for the picture of 224 x 200; resize it to 224 x 200" in str(caught.value)
    term.check(setting((8, 4, 3), (8, 4, 3), term))
    for through_views in (True, False):
        with pytest.raises(ValueError, match=r"reference: .*resize it"):
            bound(make("2", pictures(1, size=16), through_views=through_views), pictures(1))


def test_an_attribution_that_cannot_work_is_refused_before_the_first_step() -> None:
    term = Caricature("a", PICTURE, attribution=Channel("b", 9))
    sources = term.term_sources()
    shapes = dict.fromkeys(sources, (8, 4, 4)) | {Source("b"): (5, 2, 2)}
    with pytest.raises(ValueError, match="'b' has 5 units"):
        term.check(Setting(shapes, 1, (3, 12, 12)))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_several_references_ask_for_as_many_pictures(make: Callable[..., Any]) -> None:
    several = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert make("a", PICTURE).count() is None
    assert make("a", PICTURE[None]).count() is None
    assert make("a", several).count() == 2
    first, second = make("a", several).targets(2)
    assert (first, second) == (make("a", several[0]).targets(1)[0], make("a", several[1]).targets(1)[0])
    assert first != second
    assert make("a", PICTURE).name() == f"{make.__name__}.a"


def test_the_target_of_a_picture_names_its_own_attribution_only() -> None:
    together = Caricature("a", PICTURE, attribution=Channel("b", [3, 5]))
    assert together.count() == 2
    assert together.targets(2)[1] == Caricature("a", PICTURE, attribution=Channel("b", [5])).targets(1)[0]
    assert together.targets(2)[1].endswith("attribution=b:5)")


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (Caricature, ("", PICTURE), TypeError, "layer must be a module name"),
        (partial(Caricature, power=-1), ("a", PICTURE), ValueError, "power must be at least 0"),
        (
            partial(Caricature, attribution=3),  # type: ignore[arg-type]
            ("a", PICTURE),
            TypeError,
            "attribution must be an Objective",
        ),
        (
            Caricature,
            ("a", 3),
            TypeError,
            "image must be a tensor .* the path of a picture or a folder, or a list of these, got int",
        ),
        (Caricature, ("a", None), TypeError, "image must be a tensor .* got NoneType"),
        (Caricature, ("a", [PICTURE, 3]), TypeError, "image must be a tensor .* got int"),
        (Caricature, ("a", []), ValueError, "image must hold at least one picture"),
        (Caricature, ("a", PICTURE * 255), ValueError, r"image must lie in \[0, 1\], got values from 63.75"),
        (Caricature, ("a", PICTURE * float("nan")), ValueError, r"image must lie in \[0, 1\]"),
        (Caricature, ("a", torch.zeros(5, 5)), ValueError, "image must be floats"),
        (
            Caricature,
            ("a", torch.zeros(3, 5, 5, dtype=torch.uint8)),
            ValueError,
            "image must be floats .* got torch.uint8",
        ),
        (Caricature, ("a", "absent.png"), ValueError, "image: cannot read a picture from 'absent.png'"),
        (
            Caricature,
            ("a", [PICTURE, PICTURE[:, :6]]),
            ValueError,
            "image: the pictures have different shapes, .* resize them to one",
        ),
        (Inversion, ("a", PICTURE, 3), ValueError, "norm must be 1 or 2, got 3"),
        (Inversion, ("a", PICTURE, True), ValueError, "norm must be 1 or 2, got True"),
        (Inversion, ("a", PICTURE, "2"), ValueError, "norm must be 1 or 2, got '2'"),
        (Content, (None, PICTURE), TypeError, "layer must be a module name"),
    ],
)
def test_impossible_arguments_are_refused_where_they_are_given(
    make: Any, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(*arguments)


# Pictures as arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hold two pictures and something else, as the current folder."""
    for index, name in enumerate(("b.png", "a.png")):
        save_png(torch.full((3, 12, 12), index / 2), tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_come_from_files_folders_and_lists(folder: Path) -> None:
    grey, black = torch.full((3, 12, 12), 128 / 255), torch.zeros(3, 12, 12)
    for given, expected in [
        ("photos/a.png", [grey]),
        (Path("photos") / "b.png", [black]),
        ("photos", [grey, black]),  # in the order of their names
        (["photos/b.png", "photos/a.png"], [black, grey]),
        (["photos/b.png", grey], [black, grey]),
        (torch.stack([grey, black]), [grey, black]),
        ((black[None], grey), [black, grey]),
    ]:
        image = Content("a", given).reference.image  # type: ignore[arg-type]
        torch.testing.assert_close(image, torch.stack(expected), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"image: the folder 'empty' holds no pictures \(\.png, "):
        Content("a", "empty")
    with pytest.raises(ValueError, match=r"image: cannot read a picture from 'photos/notes\.txt'"):
        Content("a", os.fspath(Path("photos") / "notes.txt"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Caricature("a", "photos/a.png"),
        lambda: Caricature("a", "photos", power=2, attribution=Channel("b", [0, 3]), through_views=False),
        lambda: Inversion("a", ["photos/a.png", "photos/b.png"], 1),
        lambda: Content("a", "photos/b.png", through_views=False),
    ],
)
def test_formulas_of_files_build_the_objective(folder: Path, make: Callable[[], Any]) -> None:
    original = make()
    rebuilt = eval(repr(original), {name: getattr(objectives, name) for name in objectives.__all__})
    assert repr(rebuilt) == repr(original)
    assert type(rebuilt) is type(original)
    assert torch.equal(rebuilt.reference.image, original.reference.image)
    assert rebuilt.reference.through_views == original.reference.through_views


def test_formulas_tell_tensors_apart_by_their_content() -> None:
    one, other = Content("a", PICTURE), Content("a", PICTURE * 0.99)
    assert repr(one) != repr(other)
    assert repr(one) == repr(Content("a", PICTURE.double()))
    assert re.fullmatch(r"Content\('a', <picture 3 x 12 x 12 [0-9a-f]{8}>\)", repr(one))
    two = Content("a", torch.stack([PICTURE, PICTURE * 0.99]))
    assert re.fullmatch(r"Content\('a', <2 pictures 3 x 12 x 12 [0-9a-f]{8}>\)", repr(two))


def test_a_picture_that_changes_later_does_not_change_the_objective() -> None:
    image = PICTURE.clone().requires_grad_(True)
    term = Content("a", image)
    with torch.no_grad():
        image.fill_(1.0)
    assert term.reference.image.unique().tolist() == [0.25]
    assert not term.reference.image.requires_grad


def test_rounding_beyond_black_and_white_is_forgiven() -> None:
    image = torch.tensor([-1e-6, 0.5, 1 + 1e-6]).expand(3, 2, 3)
    assert Content("a", image).reference.image.unique().tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"image must lie in \[0, 1\]"):
        Content("a", image * 1.01)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_copies_read_and_score_the_same(copied: Callable[[Any], Any]) -> None:
    term = Caricature("a", PICTURE, power=2, attribution=Channel("a", 1), through_views=False)
    twin = copied(term)
    assert repr(twin) == repr(term)
    assert not twin.state_dict()
    shapes = {"a": (4, 3, 3)}
    assert torch.equal(twin(observed(twin, shapes, 2, 3)), term(observed(term, shapes, 2, 3)))


def test_an_objective_that_was_made_in_inference_mode_serves_a_training() -> None:
    with torch.inference_mode():
        term = Inversion("2", pictures(1, seed=5).clone())
    made = bound(term, pictures(1), moving())
    assert float(weight_gradient(made, made.step(0, 10).loss).abs().max()) > 0


def test_configurations_build_them(folder: Path) -> None:
    unit = {"class_path": "Channel", "init_args": {"layer": "b", "units": 3}}
    for value, expected in [
        (
            {
                "class_path": "Caricature",
                "init_args": {"layer": "a", "image": "photos/a.png", "power": 2, "attribution": unit},
            },
            "Caricature('a', 'photos/a.png', power=2, attribution=Channel('b', 3))",
        ),
        (
            {
                "class_path": "Inversion",
                "init_args": {"layer": "a", "image": ["photos/a.png", "photos/b.png"], "norm": 1},
            },
            "Inversion('a', ['photos/a.png', 'photos/b.png'], norm=1)",
        ),
        (
            {"class_path": "Content", "init_args": {"layer": "a", "image": "photos", "through_views": False}},
            "Content('a', 'photos', through_views=False)",
        ),
    ]:
        made = from_yaml(value)
        assert isinstance(made, Objective)
        assert repr(made) == expected


def test_a_class_as_attribution_joins_the_count_of_pictures() -> None:
    term = Caricature("a", PICTURE, attribution=ClassLogit([1, 2, 3]))
    assert term.count() == 3
    assert len(term.reference.image) == 3
    with pytest.raises(ValueError, match="different numbers of pictures"):
        (term + Channel("a", [1, 2])).count()
