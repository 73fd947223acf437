"""The latent of a generator: the map to [0, 1], and the generator as a guest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from guests import condition, require_same
from torch import Tensor, nn
from toys import adam, toy

from featviz_pl.engine import Ascent, ascend
from featviz_pl.images import GeneratorImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel


def painter(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Build a generator with a batch norm, in training mode: 6 x 2 latents to 3 x 4 x 5 pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        layers = nn.Flatten(), nn.Linear(12, 60), nn.BatchNorm1d(60), nn.Unflatten(1, (3, 4, 5))
        return nn.Sequential(*layers).train().to(dtype)


class Twice(nn.Module):
    """Return two pictures for each latent, or no tensor."""

    def __init__(self, tensor: bool) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, latent: Tensor) -> Tensor | list[Tensor]:
        pictures = torch.zeros(2 * len(latent), 3, 4, 4)
        return pictures if self.tensor else [pictures]


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0), (-3.0, 0.5)])
def test_the_generator_s_range_is_mapped_to_0_and_1_and_clipped(value_range: tuple[float, float]) -> None:
    generator = painter()
    image = GeneratorImage(generator, (6, 2), value_range=value_range, deviation=2.0)
    image.initialize(2, torch.Generator().manual_seed(0))
    weight = image.required_weight().detach()
    assert weight.shape == (2, 6, 2)
    linear: nn.Linear = generator[1]  # type: ignore[assignment]
    painted = weight.numpy().reshape(2, 12) @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    painted = painted / np.sqrt(1 + 1e-5)  # the batch norm in evaluation mode, as it was built
    expected = np.clip((painted - value_range[0]) / (value_range[1] - value_range[0]), 0, 1).reshape(2, 3, 4, 5)
    assert expected.min() == 0 or expected.max() == 1
    np.testing.assert_allclose(image().detach().numpy(), expected, atol=1e-5)


def test_a_run_leaves_the_generator_as_it_was() -> None:
    generator = painter()
    before = condition(generator)
    problem = Ascent(GeneratorImage(generator, (6, 2)), FrozenNetwork(toy()), Channel("features.5", [1, 2]))
    problem.initialize()
    problem.prepare()
    start = problem.scores()
    assert bool((ascend(problem, steps=10, optimizer=adam()) > start).all())
    require_same(before, condition(generator))
    assert [name for name, _ in problem.image.named_parameters()] == ["weight"]
    assert [name for name, _ in problem.image.named_modules()] == [""]


def test_the_weights_are_shared_and_double_precision_takes_a_copy() -> None:
    generator = painter()
    image = GeneratorImage(generator, (6, 2), count=1)
    linear, own = generator.get_submodule("1"), image.generator.get_submodule("1")
    assert isinstance(linear, nn.Linear)
    assert isinstance(own, nn.Linear)
    assert own.weight.data_ptr() == linear.weight.data_ptr()
    assert image.double()().dtype == torch.float64
    assert own.weight.dtype == torch.float64
    assert linear.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_generator_paints_in_the_image_s_precision(dtype: torch.dtype) -> None:
    image = GeneratorImage(painter(dtype), (6, 2), count=1)
    assert image().dtype == torch.float32


def test_a_generator_without_weights_will_do() -> None:
    image = GeneratorImage(nn.Unflatten(1, (3, 2, 2)), 12, size=2, channels=3, value_range=(0, 1), count=1)
    assert torch.equal(image().flatten(), image.required_weight().detach().flatten())
