"""The algebra: values, formulas, and operands that stay as they were."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch

from featviz_pl import objectives
from featviz_pl.objectives import (
    L1,
    L2,
    Channel,
    Constant,
    Layer,
    Objective,
    Observation,
    Power,
    Product,
    Quotient,
    Source,
    Sum,
    TotalVariation,
)

A, B = 3.0, 5.0  # what the two layers give
SEEN = Observation(
    torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(2, -1, -1, -1),
    {
        Source("a"): torch.full((2, 3, 1, 4), A, dtype=torch.float64),
        Source("b"): torch.full((2, 3, 1, 4), B, dtype=torch.float64),
    },
)
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
# The other operand: what it is, what it is worth, and how it is written.
OTHERS: list[tuple[Any, float, str]] = [
    (Layer("b"), B, "Layer('b')"),
    (2, 2.0, "2"),
    (0.25, 0.25, "0.25"),
    (1e-4, 1e-4, "0.0001"),
]


def value(objective: Objective) -> float:
    scores = objective(SEEN).expand(2, 3)
    assert bool((scores == scores[0, 0]).all())
    return float(scores[0, 0])


def read_back(formula: str) -> Objective:
    """Evaluate a formula as a user would who pastes it."""
    objective = eval(formula, {name: getattr(objectives, name) for name in objectives.__all__})
    return objective if isinstance(objective, Objective) else Constant(objective)


@pytest.mark.parametrize("symbol", OPERATIONS)
@pytest.mark.parametrize(("second", "worth", "written"), OTHERS, ids=[written for *_, written in OTHERS])
def test_both_orders_have_the_value_and_the_formula(symbol: str, second: Any, worth: float, written: str) -> None:
    operation, layer = OPERATIONS[symbol], Layer("a")
    for objective, expected, formula in (
        (operation(layer, second), operation(A, worth), f"Layer('a') {symbol} {written}"),
        (operation(second, layer), operation(worth, A), f"{written} {symbol} Layer('a')"),
    ):
        assert isinstance(objective, Objective)
        assert value(objective) == pytest.approx(expected, rel=1e-12)
        assert repr(objective) == formula
    assert (repr(layer), value(layer)) == ("Layer('a')", A)
    assert not isinstance(second, Objective) or (repr(second), value(second)) == (written, worth)


def test_negation() -> None:
    layer = Layer("a")
    assert (value(-layer), repr(-layer)) == (-A, "-Layer('a')")
    assert value(operator.neg(-layer)) == A
    assert repr(layer) == "Layer('a')"


def a() -> Layer:
    return Layer("a")


def b() -> Layer:
    return Layer("b")


TREES: list[tuple[Callable[[], Objective], float, str]] = [
    (lambda: a() - 2 * b(), A - 2 * B, "Layer('a') - 2 * Layer('b')"),
    (lambda: a() - (b() - 1), A - (B - 1), "Layer('a') - (Layer('b') - 1)"),
    (lambda: -(a() + b()), -(A + B), "-(Layer('a') + Layer('b'))"),
    (lambda: 2 * (a() + b()) * 3, 2 * (A + B) * 3, "2 * (Layer('a') + Layer('b')) * 3"),
    (lambda: a() / (2 * b()), A / (2 * B), "Layer('a') / (2 * Layer('b'))"),
    (lambda: a() / (b() / 2), A / (B / 2), "Layer('a') / (Layer('b') / 2)"),
    (lambda: (a() + 1) / (b() - 1), (A + 1) / (B - 1), "(Layer('a') + 1) / (Layer('b') - 1)"),
    (lambda: -(2 * a()), -2 * A, "-2 * Layer('a')"),
    (lambda: 2 * (3 * a()), 6 * A, "6 * Layer('a')"),
    (lambda: a() + -2, A - 2, "Layer('a') - 2"),
    (lambda: a() - -2, A + 2, "Layer('a') - -2"),
    (lambda: -2 - a(), -2 - A, "-2 - Layer('a')"),
    (lambda: a() * a() - a() / a(), A * A - 1, "Layer('a') * Layer('a') - Layer('a') / Layer('a')"),
    (lambda: 1 / a() - -a() * b(), 1 / A + A * B, "1 / Layer('a') - -Layer('a') * Layer('b')"),
    (lambda: a() * -3 + 0.1 * -b(), -3 * A - 0.1 * B, "Layer('a') * -3 - 0.1 * Layer('b')"),
    (lambda: a() + 0.123456789, A + 0.123456789, "Layer('a') + 0.123456789"),
    (lambda: 1234567 * a(), 1234567 * A, "1234567.0 * Layer('a')"),
    (lambda: a() ** 2, A**2, "Layer('a') ** 2"),
    (lambda: a() ** 0.5, A**0.5, "Layer('a') ** 0.5"),
    (lambda: a() ** -1, 1 / A, "Layer('a') ** -1"),
    (lambda: -(a() ** 2), -(A**2), "-Layer('a') ** 2"),
    (lambda: (-a()) ** 2, A**2, "(-Layer('a')) ** 2"),
    (lambda: (a() + b()) ** 3, (A + B) ** 3, "(Layer('a') + Layer('b')) ** 3"),
    (lambda: (2 * a()) ** 2, 4 * A**2, "(2 * Layer('a')) ** 2"),
    (lambda: 2 * a() ** 2, 2 * A**2, "2 * Layer('a') ** 2"),
    (lambda: (a() / b()) ** 2, (A / B) ** 2, "(Layer('a') / Layer('b')) ** 2"),
    (lambda: a() / b() ** 2, A / B**2, "Layer('a') / Layer('b') ** 2"),
    (lambda: (a() / b()) / b() ** 2, A / B / B**2, "Layer('a') / Layer('b') / Layer('b') ** 2"),
    (lambda: (a() ** 2) ** 3, A**6, "(Layer('a') ** 2) ** 3"),
    (lambda: b() - a() ** 2, B - A**2, "Layer('b') - Layer('a') ** 2"),
    (lambda: Power(Constant(-2), 2) * a(), 4 * A, "(-2) ** 2 * Layer('a')"),
]


@pytest.mark.parametrize(("make", "expected", "formula"), TREES, ids=[formula for *_, formula in TREES])
def test_larger_trees_have_the_value_and_a_formula_that_builds_them(
    make: Callable[[], Objective], expected: float, formula: str
) -> None:
    tree = make()
    assert value(tree) == pytest.approx(expected, rel=1e-12)
    assert repr(tree) == formula
    assert value(read_back(repr(tree))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("number", [1 / 3, 1e-7, 123456789.125, 0.1 + 0.2])
def test_numbers_are_written_exactly(number: float) -> None:
    assert value(read_back(repr(Layer("a") * number))) == A * number


def test_sums_inside_sums_are_flattened() -> None:
    first, second, third = a(), b(), TotalVariation()
    left = first + second
    for objective in ((left + third), (first + (second + third)), Sum([left, third])):
        assert isinstance(objective, Sum)
        assert objective.children_objectives() == [first, second, third]
    assert left.children_objectives() == [first, second]  # as it was
    assert sum([first, second, third]).terms() == [first, second, third]  # type: ignore[union-attr]


def test_the_same_objective_may_stand_twice() -> None:
    layer = a()
    assert value(layer + layer) == 2 * A
    assert value(layer * layer) == A * A


def test_nodes_can_be_built_by_hand() -> None:
    assert repr(Sum([a(), 2])) == "Layer('a') + 2"  # type: ignore[list-item]
    assert value(Product(a(), Constant(2))) == 2 * A
    assert value(Quotient(a(), Constant(2))) == A / 2


def test_operands_share_nothing_that_a_tree_changes() -> None:
    layer, penalty = Channel("a", 0), L2(0.5)
    before = {name: dict(vars(single)) for name, single in (("layer", layer), ("penalty", penalty))}
    single = layer - 1e-3 * penalty
    two = -(single * 2) / 3 + layer**1
    assert {name: dict(vars(single)) for name, single in (("layer", layer), ("penalty", penalty))} == before
    assert repr(single) == "Channel('a', 0) - 0.001 * L2(0.5)"
    assert value(two) == pytest.approx(-(A - 1e-3 * value(penalty)) * 2 / 3 + A)


@pytest.mark.parametrize("symbol", OPERATIONS)
@pytest.mark.parametrize("second", [torch.tensor(2.0), torch.ones(2), "2", True, None, [1], 2j], ids=repr)
def test_other_operands_are_refused(symbol: str, second: Any) -> None:
    for left, right in ((Layer("a"), second), (second, Layer("a"))):
        with pytest.raises(TypeError):
            OPERATIONS[symbol](left, right)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_must_be_finite(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Layer("a") * number
    with pytest.raises(ValueError, match="exponent must be finite"):
        Layer("a") ** number


@pytest.mark.parametrize("exponent", [torch.ones(2), "2", True, None, [1], 2j, Layer("a")], ids=repr)
def test_exponents_are_numbers(exponent: Any) -> None:
    with pytest.raises(TypeError, match="exponent must be a number"):
        Layer("a") ** exponent
    with pytest.raises(TypeError):
        2 ** Layer("a")  # type: ignore[operator]


def test_division_by_zero_and_empty_sums_are_refused() -> None:
    with pytest.raises(ValueError, match="divided by 0"):
        Layer("a") / 0
    with pytest.raises(ValueError, match="at least one"):
        Sum([])


def test_scores_without_views_count_in_each_view() -> None:
    activation = torch.arange(6.0).view(2, 3, 1, 1)
    observation = Observation(torch.full((2, 3, 4, 4), 0.5), {Source("a"): activation})
    assert (Layer("a") - L1() + 1)(observation).tolist() == [
        [0 - 24 + 1, 1 - 24 + 1, 2 - 24 + 1],
        [3 - 24 + 1, 4 - 24 + 1, 5 - 24 + 1],
    ]
