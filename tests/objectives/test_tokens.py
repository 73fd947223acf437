"""Tokens of a transformer's layer: which of them count, and where a neuron sits among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from featviz_pl.objectives import (
    Channel,
    DeepDream,
    Direction,
    Diversity,
    Latent,
    Layer,
    Neuron,
    NeuronDirection,
    Objective,
    Observation,
    Setting,
    Similarity,
    Source,
    WeightedChannels,
)

TOKENS, UNITS = 10, 4  # a class token and nine patches, three by three
VALUES = np.random.default_rng(0).normal(size=(2, 3, TOKENS, UNITS))
CHOICES: dict[str, tuple[Any, slice]] = {
    "all": ("all", slice(None)),
    "patches": ("patches", slice(1, None)),
    "class": ("class", slice(0, 1)),
    "without four": (4, slice(4, None)),
}
TERMS: dict[str, Callable[..., Objective]] = {
    "Layer": lambda **more: Layer("layer", **more),
    "DeepDream": lambda **more: DeepDream("layer", **more),
    "Channel": lambda **more: Channel("layer", 2, **more),
    "Channel of each": lambda **more: Channel("layer", [3, 1], **more),
    "Neuron": lambda **more: Neuron("layer", 2, 0, **more),
    "Direction": lambda **more: Direction("layer", [1.0, -2, 3, 0.5], power=2, **more),
    "NeuronDirection": lambda **more: NeuronDirection("layer", [1.0, -2, 3, 0.5], 0, **more),
    "Similarity": lambda **more: Similarity("layer", [1.0, -2, 3, 0.5], **more),
    "WeightedChannels": lambda **more: WeightedChannels("layer", {1: 2.0}, **more),
    "Latent": lambda **more: Latent("layer", [[1.0, -2, 3, 0.5]], 0, **more),
    "Diversity": lambda **more: Diversity("layer", **more),
}


def seen(values: Any = VALUES) -> Observation:
    return Observation(torch.zeros(len(values), 3, 4, 4), {Source("layer"): torch.as_tensor(values)})


def setting(*shape: int, count: int = 2) -> Setting:
    return Setting({Source("layer"): shape}, count, (3, 32, 32))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", TERMS)
def test_only_the_chosen_tokens_count(name: str, choice: str) -> None:
    tokens, part = CHOICES[choice]
    selected = TERMS[name](tokens=tokens)
    assert torch.equal(selected(seen()), TERMS[name]()(seen(VALUES[:, :, part])))
    selected.check(setting(TOKENS, UNITS))
    without = VALUES.copy()
    without[:, :, part] = 0
    assert bool((selected(seen(without)) != selected(seen())).any())


@pytest.mark.parametrize("name", TERMS)
def test_the_formula_and_the_target_say_which(name: str) -> None:
    assert "tokens" not in repr(TERMS[name]())
    for tokens in ("patches", "class", 4):
        assert repr(TERMS[name](tokens=tokens)).endswith(f", tokens={tokens!r})")
    names = [TERMS[name](tokens=tokens).targets(2)[0] for tokens in ("all", "patches", "class", 4)]
    assert len(set(names)) == 4


def test_targets_in_words() -> None:
    assert Channel("ln", 5, tokens="patches").targets(1) == ["ln[patches]:5"]
    assert Layer("ln", tokens=5).targets(1) == ["ln[from 5]"]
    assert Neuron("ln", 5, tokens="class").targets(1) == ["ln[class]:5@"]


@pytest.mark.parametrize(
    ("tokens", "position", "index"),
    [
        ("all", None, 5),  # 10 // 2
        ("all", 0, 0),
        ("patches", 0, 1),  # counted within the chosen ones
        ("patches", 8, 9),
        ("patches", None, 1 + 4),  # the middle of three by three
        ("patches", (0, 2), 1 + 2),
        ("patches", (2, 1), 1 + 7),
        ("class", None, 0),
        ("class", 0, 0),
        (6, None, 6 + 3),  # two by two: lower right of the middle four
        (6, (1, 0), 6 + 2),
        (4, None, 4 + 3),  # six are no square
        (2, 7, 9),
    ],
)
def test_a_neuron_is_counted_within_the_chosen_tokens(tokens: Any, position: Any, index: int) -> None:
    for objective, expected in (
        (Neuron("layer", 2, position, tokens=tokens), VALUES[:, :, index, 2]),
        (NeuronDirection("layer", [0, 0, 2, 0], position, tokens=tokens), 2 * VALUES[:, :, index, 2]),
    ):
        objective.check(setting(TOKENS, UNITS))
        np.testing.assert_allclose(objective(seen()).numpy(), expected, rtol=1e-12)


def test_the_centre_of_even_patches_is_where_it_is_on_maps() -> None:
    side = 14
    patches = torch.arange(float(side * side)).view(1, 1, side * side, 1)
    tokens = torch.cat([torch.zeros(1, 1, 1, 1), patches], 2)
    as_map = patches.view(1, 1, 1, side, side)
    assert (
        Neuron("layer", 0, tokens="patches")(seen(tokens)).item()
        == Neuron("layer", 0)(seen(as_map)).item()
        == 7 * 14 + 7
    )


def test_similarity_of_the_class_token_is_a_cosine() -> None:
    source = VALUES[0, 0, 0]
    vector = [1.0, -2.0, 3.0, 0.5]
    expected = float(source @ np.array(vector)) / math.sqrt(float(source @ source) * (1 + 4 + 9 + 0.25))
    assert Similarity("layer", vector, tokens="class")(seen())[0, 0].item() == pytest.approx(expected, rel=1e-12)
