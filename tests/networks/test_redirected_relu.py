"""The gradient rule for rectifiers that are off, by literal tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from featviz_pl.networks import redirected_relu

INF = float("inf")

# Name, function, lower bound, upper bound.
RECTIFIERS: list[tuple[str, Callable[[Tensor], Tensor], float, float]] = [
    ("nn.ReLU", nn.ReLU(), 0, INF),
    ("nn.ReLU in place", lambda x: nn.ReLU(inplace=True)(x * 1), 0, INF),
    ("functional.relu", functional.relu, 0, INF),
    ("functional.relu in place", lambda x: functional.relu(x * 1, inplace=True), 0, INF),
    ("functional.relu by keyword", lambda x: functional.relu(input=x), 0, INF),
    ("functional.relu_", lambda x: functional.relu_(x * 1), 0, INF),
    ("torch.relu", torch.relu, 0, INF),
    ("torch.relu_", lambda x: torch.relu_(x * 1), 0, INF),
    ("Tensor.relu", lambda x: x.relu(), 0, INF),
    ("Tensor.relu_", lambda x: (x * 1).relu_(), 0, INF),
    ("nn.ReLU6", nn.ReLU6(), 0, 6),
    ("nn.ReLU6 in place", lambda x: nn.ReLU6(inplace=True)(x * 1), 0, 6),
    ("functional.relu6", functional.relu6, 0, 6),
    ("nn.Hardtanh", nn.Hardtanh(), -1, 1),
    ("nn.Hardtanh with bounds", nn.Hardtanh(-2.0, 3.0), -2, 3),
    ("functional.hardtanh", functional.hardtanh, -1, 1),
    ("functional.hardtanh with bounds", lambda x: functional.hardtanh(x, -2.0, 3.0), -2, 3),
]
NAMES = [name for name, *_ in RECTIFIERS]


def derivative(
    rectifier: Callable[[Tensor], Tensor], values: list[float], gradients: list[float], redirected: bool
) -> list[float]:
    """Return d loss / d x, where each value is a sample of its own and `gradients` is d loss / d rectified."""
    x = torch.tensor(values).view(-1, 1).requires_grad_(True)
    if redirected:
        with redirected_relu():
            y = rectifier(x)
    else:
        y = rectifier(x)
    (gradient,) = torch.autograd.grad(y, x, torch.tensor(gradients).view(-1, 1))
    return [float(value) for value in gradient.flatten()]


@pytest.mark.parametrize(("name", "rectifier", "low", "high"), RECTIFIERS, ids=NAMES)
def test_the_rule(name: str, rectifier: Callable[[Tensor], Tensor], low: float, high: float) -> None:
    # A step goes against the gradient: below the lower bound -5 raises the input and is kept, +5 would lower it
    # further.
    below, inside = low - 0.5, low + 0.5
    assert derivative(rectifier, [below, below, inside, inside], [5, -5, 5, -5], redirected=True) == [0, -5, 5, -5]
    if high < INF:
        assert derivative(rectifier, [high + 0.5, high + 0.5], [5, -5], redirected=True) == [5, 0]


@pytest.mark.parametrize(("name", "rectifier", "low", "high"), RECTIFIERS, ids=NAMES)
def test_outside_the_context_gradients_are_ordinary(
    name: str, rectifier: Callable[[Tensor], Tensor], low: float, high: float
) -> None:
    with redirected_relu():
        rectifier(torch.zeros(1, 1))
    above = high + 0.5 if high < INF else low + 3
    passes = 0 if high < INF else -5
    assert derivative(rectifier, [low - 0.5, low + 0.5, above], [-5, -5, -5], redirected=False) == [0, -5, passes]


@pytest.mark.parametrize(("name", "rectifier", "low", "high"), RECTIFIERS, ids=NAMES)
def test_the_forward_pass_is_unchanged(
    name: str, rectifier: Callable[[Tensor], Tensor], low: float, high: float
) -> None:
    x = torch.linspace(-9, 9, 37).view(-1, 1)
    with redirected_relu():
        inside = rectifier(x)
    assert inside.flatten().tolist() == [min(max(value, low), high) for value in x.flatten().tolist()]


def test_only_samples_that_would_pass_nothing_are_redirected() -> None:
    x = torch.tensor([[-1.0, -1.0], [-1.0, 2.0], [0.0, 2.0]], requires_grad=True)  # the last two have a unit that is on
    with redirected_relu():
        y = torch.relu(x)
    (gradient,) = torch.autograd.grad(y, x, torch.full_like(y, -3.0))
    assert gradient.tolist() == [[-3.0, -3.0], [0.0, -3.0], [0.0, -3.0]]


@pytest.mark.parametrize(
    "overwrite",
    [torch.relu_, Tensor.relu_, functional.relu_, lambda x: functional.relu(x, inplace=True), nn.ReLU(inplace=True)],
    ids=["torch.relu_", "Tensor.relu_", "functional.relu_", "functional.relu", "nn.ReLU"],
)
def test_a_rectifier_in_place_writes_over_its_input(overwrite: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    with redirected_relu():
        y = x * 1
        overwrite(y)  # whoever goes on with y goes on with the rectified values
    assert y.tolist() == [[0.0, 2.0]]
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([[-3.0, 0.0]]))
    assert gradient.tolist() == [[-3.0, 0.0]]


def test_other_functions_are_left_alone() -> None:
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with redirected_relu():
        y = functional.leaky_relu(x, 0.5) + functional.silu(x) * 0 + x.clamp(min=0)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [0.5, 2.0]


def test_an_exception_inside_ends_the_context() -> None:
    with pytest.raises(KeyError), redirected_relu():
        raise KeyError
    assert derivative(torch.relu, [-1.0], [-5.0], redirected=False) == [0.0]
