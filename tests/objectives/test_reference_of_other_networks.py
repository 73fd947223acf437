"""Objectives that compare with references, or need gradients, in several networks at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from references import bound, moving, numbers, pictures, small, weight_gradient

from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import (
    Across,
    Caricature,
    Channel,
    Facet,
    Inversion,
    Objective,
    SortMatching,
    StayNear,
    Style,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "make",
    [
        lambda: Facet(Channel("4", [1, 2]), {"1": numbers(4), "2": numbers(5)}),
        lambda: Caricature("2", pictures(1, seed=5), power=1, attribution=Channel("4", [1, 2])),
        lambda: Inversion("2", pictures(2, seed=5), through_views=False),
        lambda: Style(["1", "2"], pictures(2, size=17, seed=5), average=0.5),
        lambda: SortMatching("2", pictures(2, seed=5)),
        lambda: StayNear(pictures(2, seed=5), "2", balance=Channel("4", [1, 2])),
    ],
    ids=["Facet", "Caricature", "Inversion", "Style", "SortMatching", "StayNear"],
)
def test_several_networks_give_the_mean_of_each_alone(make: Callable[[], Objective]) -> None:
    first_network, second_network = small(), FrozenNetwork(small(seed=9))
    gradients = []
    for objective, network in (
        (Across(make(), [None, second_network]), first_network),
        (make(), first_network),
        (make(), second_network.module),
    ):
        run = bound(objective, pictures(2), moving(), network)
        run.view_keys = [1, 2]  # what a run with other targets draws
        run.step(0, 10)
        gradients.append(weight_gradient(run, run.step(1, 10).loss))
    assert float((gradients[1] - gradients[2]).abs().max()) > 1e-6
    torch.testing.assert_close(gradients[0], (gradients[1] + gradients[2]) / 2, rtol=0, atol=1e-10)
