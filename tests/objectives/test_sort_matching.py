"""SortMatching: sorted activations against numpy, whole runs, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from references import bound, moving, observed, pictures, run_parts, small, views_of, weight_gradient
from torch import Tensor

from featviz_pl.objectives import Observation, SortMatching

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
    observation = observed(term, {"a": SHAPES[kind], "b": SHAPES["map"]}, count, views)
    a, a_ref, b, b_ref = (observation.activations[source].numpy() for source in term.sources())
    assert a_ref.shape[:2] == (1, 3)
    expected = np.zeros((count, views))
    for activation, references, weight in ((a, a_ref, 2), (b, b_ref, 0.5)):
        target_values = np.mean([columns(reference) for reference in references[0]], axis=0)
        for n in range(count):
            for v in range(views):
                expected[n, v] -= weight * ((np.array(columns(activation[n, v])) - target_values) ** 2).mean()
    np.testing.assert_allclose(term(observation).numpy(), expected, rtol=1e-12)


def test_positions_do_not_matter_and_units_do() -> None:
    term = SortMatching("a", PICTURES[:1])
    source, expected = term.term_sources()
    reference = torch.arange(24.0).view(1, 1, 4, 2, 3)
    assert term(Observation(pictures(1), {source: reference.flip(3, 4), expected: reference})).item() == 0
    assert term(Observation(pictures(1), {source: reference.flip(2), expected: reference})).item() < -1


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
def test_a_run_equals_plain_autograd(seen_through: Any) -> None:
    images = pictures(4, seed=5)
    run = bound(SortMatching(["1", "2"], images, [1, 3]), pictures(2), None if seen_through is None else seen_through())
    step = run.step(3, 10)
    views = views_of(run, run.image(), 3, 10)
    source, reference = run_parts(small(), views.flatten(0, 1)), run_parts(small(), images)
    expected: Any = 0
    for layer, weight in (("1", 1), ("2", 3)):
        curves = [torch.sort(x.flatten(2), dim=2)[0] for x in (source[layer], reference[layer])]
        expected = expected - weight * (curves[0] - curves[1].detach().mean(0)).square().mean((1, 2))
    by_view: Tensor = expected.view(2, -1)
    torch.testing.assert_close(step.scores, by_view.mean(1).detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        weight_gradient(run, step.loss), weight_gradient(run, -by_view.mean(1).sum()), rtol=0, atol=1e-10
    )
