"""Random operations draw from private generators the numbers that the global one would give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from featviz_pl.numerics.private_randomness import PrivateRandomness

MAPS = torch.linspace(0, 1, 4 * 3 * 8 * 8).view(4, 3, 8, 8)
WEIGHTS = torch.linspace(0.1, 1, 20).view(4, 5)
DRAWS: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(4, 3),
    "randn": lambda: torch.randn(40, dtype=torch.float64),
    "randint": lambda: torch.randint(9, (4, 3)),
    "randint with bounds": lambda: torch.randint(3, 9, (4, 3)),
    "randperm": lambda: torch.randperm(9),
    "rand_like": lambda: torch.rand_like(MAPS),
    "randn_like": lambda: torch.randn_like(MAPS),
    "randint_like": lambda: torch.randint_like(MAPS, 2, 5),
    "dropout": lambda: functional.dropout(MAPS, 0.5),
    "dropout2d": lambda: functional.dropout2d(MAPS, 0.5),
    "alpha_dropout": lambda: functional.alpha_dropout(MAPS, 0.5, True),
    "rrelu": lambda: functional.rrelu(MAPS - 0.5, training=True),
    "gumbel_softmax": lambda: functional.gumbel_softmax(WEIGHTS),
    "multinomial": lambda: torch.multinomial(WEIGHTS, 2),
    "bernoulli": lambda: torch.bernoulli(WEIGHTS),
    "normal": lambda: torch.normal(WEIGHTS, WEIGHTS),
    "poisson": lambda: torch.poisson(9 * WEIGHTS),
    "exponential_": lambda: torch.empty(4, 3).exponential_(),
    "initialization": lambda: nn.init.trunc_normal_(nn.Linear(9, 5).weight.detach()),
    "attention": lambda: functional.scaled_dot_product_attention(MAPS, MAPS, MAPS, dropout_p=0.5),
}


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_those_of_the_global_generator_which_stays(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        expected = DRAWS[name]()
        state = torch.get_rng_state()
        with PrivateRandomness(3) as randomness:
            assert torch.equal(DRAWS[name](), expected)
        assert torch.equal(torch.get_rng_state(), state)
    assert randomness.drew


@pytest.mark.parametrize("name", ["rand", "rand_like", "dropout", "bernoulli", "normal", "exponential_", "multinomial"])
def test_each_picture_draws_for_itself(name: str) -> None:
    def draw(*seeds: int) -> Tensor:
        with PrivateRandomness(0, seeds):
            return DRAWS[name]()

    first, second = draw(1, 2), draw(7, 2)
    assert torch.equal(first[2:], second[2:])
    assert not torch.equal(first[:2], second[:2])


def test_what_is_not_drawn_for_pictures_is_shared_and_generators_of_others_are_used() -> None:
    def draw(*seeds: int) -> Tensor:
        with PrivateRandomness(0, seeds):
            return torch.rand(3)

    assert torch.equal(draw(1, 2), draw(8, 9))
    with PrivateRandomness(0) as randomness:
        numbers = torch.rand(3, generator=torch.Generator().manual_seed(5))
        functional.scaled_dot_product_attention(MAPS, MAPS, MAPS)
        functional.dropout(MAPS, 0.5, training=False)
    assert torch.equal(numbers, torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert not randomness.drew
