"""Ranges that transforms draw from: one number, a list to choose from, or any distribution of torch."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution, constraints

from featviz_pl.numerics.checks import finite_number

# What a user gives …
Range = float | Sequence[float] | Distribution
# … and what a transform keeps.
Checked = tuple[float, ...] | Distribution


def checked_range(
    argument: str, values: Range, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> Checked:
    """Return a range as a tuple of numbers or a distribution, or raise.

    The bounds are those of listed numbers. A distribution must be of single numbers, on the CPU.

    Raises:
        ValueError: when a number is out of bounds, a list is empty or a distribution does not fit.
        TypeError: when something is no number.

    Example:
        >>> checked_range("factors", 2), checked_range("factors", [0.9, 1.1])
        ((2.0,), (0.9, 1.1))
    """
    if isinstance(values, Distribution):
        shape = (*values.batch_shape, *values.event_shape)
        if shape:
            raise ValueError(
                f"{argument} must be a distribution of single numbers, got {described(values)} of shape {shape}"
            )
        if any(isinstance(held, Tensor) and held.device.type != "cpu" for held in vars(values).values()):
            raise ValueError(
                f"{argument} must draw on the CPU, got a {type(values).__name__} on another device; make it of plain numbers"
            )
        return values
    listed = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if not listed:
        raise ValueError(f"{argument} must hold at least one value")
    return tuple(finite_number(argument, value, least, above, most) for value in listed)


def draw(values: Checked, generator: torch.Generator, n: int) -> Tensor:
    """Draw n numbers (n,), in float32: uniformly from a list, or from the distribution.

    Distributions draw from the global generator. It is seeded by an integer from the given one, and left as it was
    found.

    Example:
        >>> uniform = torch.distributions.Uniform(2.0, 3.0)
        >>> bool((draw(uniform, torch.Generator().manual_seed(0), 4) > 2).all())
        True
    """
    if isinstance(values, tuple):
        return torch.tensor(values, dtype=torch.float32, device="cpu")[
            torch.randint(len(values), (n,), generator=generator)
        ]
    seed = int(draw_seeds(generator, 1))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        return values.sample((n,)).to(torch.float32)


def draw_seeds(generator: torch.Generator, n: int) -> Tensor:
    """Draw n seeds (n,), in int64, of 63 bits."""
    return torch.randint(2**63 - 1, (n,), generator=generator, dtype=torch.int64)


def extent(values: Checked) -> tuple[float, float]:
    """Return the smallest and the largest number of a range.

    Where a distribution has no end, or does not reach it, the smallest or largest of 1,000 draws with a fixed seed
    stands for it.

    Example:
        >>> extent((0.9, 1.1)), extent(torch.distributions.Uniform(1.0, 2.0))
        ((0.9, 1.1), (1.0, 2.0))
    """
    if isinstance(values, tuple):
        return min(values), max(values)
    lower, upper = _ends(values)
    if math.isfinite(lower) and math.isfinite(upper):
        return lower, upper
    drawn = draw(values, torch.Generator().manual_seed(0), 1000)
    return (lower if math.isfinite(lower) else float(drawn.min())), (
        upper if math.isfinite(upper) else float(drawn.max())
    )


def _ends(values: Distribution) -> tuple[float, float]:
    """Return the ends of the support that can be drawn, infinite where there are none."""
    try:
        support = values.support
    except NotImplementedError:
        support = constraints.real
    lower = -math.inf if isinstance(support, constraints.greater_than) else getattr(support, "lower_bound", -math.inf)
    upper = math.inf if isinstance(support, constraints.less_than) else getattr(support, "upper_bound", math.inf)
    return float(lower), float(upper)


def normal(mean: float, deviation: float) -> Distribution:
    """Return a normal distribution in float32, whatever the program's default precision and device."""
    return distributions.Normal(_number(mean), _number(deviation))


def uniform(low: float, high: float) -> Distribution:
    """Return a uniform distribution in float32, whatever the program's default precision and device."""
    return distributions.Uniform(_number(low), _number(high))


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def shown(values: Checked) -> str:
    """Return a range as its constructor, long lists shortened.

    Example:
        >>> shown((0.9, 1.0)), shown(torch.distributions.Normal(0.5, 0.15))
        ('[0.9, 1]', 'Normal(loc=0.5, scale=0.15)')
    """
    if isinstance(values, Distribution):
        return described(values)
    text = ", ".join(f"{value:g}" for value in (values if len(values) <= 8 else (*values[:3], *values[-3:])))
    return f"[{text}]" if len(values) <= 8 else f"[{text}; {len(values)} values]"


def described(value: Any) -> str:
    """Return the constructor of a distribution and of whatever it is made of; equal ones have equal texts."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(described, value))}]"
    if not isinstance(value, (Distribution, distributions.Transform)):
        return without_address(repr(value))
    names = [name for name in inspect.signature(type(value)).parameters if name not in ("validate_args", "cache_size")]
    if "probs" in names and "logits" in names:
        names.remove("logits")  # either says it all
    held = {name: getattr(value, "base_dist" if name == "base_distribution" else name, None) for name in names}
    return f"{type(value).__name__}({', '.join(f'{name}={described(part)}' for name, part in held.items())})"


def without_address(text: str) -> str:
    """Return a repr in one line without memory addresses, which would tell equal things apart."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
