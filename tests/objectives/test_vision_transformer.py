"""Objectives on a vision transformer with random weights: tokens are first-class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, vit_b_16
from toys import adam

from featviz_pl import render
from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import (
    Alignment,
    Channel,
    Direction,
    Diversity,
    Latent,
    Layer,
    Neuron,
    NeuronDirection,
    Objective,
    Similarity,
    WeightedChannels,
    parse_target,
)
from featviz_pl.transforms import Views

pytestmark = pytest.mark.slow

SIDE, FEATURES = 4, 24  # patches on a side of the picture
MLP = "encoder.layers.encoder_layer_1.mlp"
VECTOR = torch.randn(FEATURES, generator=torch.Generator().manual_seed(0))


def vision_transformer() -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        objective = VisionTransformer(
            image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=FEATURES, mlp_dim=32, num_classes=5
        )
        nn.init.normal_(objective.heads.head.weight, std=0.1)  # torchvision's are zeros
        return objective.eval()


def problem(objective: Objective, count: int | None = None, views: Views | None = None, double: bool = False) -> Ascent:
    image = PixelImage(32, count=count, color="none", deviation=0.3)
    run = Ascent(image, FrozenNetwork(vision_transformer(), mean=0.5, std=0.5), objective, seed=2, views=views)
    if double:
        image.double()
    run.initialize()
    run.prepare(dtype=torch.float64 if double else None)
    return run


def tokens(objective: Ascent) -> Tensor:
    """Run the first two blocks, and return the output of the second's MLP (pictures, tokens, features)."""
    network = vision_transformer()
    with torch.no_grad():
        x = network._process_input((objective.image().detach() - 0.5) / 0.5)
        x = torch.cat([network.class_token.expand(len(x), -1, -1), x], 1) + network.encoder.pos_embedding
        first, second = network.encoder.layers[0], network.encoder.layers[1]
        x = first(x)
        attended = second.ln_1(x)
        x = x + second.self_attention(attended, attended, attended, need_weights=False)[0]
        read: Tensor = second.mlp(second.ln_2(x))
    assert read.shape == (len(read), 1 + SIDE * SIDE, FEATURES)
    return read


VALUES: dict[str, tuple[Objective, Callable[[Tensor], Tensor]]] = {
    "channel": (parse_target(f"{MLP}:5"), lambda t: t[:, :, 5].mean(1)),
    "channel of patches": (Channel(MLP, 5, tokens="patches"), lambda t: t[:, 1:, 5].mean(1)),
    "channel of the class token": (Channel(MLP, 5, tokens="class"), lambda t: t[:, 0, 5]),
    "token": (parse_target(f"{MLP}:5@3"), lambda t: t[:, 3, 5]),
    "patch in the centre": (Neuron(MLP, 5, tokens="patches"), lambda t: t[:, 1 + 2 * SIDE + 2, 5]),
    "patch at row and column": (Neuron(MLP, 5, (1, 3), tokens="patches"), lambda t: t[:, 1 + SIDE + 3, 5]),
    "layer": (parse_target(MLP), lambda t: t.square().mean((1, 2))),
    "layer without registers": (Layer(MLP, tokens=4), lambda t: t[:, 4:].mean((1, 2))),
    "direction": (Direction(MLP, VECTOR, tokens="patches"), lambda t: (t[:, 1:] @ VECTOR).mean(1)),
    "direction at a token": (NeuronDirection(MLP, VECTOR, 0), lambda t: t[:, 0] @ VECTOR),
    "class token beside an embedding": (
        Similarity(MLP, VECTOR, tokens="class"),
        lambda t: t[:, 0] @ VECTOR / (t[:, 0].norm(dim=1) * VECTOR.norm()),
    ),
    "weighted": (
        WeightedChannels(MLP, {3: 2.0, 7: -1.0}, tokens="patches"),
        lambda t: (2 * t[:, 1:, 3] - t[:, 1:, 7]).mean(1),
    ),
    "latent": (Latent(MLP, VECTOR[None], 0), lambda t: (t @ VECTOR).mean(1)),
}


@pytest.mark.parametrize("name", VALUES)
def test_scores_are_those_of_the_tokens(name: str) -> None:
    objective, by_hand = VALUES[name]
    run = problem(objective)
    torch.testing.assert_close(run.scores(), by_hand(tokens(run)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", VALUES)
def test_ascent_raises_them(name: str) -> None:
    run = problem(VALUES[name][0], count=2)
    before = run.scores()
    assert bool((ascend(run, steps=4, optimizer=adam(0.02)) > before).all())


@pytest.mark.parametrize(
    "objective", [Diversity(MLP, tokens="patches"), Alignment(["encoder.layers.encoder_layer_0", MLP])], ids=repr
)
def test_joint_objectives_rise(objective: Objective) -> None:
    run = problem(objective, count=3)
    before = run.scores().sum()
    assert bool(ascend(run, steps=4, optimizer=adam(0.02)).sum() > before)


def test_a_large_transformer_renders() -> None:
    network: Any = FrozenNetwork(vit_b_16(weights=None), mean=0.5, std=0.5, size=224)
    result = render(network, "encoder.layers.encoder_layer_3.mlp:5", steps=2)
    assert result.images.shape == (1, 3, 224, 224)
    assert result.targets == ["encoder.layers.encoder_layer_3.mlp:5"]
