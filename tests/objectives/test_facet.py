"""Facet: the probe's share against numpy, whole runs against plain autograd, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
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
from toys import adam

from featviz_pl.engine import ascend
from featviz_pl.objectives import Channel, Facet, Neuron, Observation, Source

SHAPES: dict[str, tuple[int, ...]] = {"map": (4, 3, 5), "tokens": (6, 4), "vector": (4,)}


def spread(weights: Tensor, shape: tuple[int, ...]) -> Any:
    """Give a weight for each unit to every position of a layer."""
    full = np.zeros(shape)
    for index in np.ndindex(*shape):
        full[index] = weights[index[1 if len(shape) == 2 else 0]] if weights.ndim == 1 else weights[index]
    return full


@pytest.mark.parametrize("full", [False, True], ids=["a weight for each unit", "a weight for each activation"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("count", "views"), [(1, 1), (3, 1), (3, 4)])
def test_values_are_those_of_loops(count: int, views: int, kind: str, full: bool) -> None:
    shapes = {"a": SHAPES[kind], "b": SHAPES["map"], "unit": (3,)}
    layers = {"a": numbers(*SHAPES[kind], seed=3) if full else numbers(4, seed=3), "b": numbers(4, seed=4)}
    for strength in (2.0, [0.5, 1, 3][:count]):
        unit = Channel("unit", 1)
        term = Facet(unit, layers, strength)
        assert term.sources() == [
            Source("a"),
            Source("a", gradient_of=unit),
            Source("b"),
            Source("b", gradient_of=unit),
        ]
        observation = observed(term, shapes, count, views)
        expected = np.zeros((count, views))
        for layer in ("a", "b"):
            activation = observation.activations[Source(layer)].numpy()
            helping = np.maximum(observation.activations[Source(layer, gradient_of=unit)].numpy(), 0)
            weights = spread(layers[layer], shapes[layer])
            for n in range(count):
                for v in range(views):
                    share = (weights * activation[n, v] * helping[n, v]).sum()
                    expected[n, v] += (strength if isinstance(strength, float) else strength[n]) * share / 2
        np.testing.assert_allclose(term(observation).numpy(), expected, rtol=1e-11)


def test_the_gradient_is_the_probe_where_that_helps() -> None:
    term = Facet(Channel("unit", 0), {"a": [1.0, -2.0, 3.0]}, 4)
    source, helping = term.term_sources()
    activation, gradient = (
        numbers(1, 1, 3).requires_grad_(True),
        torch.tensor([[[0.5, 2.0, -1.0]]], dtype=torch.float64),
    )
    scores = term(Observation(pictures(1), {source: activation, helping: gradient}))
    (actual,) = torch.autograd.grad(scores.sum(), activation)
    assert actual.flatten().tolist() == [4 * 0.5, 4 * -4.0, 0.0]


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
def test_a_run_equals_plain_autograd(seen_through: Any) -> None:
    units, strengths = [2, 0], [0.5, 3.0]
    unit = Channel("4", units) + 0.5 * Neuron("3", 1, (2, 2))
    probes = {"1": numbers(4, seed=2), "2": numbers(5, 4, 4, seed=3)}
    run = bound(unit + Facet(unit, probes, strengths), pictures(2), None if seen_through is None else seen_through())
    result = run.step(3, 10)
    views = views_of(run, run.image(), 3, 10)
    source = run_parts(small(), views.flatten(0, 1))
    by_unit = source["4"].mean((2, 3)).view(2, -1, 3)
    scores = torch.stack([by_unit[0, :, 2], by_unit[1, :, 0]]) + 0.5 * source["3"][:, 1, 2, 2].view(2, -1)
    gradients = torch.autograd.grad(scores.sum(), [source["1"], source["2"]], retain_graph=True)
    expected = scores
    for layer, weights, gradient in zip(("1", "2"), (probes["1"][:, None, None], probes["2"]), gradients):
        share = (weights * source[layer] * gradient.relu()).sum((1, 2, 3)).view(2, -1)
        expected = expected + torch.tensor(strengths, dtype=torch.float64)[:, None] / 2 * share
    assert float((expected - scores).detach().abs().min()) > 1e-3
    torch.testing.assert_close(result.scores, expected.mean(1).detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        weight_gradient(run, result.loss), weight_gradient(run, -expected.mean(1).sum()), rtol=0, atol=1e-10
    )
    assert list(result.terms) == ["Channel.4", "Neuron.3", "Facet.1.2"]


def test_the_probe_decides_what_is_shown() -> None:
    shares = []
    for probe in ([1.0, 0, 0, 0], [0, 0, 0, 1.0]):
        unit = Channel("4", 1)
        run = bound(unit + Facet(unit, {"1": probe}, 30), pictures(1))
        ascend(run, steps=10, optimizer=adam(0.05))
        mean = run_parts(small(), run.image())["1"].detach().mean((0, 2, 3))
        shares.append(float(mean[0] / mean.sum()))
    assert shares[0] > shares[1]


def test_numbers_of_pictures_and_targets() -> None:
    assert Facet(Channel("b", 1), {"a": [1.0]}).count() is None
    assert Facet(Channel("b", 1), {"a": [1.0]}, [0.1, 5]).count() == 2
    assert Facet(Channel("b", [1, 2, 3]), {"a": [1.0]}).count() == 3
    with pytest.raises(ValueError, match="different numbers of pictures"):
        Facet(Channel("b", [1, 2, 3]), {"a": [1.0]}, [0.1, 5]).count()
    unit = Neuron("b", [1, 2])
    assert (unit + Facet(unit, {"a": [1.0]}, [0.1, 5])).targets(2) == ["b:1@", "b:2@"]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)
def test_copies_score_the_same(copied: Callable[[Any], Any]) -> None:
    unit = Channel("unit", 1)
    objective = unit + Facet(unit, {"a": numbers(4).float()}, [1, 2])
    twin = copied(objective)
    assert repr(twin) == repr(objective)
    assert not twin.state_dict()
    assert twin.terms()[1].objective is twin.terms()[0]  # so its gradients are still asked for once
    shapes = {"a": (4, 3, 3), "unit": (3,)}
    expected = objective(observed(objective, shapes, 2, 3))
    assert torch.equal(twin(observed(twin, shapes, 2, 3)), expected)
    assert objective.half().terms()[1].weights_0.dtype == torch.float32
