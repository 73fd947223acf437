"""Ranges that transforms draw from: a number, a pair (low, high), a `Choice` of listed numbers, or a distribution."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution, constraints

from featviz_pl.numerics.checks import finite_number, whole_number


class Choice:
    """Draw one of the listed numbers, each with the same probability; a number that is listed twice is twice as likely.

    Args:
        values: one or more finite numbers.

    Raises:
        ValueError: when the list is empty or a number is not finite.
        TypeError: when `values` is no list of numbers.

    Example:
        >>> Choice([0.9, 1.0, 1.0]), len(Choice(range(-10, 11)).values)
        (Choice([0.9, 1, 1]), 21)
    """

    def __init__(self, values: Sequence[float]) -> None:
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"values must be a list of numbers, got {values!r}")
        self.values = tuple(finite_number("values", value) for value in values)
        if not self.values:
            raise ValueError("values must hold at least one number")

    def __repr__(self) -> str:
        """Return the constructor, with long lists shortened."""
        numbers = self.values if len(self.values) <= 8 else (*self.values[:3], *self.values[-3:])
        text = ", ".join(f"{number:g}" for number in numbers)
        return f"Choice([{text}])" if len(self.values) <= 8 else f"Choice([{text}; {len(self.values)} values])"

    def __eq__(self, choice: object) -> bool:
        """Compare the numbers."""
        return isinstance(choice, Choice) and self.values == choice.values

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash(self.values)


class WholeNumbers(NamedTuple):
    """All whole numbers from `low` to `high`, each with the same probability."""

    low: int
    high: int


# What a user passes …
Pair = Sequence[float]
Range = float | Pair | Choice | Distribution
WholeRange = int | Sequence[int] | Choice | Distribution
# … and what a transform draws from.
Source = WholeNumbers | Choice | Distribution


def parse_range(
    argument: str,
    values: Range,
    *,
    symmetric: bool = False,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> Source:
    """Return what to draw from: a pair (low, high) is uniform; a number x is always x, or uniform in (-x, x).

    Args:
        argument: name of the argument, for messages.
        values: a number, a pair, a `Choice` or a distribution of single numbers on the CPU.
        symmetric: a number x stands for the pair (-x, x), as in torchvision's ``RandomRotation``; otherwise for x
            itself, as in torchvision's ``GaussianBlur``.
        least: smallest number that a user may list; distributions are not bounded.
        above: every listed number is greater.
        most: greatest number that a user may list.

    Raises:
        ValueError: when a number is out of bounds, a list is no pair, or a distribution does not fit.
        TypeError: when something is no number.

    Example:
        >>> parse_range("degrees", 10, symmetric=True), parse_range("sigma", 2), parse_range("side", (0.25, 0.5))
        (Uniform(low: -10.0, high: 10.0), Choice([2]), Uniform(low: 0.25, high: 0.5))
    """
    if isinstance(values, Distribution):
        return _checked_distribution(argument, values)
    if isinstance(values, Choice):
        for value in values.values:
            finite_number(argument, value, least, above, most)
        return values
    if is_list(values):
        low, high = _pair(argument, [finite_number(argument, value, least, above, most) for value in values])
    elif symmetric:
        high = finite_number(argument, values, least=0.0)
        low = -high
    else:
        low = high = finite_number(argument, values, least, above, most)
    return uniform(low, high) if low < high else Choice([high])


def parse_whole_range(argument: str, values: WholeRange) -> Source:
    """Return what to draw from: a whole number n stands for all from -n to n, a pair for all from low to high.

    Raises:
        ValueError: when a number is negative or a list is no pair.
        TypeError: when a number is not whole.

    Example:
        >>> parse_whole_range("pixels", 3), parse_whole_range("pixels", (0, 2))
        (WholeNumbers(low=-3, high=3), WholeNumbers(low=0, high=2))
    """
    if isinstance(values, (Choice, Distribution)):
        return parse_range(argument, values)
    if not is_list(values):
        largest = whole_number(argument, values, least=0)
        return WholeNumbers(-largest, largest)
    low, high = _pair(argument, [finite_number(argument, value) for value in values])
    if not (low.is_integer() and high.is_integer()):
        raise ValueError(
            f"{argument} must be whole numbers, got ({low:g}, {high:g}); torch.distributions.Uniform draws fractions"
        )
    return WholeNumbers(int(low), int(high))


def is_list(values: object) -> TypeGuard[Sequence[Any]]:
    """Return whether something lists values."""
    return isinstance(values, Sequence) and not isinstance(values, str)


def _pair(argument: str, numbers: Sequence[float]) -> tuple[float, float]:
    if len(numbers) != 2:
        raise ValueError(
            f"{argument} must be a number or a pair (low, high), got a list of {len(numbers)}; "
            "Choice([...]) draws one of the listed numbers"
        )
    low, high = numbers
    if low > high:
        raise ValueError(f"{argument} must be a pair (low, high), got ({low:g}, {high:g})")
    return low, high


def _checked_distribution(argument: str, distribution: Distribution) -> Distribution:
    if shape := (*distribution.batch_shape, *distribution.event_shape):
        raise ValueError(
            f"{argument} must be a distribution of single numbers, got {describe(distribution)} of shape {shape}"
        )
    if any(
        isinstance(parameter, Tensor) and parameter.device.type != "cpu" for parameter in vars(distribution).values()
    ):
        raise ValueError(f"{argument} must draw on the CPU, got a {type(distribution).__name__} of another device")
    return distribution


def draw(source: Source, generator: torch.Generator, n: int) -> Tensor:
    """Draw n numbers (n,), in float32.

    Distributions draw from the global generator. It is seeded by an integer from `generator`, and restored afterwards.

    Example:
        >>> bool((draw(uniform(2.0, 3.0), torch.Generator().manual_seed(0), 4) > 2).all())
        True
    """
    if isinstance(source, WholeNumbers):
        return torch.randint(source.low, source.high + 1, (n,), generator=generator).to(torch.float32)
    if isinstance(source, Choice):
        values = torch.tensor(source.values, dtype=torch.float32, device="cpu")
        return values[torch.randint(len(values), (n,), generator=generator)]
    seed = int(draw_seeds(generator, 1))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, too
        return source.sample((n,)).to(torch.float32)


def draw_seeds(generator: torch.Generator, n: int) -> Tensor:
    """Draw n seeds (n,), in int64, of 63 bits."""
    return torch.randint(2**63 - 1, (n,), generator=generator, dtype=torch.int64)


def extent(source: Source) -> tuple[float, float]:
    """Return the smallest and the largest number of a range.

    Where the support of a distribution is unbounded or open at its end, the smallest or largest of 1,000 draws with a
    fixed seed is returned instead.

    Example:
        >>> extent(Choice([0.9, 1.1])), extent(torch.distributions.Uniform(1.0, 2.0))
        ((0.9, 1.1), (1.0, 2.0))
    """
    if isinstance(source, (WholeNumbers, Choice)):
        values = source.values if isinstance(source, Choice) else source
        return min(values), max(values)
    lower, upper = _support(source)
    if math.isfinite(lower) and math.isfinite(upper):
        return lower, upper
    sample = draw(source, torch.Generator().manual_seed(0), 1000)
    return (lower if math.isfinite(lower) else float(sample.min())), (
        upper if math.isfinite(upper) else float(sample.max())
    )


def _support(distribution: Distribution) -> tuple[float, float]:
    """Return the ends of the support that can be drawn, infinite where there are none."""
    try:
        support = distribution.support
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


def describe(value: Any) -> str:
    """Return the constructor of a range, a distribution or whatever it is made of; equal ones have equal texts.

    Example:
        >>> describe(WholeNumbers(-4, 4)), describe(torch.distributions.Normal(0.5, 0.15))
        ('4', 'Normal(loc=0.5, scale=0.15)')
    """
    if isinstance(value, WholeNumbers):
        return f"{value.high}" if value.low == -value.high else f"({value.low}, {value.high})"
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    if not isinstance(value, (Distribution, distributions.Transform)):
        return without_address(repr(value))
    names = [name for name in inspect.signature(type(value)).parameters if name not in ("validate_args", "cache_size")]
    if "probs" in names and "logits" in names:
        names.remove("logits")  # either determines the distribution
    arguments = {name: getattr(value, "base_dist" if name == "base_distribution" else name, None) for name in names}
    return f"{type(value).__name__}({', '.join(f'{name}={describe(part)}' for name, part in arguments.items())})"


def without_address(text: str) -> str:
    """Return a repr in one line without memory addresses, which would tell equal things apart."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
