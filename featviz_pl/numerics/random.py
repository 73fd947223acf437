"""Stateless random numbers: every draw has its own generator, and no global one is used."""

from __future__ import annotations

import hashlib

import torch

Key = int | str
_MASK = (1 << 64) - 1


def mix(*keys: Key) -> int:
    """Mix integers and texts into one seed of 63 bits.

    A chain of splitmix64 finalisers; a text enters as the first eight bytes of its BLAKE2b digest. The result depends
    on the order of the keys and is the same on every machine and in every process.

    Args:
        keys: that identify the draw, such as ``(seed, "views", step, picture, view)``.

    Example:
        >>> mix(0, "views", 7) == mix(0, "views", 7), mix(0, "views", 7) == mix(0, "views", 8)
        (True, False)

    Reference:
        Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014
    """
    state = 0x9E3779B97F4A7C15
    for key in keys:
        number = (
            int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
            if isinstance(key, str)
            else key
        )
        state ^= number & _MASK
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        state ^= state >> 27
        state = (state * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1  # 63 bits: what Generator.manual_seed accepts


def generator_for(*keys: Key) -> torch.Generator:
    """Return a CPU generator seeded by `mix` of the keys.

    Example:
        >>> torch.rand(2, generator=generator_for(0, "image")).shape
        torch.Size([2])
    """
    return torch.Generator().manual_seed(mix(*keys))
