"""Facet: the probe's share against numpy, whole runs against plain autograd, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from torch import Tensor, nn
from toys import adam

from featviz_pl import objectives
from featviz_pl.engine import ascend
from featviz_pl.objectives import Channel, Constant, Facet, Neuron, Observation, Setting, Source

SHAPES: dict[str, tuple[int, ...]] = {"map": (4, 3, 5), "tokens": (6, 4), "vector": (4,)}


def spread(weights: Tensor, shape: tuple[int, ...]) -> Any:
    """Give a weight for each unit to every position of a layer."""
    full = np.zeros(shape)
    for index in np.ndindex(*shape):
        full[index] = weights[index[1 if len(shape) == 2 else 0]] if weights.ndim == 1 else weights[index]
    return full


@pytest.mark.parametrize("whole", [False, True], ids=["a weight for each unit", "a weight for each activation"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("count", "views"), [(1, 1), (3, 1), (3, 4)])
def test_values_are_those_of_loops(count: int, views: int, kind: str, whole: bool) -> None:
    shapes = {"a": SHAPES[kind], "b": SHAPES["map"], "unit": (3,)}
    layers = {"a": numbers(*SHAPES[kind], seed=3) if whole else numbers(4, seed=3), "b": numbers(4, seed=4)}
    for strength in (2.0, [0.5, 1, 3][:count]):
        unit = Channel("unit", 1)
        term = Facet(unit, layers, strength)
        assert term.sources() == [
            Source("a"),
            Source("a", gradient_of=unit),
            Source("b"),
            Source("b", gradient_of=unit),
        ]
        seen = observed(term, shapes, count, views)
        expected = np.zeros((count, views))
        for layer in ("a", "b"):
            activation = seen.activations[Source(layer)].numpy()
            helping = np.maximum(seen.activations[Source(layer, gradient_of=unit)].numpy(), 0)
            weights = spread(layers[layer], shapes[layer])
            for n in range(count):
                for v in range(views):
                    share = (weights * activation[n, v] * helping[n, v]).sum()
                    expected[n, v] += (strength if isinstance(strength, float) else strength[n]) * share / 2
        np.testing.assert_allclose(term(seen).numpy(), expected, rtol=1e-11)


def test_the_gradient_is_the_probe_where_that_helps() -> None:
    term = Facet(Channel("unit", 0), {"a": [1.0, -2.0, 3.0]}, 4)
    own, helping = term.term_sources()
    activation, gradient = (
        numbers(1, 1, 3).requires_grad_(True),
        torch.tensor([[[0.5, 2.0, -1.0]]], dtype=torch.float64),
    )
    scores = term(Observation(pictures(1), {own: activation, helping: gradient}))
    (found,) = torch.autograd.grad(scores.sum(), activation)
    assert found.flatten().tolist() == [4 * 0.5, 4 * -4.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_activations_in_reduced_precision_are_scored_in_single_precision(dtype: torch.dtype) -> None:
    term = Facet(Channel("unit", 0), {"a": torch.ones(2)})
    own, helping = term.term_sources()
    large = torch.full((1, 1, 2, 8, 8), 512.0).to(dtype)
    scores = term(Observation(torch.zeros(1, 3, 8, 8), {own: large, helping: large}))
    assert (scores.dtype, scores.item()) == (torch.float32, 512.0 * 512 * 128)  # infinite in half precision


@pytest.mark.parametrize("seen_through", [None, moving], ids=["as it is", "views"])
def test_a_run_equals_plain_autograd(seen_through: Any) -> None:
    units, strengths = [2, 0], [0.5, 3.0]
    unit = Channel("4", units) + 0.5 * Neuron("3", 1, (2, 2))
    probes = {"1": numbers(4, seed=2), "2": numbers(5, 4, 4, seed=3)}
    made = bound(unit + Facet(unit, probes, strengths), pictures(2), None if seen_through is None else seen_through())
    result = made.step(3, 10)
    views = views_of(made, made.image(), 3, 10)
    own = run_parts(small(), views.flatten(0, 1))
    by_unit = own["4"].mean((2, 3)).view(2, -1, 3)
    scores = torch.stack([by_unit[0, :, 2], by_unit[1, :, 0]]) + 0.5 * own["3"][:, 1, 2, 2].view(2, -1)
    gradients = torch.autograd.grad(scores.sum(), [own["1"], own["2"]], retain_graph=True)
    expected = scores
    for layer, weights, gradient in zip(("1", "2"), (probes["1"][:, None, None], probes["2"]), gradients):
        share = (weights * own[layer] * gradient.relu()).sum((1, 2, 3)).view(2, -1)
        expected = expected + torch.tensor(strengths, dtype=torch.float64)[:, None] / 2 * share
    assert float((expected - scores).detach().abs().min()) > 1e-3
    torch.testing.assert_close(result.scores, expected.mean(1).detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        weight_gradient(made, result.loss), weight_gradient(made, -expected.mean(1).sum()), rtol=0, atol=1e-10
    )
    assert list(result.terms) == ["Channel.4", "Neuron.3", "Facet.1.2"]


def test_ascent_raises_the_score() -> None:
    unit = Channel("4", 1)
    made = bound(Facet(unit, {"1": [1.0, 0.5, 1.0, 2.0]}), pictures(2), moving(4))
    before = made.scores()
    assert bool((ascend(made, steps=8, optimizer=adam(0.03)) > before).all())


def test_the_probe_decides_what_is_shown() -> None:
    shares = []
    for probe in ([1.0, 0, 0, 0], [0, 0, 0, 1.0]):
        unit = Channel("4", 1)
        made = bound(unit + Facet(unit, {"1": probe}, 30), pictures(1))
        ascend(made, steps=10, optimizer=adam(0.05))
        mean = run_parts(small(), made.image())["1"].detach().mean((0, 2, 3))
        shares.append(float(mean[0] / mean.sum()))
    assert shares[0] > shares[1]


def test_pictures_do_not_know_each_other() -> None:
    start, units, strengths = pictures(3), [1, 2, 0], [0.5, 2.0, 1.0]

    def gradient(chosen: slice) -> Tensor:
        unit = Channel("4", units[chosen])
        made = bound(unit + Facet(unit, {"1": numbers(4)}, strengths[chosen]), start[chosen], moving())
        return weight_gradient(made, made.step(20, 100).loss)

    together = gradient(slice(None))
    for index in range(3):
        alone = gradient(slice(index, index + 1))
        assert float(alone.abs().max()) > 1e-6
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "weights", "message"),
    [
        (
            (4, 3, 5),
            (5,),
            r"layers: the weights for 'a' have shape \(5,\); they must be \(4,\), one for each unit, or \(4, 3, 5\)",
        ),
        ((4, 3, 5), (4, 5, 3), r"the weights for 'a' have shape \(4, 5, 3\); they must be \(4,\)"),
        ((6, 4), (6,), r"the weights for 'a' have shape \(6,\); they must be \(4,\), one for each unit, or \(6, 4\)"),
        ((4,), (4, 1), r"the weights for 'a' have shape \(4, 1\)"),
        ((), (1,), "'a' gives one number for each picture and has no units"),
    ],
)
def test_weights_that_do_not_fit_their_layer_are_refused(
    shape: tuple[int, ...], weights: tuple[int, ...], message: str
) -> None:
    term = Facet(Channel("unit", 1), {"a": torch.ones(weights)})
    with pytest.raises(ValueError, match=message):
        term.check(Setting(dict.fromkeys(term.sources(), shape) | {Source("unit"): (3,)}, 1, (3, 8, 8)))


def test_an_objective_that_cannot_work_is_refused_before_the_first_step() -> None:
    with pytest.raises(ValueError, match="unit: '4' has 3 units"):
        bound(Facet(Channel("4", 9), {"1": torch.ones(4)}), pictures(1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, {"a": [1.0]}), TypeError, "objective must be an Objective or a target"),
        ((Channel("b", 1), ["a"]), TypeError, "layers must give weights by the name of a layer, got list"),
        ((Channel("b", 1), {}), ValueError, "layers must hold at least one layer"),
        ((Channel("b", 1), {"a": "absent.pt"}), ValueError, r"layers\['a'\]: there is no file 'absent.pt'"),
        ((Channel("b", 1), {"a": [1.0, float("nan")]}), ValueError, r"layers\['a'\]"),
        ((Channel("b", 1), {"a": torch.ones(1, 1, 1, 1)}), ValueError, r"layers\['a'\] must have 1 or 2 or 3 axes"),
        ((Channel("b", 1), {"a": [1.0]}, []), ValueError, "strength must hold at least one number"),
        ((Channel("b", 1), {"a": [1.0]}, "5"), TypeError, "strength must be a number"),
        ((Channel("b", 1), {"a": [1.0]}, [1.0, float("inf")]), ValueError, "strength must be finite"),
    ],
)
def test_impossible_arguments_are_refused_where_they_are_given(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Facet(*arguments)


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


def test_formulas_and_configurations_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.ones(4, 2, 2), tmp_path / "probe.pt")
    unit = {"class_path": "Neuron", "init_args": {"layer": "b", "unit": 3}}
    for arguments, wanted in [
        ({"objective": unit, "layers": {"a": "probe.pt"}}, "Facet(Neuron('b', 3), {'a': 'probe.pt'})"),
        (
            {"objective": unit, "layers": {"a": [1, 0.5], "c.1": "probe.pt"}, "strength": [0.1, 5]},
            "Facet(Neuron('b', 3), {'a': [1.0, 0.5], 'c.1': 'probe.pt'}, strength=[0.1, 5])",
        ),
        (
            {"objective": unit, "layers": {"a": "probe.pt"}, "strength": 5},
            "Facet(Neuron('b', 3), {'a': 'probe.pt'}, strength=5)",
        ),
    ]:
        made = from_yaml({"class_path": "Facet", "init_args": arguments})
        assert repr(made) == wanted
        assert repr(eval(wanted, {name: getattr(objectives, name) for name in objectives.__all__})) == wanted
    assert tuple(made.weights_0.shape) == (4, 2, 2)
    assert repr(Facet(Channel("b", 1), {"a": torch.ones(99)})) != repr(Facet(Channel("b", 1), {"a": torch.zeros(99)}))


def test_a_layer_that_does_not_lead_to_the_objective_is_refused() -> None:
    unit = Constant(1.0) + Channel("0", 1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double()
    made = bound(unit + Facet(unit, {"1": torch.ones(4)}), pictures(1), network=network)
    with pytest.raises(
        ValueError, match=r"layer: '1' does not lead to 1 \+ Channel\('0', 1\); choose a layer before it"
    ):
        made.step(0, 10)
