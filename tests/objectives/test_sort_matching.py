"""SortMatching: sorted activations against numpy, whole runs, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from references import bound, from_yaml, moving, observed, pictures, run_parts, small, views_of, weight_gradient
from torch import Tensor
from toys import adam

from featviz_pl import objectives
from featviz_pl.engine import ascend
from featviz_pl.io import save_png
from featviz_pl.objectives import Observation, Setting, SortMatching

PICTURES = torch.full((3, 3, 8, 8), 0.25)
SHAPES: dict[str, tuple[int, ...]] = {"map": (4, 3, 5), "tokens": (6, 4), "vector": (4,)}


def columns(activation: Any) -> list[list[float]]:
    """Return the sorted activations of each unit of (C, H, W), (T, F) or (F,)."""
    if activation.ndim == 3:
        return [sorted(activation[unit].ravel()) for unit in range(len(activation))]
    table = activation if activation.ndim == 2 else activation[None]
    return [sorted(table[:, unit]) for unit in range(table.shape[1])]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("count", "views"), [(1, 1), (3, 1), (3, 4)])
def test_values_are_those_of_sorted_lists(count: int, views: int, kind: str) -> None:
    term = SortMatching(["a", "b"], PICTURES, [2, 0.5])
    seen = observed(term, {"a": SHAPES[kind], "b": SHAPES["map"]}, count, views)
    a, a_ref, b, b_ref = (seen.activations[source].numpy() for source in term.sources())
    assert a_ref.shape[:2] == (1, 3)
    expected = np.zeros((count, views))
    for own, references, weight in ((a, a_ref, 2), (b, b_ref, 0.5)):
        wanted = np.mean([columns(reference) for reference in references[0]], axis=0)
        for n in range(count):
            for v in range(views):
                expected[n, v] -= weight * ((np.array(columns(own[n, v])) - wanted) ** 2).mean()
    np.testing.assert_allclose(term(seen).numpy(), expected, rtol=1e-12)


def test_positions_do_not_matter_and_units_do() -> None:
    term = SortMatching("a", PICTURES[:1])
    own, wanted = term.term_sources()
    reference = torch.arange(24.0).view(1, 1, 4, 2, 3)
    assert term(Observation(pictures(1), {own: reference.flip(3, 4), wanted: reference})).item() == 0
    assert term(Observation(pictures(1), {own: reference.flip(2), wanted: reference})).item() < -1


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_are_those_of_differences(kind: str) -> None:
    term = SortMatching("a", PICTURES)
    seen = observed(term, {"a": SHAPES[kind]}, 2, 2)
    own, wanted = term.term_sources()
    assert torch.autograd.gradcheck(
        lambda activation: term(Observation(seen.pictures, {own: activation, wanted: seen.activations[wanted]})),
        seen.activations[own].requires_grad_(True),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_activations_in_reduced_precision_are_scored_in_single_precision(dtype: torch.dtype) -> None:
    term = SortMatching("a", PICTURES[:1])
    own, wanted = term.term_sources()
    read = {own: torch.full((1, 1, 2, 8, 8), 512.0).to(dtype), wanted: torch.zeros(1, 1, 2, 8, 8).to(dtype)}
    scores = term(Observation(torch.zeros(1, 3, 8, 8), read))
    assert (scores.dtype, scores.item()) == (torch.float32, -512.0 * 512.0)  # infinite in half precision


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
def test_a_run_equals_plain_autograd(seen_through: Any) -> None:
    images = pictures(4, seed=5)
    made = bound(
        SortMatching(["1", "2"], images, [1, 3]), pictures(2), None if seen_through is None else seen_through()
    )
    step = made.step(3, 10)
    views = views_of(made, made.image(), 3, 10)
    own, wanted = run_parts(small(), views.flatten(0, 1)), run_parts(small(), images)
    expected: Any = 0
    for layer, weight in (("1", 1), ("2", 3)):
        curves = [torch.sort(x.flatten(2), dim=2)[0] for x in (own[layer], wanted[layer])]
        expected = expected - weight * (curves[0] - curves[1].detach().mean(0)).square().mean((1, 2))
    by_view: Tensor = expected.view(2, -1)
    torch.testing.assert_close(step.scores, by_view.mean(1).detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        weight_gradient(made, step.loss), weight_gradient(made, -by_view.mean(1).sum()), rtol=0, atol=1e-10
    )


def test_ascent_raises_the_score() -> None:
    made = bound(SortMatching(["0", "2", "4"], pictures(5, seed=5) ** 4), pictures(2), moving(4))
    before = made.scores()
    assert bool((ascend(made, steps=10, optimizer=adam(0.03)) > 0.8 * before).all())


def test_pictures_do_not_know_each_other() -> None:
    start = pictures(3)
    together = weight_gradient(made := bound(SortMatching("2", pictures(2, seed=5)), start), made.step(20, 100).loss)
    for index in range(3):
        one = bound(SortMatching("2", pictures(2, seed=5)), start[index : index + 1])
        alone = weight_gradient(one, one.step(20, 100).loss)
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("own", "given"), [((8, 4, 4), (8, 4, 5)), ((17, 12), (26, 12))])
def test_references_with_other_numbers_of_positions_are_refused(own: tuple[int, ...], given: tuple[int, ...]) -> None:
    term = SortMatching("a", torch.zeros(2, 3, 30, 40))
    mine, theirs = term.term_sources()
    with pytest.raises(
        ValueError,
        match=r"images: 'a' has (20|26) positions for a picture of 30 x 40, and (16|17) .*resize them to 32 x 32",
    ):
        term.check(Setting({mine: own, theirs: given}, 1, (3, 32, 32)))
    term.check(Setting({mine: own, theirs: own}, 1, (3, 32, 32)))
    with pytest.raises(ValueError, match=r"images: '2' has .* resize them to 12 x 12"):
        bound(SortMatching("2", [*pictures(2), pictures(1, size=16)[0]]), pictures(1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], PICTURES), ValueError, "layers must hold at least one layer"),
        (("a", []), ValueError, "images must hold at least one picture"),
        (("a", PICTURES, [1, 2]), ValueError, "weights: 2 weights do not fit 1 layers"),
        (("a", "absent"), ValueError, "images: cannot read a picture from 'absent'"),
    ],
)
def test_impossible_arguments_are_refused_where_they_are_given(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SortMatching(*arguments)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_copies_score_the_same(copied: Callable[[Any], Any]) -> None:
    term = SortMatching("a", PICTURES, [2])
    shapes = {"a": (4, 3, 3)}
    expected = term(observed(term, shapes, 2, 3))
    twin = copied(term)
    assert repr(twin) == repr(term)
    assert not twin.state_dict()
    assert torch.equal(twin(observed(twin, shapes, 2, 3)), expected)


def test_formulas_and_configurations_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        save_png(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)), tmp_path / "photos" / name)
    wanted = "SortMatching(['a', 'b'], 'photos', weights=[1, 100])"
    made = from_yaml(
        {"class_path": "SortMatching", "init_args": {"layers": ["a", "b"], "images": "photos", "weights": [1, 100]}}
    )
    assert repr(made) == wanted
    assert len(made.pictures) == 2
    assert repr(eval(wanted, {name: getattr(objectives, name) for name in objectives.__all__})) == wanted
