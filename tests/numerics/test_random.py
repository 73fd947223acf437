from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch

from featviz_pl.numerics.random import Key, generator_for, mix


def splitmix_chain(*keys: int) -> int:
    """The published finaliser of splitmix64 (Steele, Lea, Flood 2014), in numpy's own 64-bit arithmetic."""
    state = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for key in keys:
            state = state ^ np.uint64(key)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return int(state >> np.uint64(1))


def test_one_zero_gives_the_published_first_output_of_splitmix64() -> None:
    # The first number of splitmix64 seeded with 0, as listed with its reference implementations.
    assert mix(0) == 0xE220A8397B1DCDAF >> 1


@pytest.mark.parametrize("keys", [(), (0,), (1, 2, 3), (3, 2, 1), (2**63,), (2**64 - 1, 5), (123456789, 0, 0, 7)])
def test_mix_is_a_chain_of_splitmix64_finalisers(keys: tuple[int, ...]) -> None:
    assert mix(*keys) == splitmix_chain(*keys)


def test_negative_keys_enter_as_two_s_complement() -> None:
    assert mix(-1) == splitmix_chain(2**64 - 1)
    assert mix(-7, 4) == splitmix_chain(2**64 - 7, 4)


def test_texts_enter_as_the_first_eight_bytes_of_their_digest() -> None:
    def number(text: str) -> int:
        return int(np.frombuffer(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), dtype="<u8")[0])

    assert mix("views") == splitmix_chain(number("views"))
    assert mix(3, "größe", 5) == splitmix_chain(3, number("größe"), 5)


@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        ((1, 2), (2, 1)),
        (("a", "b"), ("b", "a")),
        (("ab",), ("a", "b")),
        ((1,), (1, 0)),
        ((0,), ("0",)),
        ((), (0,)),
        (("",), ()),
    ],
)
def test_order_number_and_kind_of_keys_matter(keys: tuple[Key, ...], changed: tuple[Key, ...]) -> None:
    assert mix(*keys) != mix(*changed)


def test_seeds_fit_a_generator_and_neighbouring_keys_share_nothing() -> None:
    seeds = [mix(seed, "views", step, picture) for seed in range(8) for step in range(16) for picture in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # A change of one key turns about half of the 63 bits: 1,024 neighbours average 31.5 with a deviation of the mean of
    # 0.12.
    turned = [(first ^ second).bit_count() for first, second in pairwise(seeds)]
    assert abs(float(np.mean(turned)) - 31.5) < 0.75


def test_equal_keys_give_equal_draws_and_others_do_not() -> None:
    drawn = torch.rand(8, generator=generator_for(0, "views", 1))
    torch.testing.assert_close(torch.rand(8, generator=generator_for(0, "views", 1)), drawn, rtol=0, atol=0)
    assert not torch.equal(torch.rand(8, generator=generator_for(0, "views", 2)), drawn)


def test_global_generators_are_neither_read_nor_changed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = torch.rand(4, generator=generator_for("x"))
        torch.default_generator.manual_seed(2)
        before = torch.get_rng_state()
        torch.testing.assert_close(torch.rand(4, generator=generator_for("x")), first, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), before)
