"""Caricature, Inversion and Content: values against loops, pictures as arguments, runs against plain autograd."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from references import (
    bound,
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

from featviz_pl.io import save_png
from featviz_pl.objectives import (
    Caricature,
    Channel,
    ClassLogit,
    Content,
    Inversion,
    Observation,
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


def caricature(source: Array, expected: Array, power: float) -> float:
    values: list[float] = []
    for a, r in zip(vectors_of(source), vectors_of(expected)):
        dot = sum(x * y for x, y in zip(a, r))
        cosine = dot / (1e-4 + sum(x * x for x in a) ** 0.5) / (1e-4 + sum(y * y for y in r) ** 0.5)
        values.append(float(dot * max(0.1, cosine) ** power))
    return sum(values) / len(values)


def pairs(term: Any, observation: Observation) -> list[list[tuple[Array, Array]]]:
    """Return own and wanted activation of each picture in each view."""
    activation, expected = (observation.activations[source] for source in term.term_sources()[:2])
    count, views = activation.shape[:2]
    expected = expected.expand(count, views, *expected.shape[2:])
    return [[(activation[n, v].numpy(), expected[n, v].numpy()) for v in range(views)] for n in range(count)]


@pytest.mark.parametrize("through_views", [True, False])
@pytest.mark.parametrize(("count", "views", "references"), [(1, 1, 1), (3, 4, 1), (3, 4, 3)])
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
        observation = observed(term, {"a": SHAPES[kind]}, count, views)
        scores = term(observation)
        assert scores.shape == (count, views)
        np.testing.assert_allclose(
            scores.numpy(), [[value(a, r) for a, r in row] for row in pairs(term, observation)], rtol=1e-12
        )


@pytest.mark.parametrize("kind", SHAPES)
def test_an_attribution_weighs_the_reference(kind: str) -> None:
    term = Caricature("a", PICTURE, power=2, attribution=Channel("a", 1))
    assert [source.gradient_of for source in term.sources()] == [None, None, term.attribution]
    observation = observed(term, {"a": SHAPES[kind]}, 2, 3)
    activation, reference, gradient = (observation.activations[source].numpy() for source in term.term_sources())
    expected = [[caricature(activation[n, v], reference[0, v] * gradient[0, v], 2) for v in range(3)] for n in range(2)]
    np.testing.assert_allclose(term(observation).numpy(), expected, rtol=1e-12)


def test_the_reference_itself_is_the_best_inversion_and_content() -> None:
    for term in (Inversion("a", PICTURE), Inversion("a", PICTURE, 1), Content("a", PICTURE)):
        source, expected = term.term_sources()
        reference = numbers(1, 1, 4, 3, 3)
        assert term(Observation(pictures(1), {source: reference, expected: reference})).item() == 0
        assert term(Observation(pictures(1), {source: reference * 0.5, expected: reference})).item() < 0
    grey = Inversion("a", PICTURE)
    source, expected = grey.term_sources()
    assert grey(
        Observation(pictures(1), {source: torch.zeros_like(reference), expected: reference})
    ).item() == pytest.approx(-1)


# Whole runs


def by_hand(
    objective: Any,
    term: Any,
    image: Tensor,
    step: int,
    scores: Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor],
) -> None:
    """Compare a step with scores that are computed from all parts' results for the views of picture and reference."""
    network = small()
    views = views_of(objective, objective.image(), step, 10)
    count, number = views.shape[:2]
    moved = (
        views_of(objective, image.expand(count, -1, -1, -1), step, 10)
        if term.through_views
        else image[:, None].expand(-1, number, -1, -1, -1)
    )
    source = run_parts(network, views.flatten(0, 1))
    reference = run_parts(network, moved.expand(count, -1, -1, -1, -1).flatten(0, 1))
    expected = scores(source, reference).view(count, number)
    made_step = objective.step(step, 10)
    torch.testing.assert_close(made_step.scores, expected.mean(1).detach(), rtol=0, atol=1e-10)
    target_values = weight_gradient(objective, -expected.mean(1).sum())
    assert float(target_values.abs().max()) > 1e-6
    torch.testing.assert_close(weight_gradient(objective, made_step.loss), target_values, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
@pytest.mark.parametrize("references", [1, 2])
def test_a_run_of_an_inversion_equals_plain_autograd(references: int, seen_through: Any) -> None:
    image = pictures(references, seed=5)
    for through_views in (True, False):
        term = Inversion("2", image, through_views=through_views)
        run = bound(term, pictures(2), None if seen_through is None else seen_through())

        def scores(source: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
            return -(source["2"] - reference["2"]).square().sum((1, 2, 3)) / reference["2"].square().sum((1, 2, 3))

        by_hand(run, term, image, 3, scores)


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
    run = bound(term, pictures(2), None if seen_through is None else seen_through())
    assert term.count() == 2

    def scores(source: dict[str, Tensor], reference: dict[str, Tensor]) -> Tensor:
        number = len(source[layer]) // 2
        of_each = reference["4"].mean((2, 3)).view(2, number, -1)
        attribution = (
            of_each[0, :, units[0]].sum()
            + of_each[1, :, units[1]].sum()
            + 0.5 * reference["3"][:, 1].mean((1, 2)).sum()
        )
        (gradient,) = torch.autograd.grad(attribution, reference[layer])
        expected = (reference[layer] * gradient).detach()
        dot = (source[layer] * expected).sum(1)
        cosine = dot / (1e-4 + source[layer].norm(dim=1)) / (1e-4 + expected.norm(dim=1))
        floored: Tensor = dot * cosine.clamp(min=0.1)
        return floored.mean((1, 2))

    reference = pictures(1, seed=5).requires_grad_(True)  # the loop above differentiates what it gives
    by_hand(run, term, reference, 3, scores)


# What is asked for and refused


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
    for value, expected in [
        ("photos/a.png", [grey]),
        (Path("photos") / "b.png", [black]),
        ("photos", [grey, black]),  # in the order of their names
        (["photos/b.png", "photos/a.png"], [black, grey]),
        (["photos/b.png", grey], [black, grey]),
        (torch.stack([grey, black]), [grey, black]),
        ((black[None], grey), [black, grey]),
    ]:
        image = Content("a", value).reference.image  # type: ignore[arg-type]
        torch.testing.assert_close(image, torch.stack(expected), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"image: the folder 'empty' holds no pictures \(\.png, "):
        Content("a", "empty")
    with pytest.raises(ValueError, match=r"image: cannot read a picture from 'photos/notes\.txt'"):
        Content("a", os.fspath(Path("photos") / "notes.txt"))


def test_formulas_tell_tensors_apart_by_their_content() -> None:
    single, second = Content("a", PICTURE), Content("a", PICTURE * 0.99)
    assert repr(single) != repr(second)
    assert repr(single) == repr(Content("a", PICTURE.double()))
    assert re.fullmatch(r"Content\('a', <picture 3 x 12 x 12 [0-9a-f]{8}>\)", repr(single))
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


def test_an_objective_that_was_made_in_inference_mode_serves_a_training() -> None:
    with torch.inference_mode():
        term = Inversion("2", pictures(1, seed=5).clone())
    run = bound(term, pictures(1), moving())
    assert float(weight_gradient(run, run.step(0, 10).loss).abs().max()) > 0


def test_a_class_as_attribution_joins_the_count_of_pictures() -> None:
    term = Caricature("a", PICTURE, attribution=ClassLogit([1, 2, 3]))
    assert term.count() == 3
    assert len(term.reference.image) == 3
    with pytest.raises(ValueError, match="different numbers of pictures"):
        (term + Channel("a", [1, 2])).count()
