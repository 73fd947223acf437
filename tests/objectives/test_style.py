"""Style: Gram matrices against loops, sets of pictures of any size, and a running average that resumes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.typing import NDArray
from references import bound, moving, observed, pictures, run_parts, small, views_of, weight_gradient
from runs import fit
from torch import Tensor
from toys import toy

from featviz_pl.images import PixelImage
from featviz_pl.objectives import Channel, Objective, Observation, Source, Style
from featviz_pl.training import FeatureVisualization

Array = NDArray[np.float64]
PICTURE = torch.full((3, 8, 8), 0.25)
SHAPES: dict[str, tuple[int, ...]] = {"a": (4, 3, 5), "b": (6, 4)}


def gram(activation: Array) -> Array:
    """Average the outer products of the vectors at all positions of (C, H, W) or (T, F)."""
    vectors = activation.reshape(len(activation), -1).T if activation.ndim == 3 else activation
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for vector in vectors:
        total += np.outer(vector, vector)
    return total / len(vectors)


def distance(source: Array, references: Array) -> float:
    """Compare an activation with the mean over references (R, …)."""
    expected = np.mean([gram(reference) for reference in references], axis=0)
    return float(np.abs(gram(source) - expected).mean())


@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize(("count", "views"), [(1, 1), (3, 1), (3, 4)])
def test_values_are_those_of_loops(count: int, views: int, references: int) -> None:
    image = PICTURE.expand(references, -1, -1, -1)
    for term, weights in ((Style(["a", "b"], image), (1, 1)), (Style(("a", "b"), image, weights=[0.5, 3]), (0.5, 3))):
        assert [source.layer for source in term.sources()] == ["a", "a", "b", "b"]
        assert all(source.reference is None or source.reference.together for source in term.sources())
        assert not term.joint_views
        observation = observed(term, SHAPES, count, views)
        a, a_ref, b, b_ref = (observation.activations[source].numpy() for source in term.sources())
        expected = [
            [-weights[0] * distance(a[n, v], a_ref[0]) - weights[1] * distance(b[n, v], b_ref[0]) for v in range(views)]
            for n in range(count)
        ]
        np.testing.assert_allclose(term(observation).numpy(), expected, rtol=1e-12)


def test_style_pictures_of_several_sizes_count_alike() -> None:
    term = Style("a", [PICTURE, PICTURE[:, :5], PICTURE])
    activation, square, flat = term.sources()
    assert (len(square.reference.image), len(flat.reference.image)) == (2, 1)  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    read = {source: torch.rand(shape, generator=generator, dtype=torch.float64) for source, shape in [
        (activation, (1, 1, 4, 6, 6)), (square, (1, 2, 4, 6, 6)), (flat, (1, 1, 4, 3, 6)),
    ]}  # fmt: skip
    reference = np.mean(
        [gram(value.numpy()) for value in (read[square][0, 0], read[square][0, 1], read[flat][0, 0])], axis=0
    )
    expected = -np.abs(gram(read[activation][0, 0].numpy()) - reference).mean()
    assert term(Observation(pictures(1), read)).item() == pytest.approx(expected, rel=1e-12)


def test_activations_that_change_are_not_taken_for_the_old_ones() -> None:
    term = Style("a", PICTURE)
    source, expected = term.term_sources()
    items = torch.ones(1, 1, 2, 3, 3)
    for level in (2.0, 3.0):
        assert term(
            Observation(torch.zeros(1, 3, 8, 8), {source: 0 * items, expected: level * items})
        ).item() == pytest.approx(-(level**2))


# The running average


def steps_of(term: Style, count: int, views: int, first: int, last: int) -> list[Array]:
    """Score a few steps with activations drawn for each step."""
    return [
        term(observed(term, SHAPES, count, views, seed=100 * step, step=step)).numpy() for step in range(first, last)
    ]


@pytest.mark.parametrize(("count", "views"), [(1, 1), (3, 4)])
def test_the_average_runs_over_steps_and_views(count: int, views: int) -> None:
    term = Style(["a", "b"], PICTURE, weights=[2, 1], average=0.75)
    assert term.joint_views
    averages: dict[tuple[str, int], Array] = {}
    for step in range(4):
        observation = observed(term, SHAPES, count, views, seed=100 * step, step=step)
        expected = np.zeros((count, 1))
        for layer, weight in (("a", 2), ("b", 1)):
            (reference,) = (
                value for source, value in observation.activations.items() if source.layer == layer and source.reference
            )
            for n in range(count):
                new = np.mean(
                    [gram(activation.numpy()) for activation in observation.activations[Source(layer)][n]], axis=0
                )
                averages[layer, n] = new if step == 0 else 0.75 * averages[layer, n] + 0.25 * new
                expected[n] -= weight * np.abs(averages[layer, n] - gram(reference[0, 0].numpy())).mean()
        np.testing.assert_allclose(term(observation).numpy(), expected, rtol=1e-12)


def test_the_gradient_goes_through_the_new_matrix_unscaled() -> None:
    term = Style("a", PICTURE, average=0.9)
    term(observed(term, SHAPES, 2, 3, seed=50, step=0))
    old = term.get_buffer("gram_0").clone()
    observation = observed(term, SHAPES, 2, 3, step=1)
    source, target_values = term.term_sources()
    activation = observation.activations[source].requires_grad_(True)
    (gradient,) = torch.autograd.grad(term(observation).sum(), activation)
    flat = activation.flatten(3)
    new = (flat @ flat.transpose(2, 3) / 15).mean(1, keepdim=True)
    reference = observation.activations[target_values].flatten(3)
    wanted_gram = reference @ reference.transpose(2, 3) / 15
    signs = torch.sign(
        0.9 * old + 0.1 * new.detach() - wanted_gram
    )  # of -mean |.| by the averaged matrix, passed on as it is
    (expected,) = torch.autograd.grad((-signs * new / 16).sum(), activation)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_a_score_on_the_side_leaves_the_average_alone_and_does_not_use_it() -> None:
    term, plain = Style("a", PICTURE, average=0.9), Style("a", PICTURE)
    steps_of(term, 2, 1, 0, 3)
    before = copy.deepcopy(term.state_dict())
    torch.testing.assert_close(term(observed(term, SHAPES, 2, 1)), plain(observed(plain, SHAPES, 2, 1)))
    term(observed(term, SHAPES, 2, 1, step=9).without_logging())
    assert all(torch.equal(term.state_dict()[name], value) for name, value in before.items())


def test_a_new_run_forgets_the_last_one() -> None:
    used, fresh = Style("a", PICTURE, average=0.9), Style("a", PICTURE, average=0.9)
    steps_of(used, 3, 2, 0, 4)
    np.testing.assert_array_equal(steps_of(used, 2, 2, 0, 3), steps_of(fresh, 2, 2, 0, 3))


def test_a_fresh_objective_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def make() -> Objective:
        return Channel("a", 1) + 0.5 * Style(["a", "b"], PICTURE, average=0.9)

    def scores(objective: Objective, first: int, last: int) -> list[Array]:
        return [
            objective(observed(objective, SHAPES, 2, 2, seed=100 * step, step=step)).numpy()
            for step in range(first, last)
        ]

    full, first, second = make(), make(), make()
    expected = scores(full, 0, 5)
    scores(first, 0, 2)
    torch.save(first.state_dict(), tmp_path / "objective.pt")
    assert sorted(first.state_dict()) == ["operands.1.right.gram_0", "operands.1.right.gram_1"]
    second.load_state_dict(torch.load(tmp_path / "objective.pt", weights_only=True))
    np.testing.assert_array_equal(scores(second, 2, 5), expected[2:])
    assert not Style("a", PICTURE).state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_resumes_exactly(tmp_path: Path) -> None:
    def run(**arguments: Any) -> FeatureVisualization:
        style = Style(["features.0", "features.3"], pictures(1, seed=5).float(), average=0.8)
        model = FeatureVisualization(toy(), style, image=PixelImage(12, count=2, deviation=0.3), steps=6)
        saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
        fit(model, 6, [saving], enable_checkpointing=True, **arguments)
        return model

    full, resumed = run(), run(ckpt_path=str(tmp_path / "step=3.ckpt"))
    assert torch.equal(resumed.images, full.images)
    assert torch.equal(resumed.objective.state_dict()["gram_1"], full.objective.state_dict()["gram_1"])


def test_a_cast_leaves_the_average_in_single_precision() -> None:
    term = Style("a", PICTURE, average=0.9)
    term(Observation(torch.zeros(1, 3, 8, 8), dict.fromkeys(term.sources(), torch.ones(1, 1, 2, 3, 3)), step=0))
    assert term.half().gram_0.dtype == torch.float32


# Whole runs


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
def test_a_run_equals_plain_autograd(seen_through: Any) -> None:
    images = pictures(2, size=17, seed=5)
    run = bound(
        Style(["1", "2"], images, weights=[1, 2]), pictures(2), None if seen_through is None else seen_through()
    )
    step = run.step(3, 10)
    views = views_of(run, run.image(), 3, 10)
    source, reference = run_parts(small(), views.flatten(0, 1)), run_parts(small(), images)
    expected: Any = 0
    for layer, weight in (("1", 1), ("2", 2)):
        grams = [
            torch.einsum("nchw,ndhw->ncd", x, x) / x.shape[2] / x.shape[3] for x in (source[layer], reference[layer])
        ]
        expected = expected - weight * (grams[0] - grams[1].detach().mean(0)).abs().mean((1, 2))
    by_view: Tensor = expected.view(2, -1)
    torch.testing.assert_close(step.scores, by_view.mean(1).detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        weight_gradient(run, step.loss), weight_gradient(run, -by_view.mean(1).sum()), rtol=0, atol=1e-10
    )


# What is asked for and refused


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_copies_go_on_where_the_original_was(copied: Callable[[Any], Any]) -> None:
    term = Style(["a", "b"], PICTURE, average=0.75)
    steps_of(term, 2, 2, 0, 2)
    twin = copied(term)
    assert repr(twin) == repr(term)
    np.testing.assert_array_equal(steps_of(twin, 2, 2, 2, 4), steps_of(term, 2, 2, 2, 4))
