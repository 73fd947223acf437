"""What every metric promises; the rows of the table are in tests/support/metric_cases_*.py."""

from __future__ import annotations

import copy
import math
import pickle
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from guests import condition, require_same
from metric_case import MetricCase, all_cases, numbers
from torch import Tensor, nn
from torchmetrics import Metric

from featviz_pl import metrics
from featviz_pl.metrics import PictureMetric

CASES = all_cases()
COUNT = 6

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
per_picture = pytest.mark.parametrize("case", [case for case in CASES if case.per_picture], ids=lambda case: case.name)
early = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before:UserWarning")


def close(result: Any, expected: Any) -> None:
    """Compare results; networks in float32 round differently in batches of other sizes."""
    torch.testing.assert_close(numbers(result), numbers(expected), rtol=1e-5, atol=1e-6)


def fed(case: MetricCase, parts: list[int] | None = None, **arguments: Any) -> Metric:
    """Return a metric after updates with the pictures, in parts of these sizes."""
    metric = case.make(**arguments)
    first = 0
    for size in parts or [COUNT]:
        metric.update(*case.part(first, first + size))
        first += size
    return metric


# The table.


def test_every_exported_metric_has_a_row() -> None:
    exported = {name: getattr(metrics, name) for name in metrics.__all__}
    classes = {name for name, value in exported.items() if isinstance(value, type) and issubclass(value, Metric)}
    assert classes - {"PictureMetric"} == {case.name for case in CASES}


def bound(text: str) -> float | None:
    """Return a bound as a docstring writes it; None where it is open or depends on the network."""
    try:
        return float(text)
    except ValueError:
        return None


@every
def test_class_and_docstring_state_range_and_direction(case: MetricCase) -> None:
    metric = case.make()
    kind: Any = type(metric)
    assert kind is getattr(metrics, case.name)
    assert isinstance(metric, PictureMetric) == case.per_picture
    stated = (kind.plot_lower_bound, kind.plot_upper_bound, kind.higher_is_better)
    assert stated == (case.lower, case.upper, case.higher_is_better)
    assert (kind.is_differentiable, kind.full_state_update) == (False, False)
    match = re.search(r"^    Range: [\[(](.+?), (.+?)[\])]; (.+?)(?:\n\n|\Z)", kind.__doc__, re.DOTALL | re.MULTILINE)
    assert match is not None
    assert (bound(match[1]), bound(match[2])) == (case.lower, case.upper)
    directions = {True: "higher is better" in match[3], False: "lower is better" in match[3]}
    assert directions == {direction: direction is case.higher_is_better for direction in (True, False)}
    assert "Reference:" in kind.__doc__


@every
def test_values_are_finite_within_the_range_and_tell_pictures_apart(case: MetricCase) -> None:
    values = numbers((fed(case, reduction="none") if case.per_picture else fed(case)).compute())
    assert bool(torch.isfinite(values).all())
    assert case.lower is None or float(values.min()) >= case.lower
    assert case.upper is None or float(values.max()) <= case.upper
    assert not case.per_picture or len(set(values.tolist())) > 1  # a constant would keep every other promise


@every
def test_the_representation_is_one_line_that_begins_like_the_constructor(case: MetricCase) -> None:
    text = repr(case.make())
    assert text.startswith(f"{case.name}(")
    assert text.endswith(")")
    assert "\n" not in text
    assert not case.per_picture or "reduction='none'" in repr(case.make(reduction="none"))


# Batches and states.


@every
@pytest.mark.parametrize("parts", [[1] * COUNT, [1, 3, 2]])
def test_pictures_in_parts_count_as_all_at_once(case: MetricCase, parts: list[int]) -> None:
    close(fed(case, parts).compute(), fed(case).compute())
    if case.per_picture:
        close(fed(case, parts, reduction="none").compute(), fed(case, reduction="none").compute())


@every
def test_forward_returns_the_value_of_the_batch_and_adds_it(case: MetricCase) -> None:
    metric = case.make()
    close(metric(*case.part(0, 3)), fed(case, [3]).compute())
    metric(*case.part(3, COUNT))
    close(metric.compute(), fed(case).compute())


@per_picture
@pytest.mark.parametrize("count", [1, COUNT])
def test_reduction_is_the_mean_or_a_list_in_order(case: MetricCase, count: int) -> None:
    listed = fed(case, [count], reduction="none").compute()
    assert (listed.shape, listed.dtype) == ((count,), torch.float64)
    mean = fed(case, [count]).compute()
    assert mean.shape == ()
    assert mean.item() == pytest.approx(math.fsum(listed.tolist()) / count, rel=1e-12)
    for index in range(count):
        alone = case.make()
        alone.update(*case.part(index, index + 1))
        close(alone.compute(), listed[index])
    with pytest.raises(ValueError, match="reduction: unknown reduction 'man'; did you mean 'mean'"):
        case.make(reduction="man")


@early
@every
def test_reset_forgets_the_pictures(case: MetricCase) -> None:
    metric = fed(case, [3, 3])
    before = numbers(metric.compute())
    metric.reset()
    with pytest.raises(ValueError, match=case.name):
        metric.compute()
    metric.update(*case.inputs(COUNT))
    close(metric.compute(), before)


@every
@pytest.mark.parametrize("fresh", [True, False])
def test_copies_continue_from_the_metric_and_leave_it_alone(case: MetricCase, fresh: bool) -> None:
    metric = case.make() if fresh else fed(case, [3])
    before = None if fresh else numbers(metric.compute())
    for duplicate in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        duplicate.update(*case.part(0 if fresh else 3, COUNT))
        close(duplicate.compute(), fed(case).compute())
        assert repr(duplicate) == repr(metric)
    if before is not None:
        assert torch.equal(numbers(metric.compute()), before)


# Modes and precision of the caller.

CASTS: list[Callable[[Metric], Any]] = [
    lambda metric: metric.to(torch.float16),
    lambda metric: nn.ModuleList([metric]).half(),
    lambda metric: metric.set_dtype(torch.float16),
]


@every
@pytest.mark.parametrize("cast", CASTS, ids=["to", "half", "set_dtype"])
def test_casts_of_the_surrounding_module_do_not_change_the_result(
    case: MetricCase, cast: Callable[[Metric], Any]
) -> None:
    metric = case.make()
    for first in (0, 3):
        cast(metric)
        metric.update(*case.part(first, first + 3))
    assert torch.equal(numbers(metric.compute()), numbers(fed(case, [3, 3]).compute()))


@every
def test_the_default_precision_does_not_matter(case: MetricCase) -> None:
    expected = numbers(fed(case).compute())
    arguments = case.inputs(COUNT)
    for default in (torch.float64, torch.bfloat16):
        metric = case.make()  # here, because it may build a network
        torch.set_default_dtype(default)
        try:
            metric.update(*arguments)
            result = metric.compute()
        finally:
            torch.set_default_dtype(torch.float32)
        close(result, expected)


@every
def test_metrics_work_in_inference_mode_and_under_autocast(case: MetricCase) -> None:
    expected = fed(case).compute()
    metric = case.make()  # here, because it may build a network
    with torch.inference_mode():  # as Lightning validates
        metric.update(*case.inputs(COUNT))
        close(metric.compute(), expected)
        metric.reset()
        metric.update(*case.part(0, 3))
    metric.update(*case.part(3, COUNT))
    close(metric.compute(), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bool(torch.isfinite(numbers(fed(case).compute())).all())


# What must stay as it is.


def global_generators() -> list[Any]:
    return [torch.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"], random.getstate()]  # noqa: NPY002  # the global one is meant


@every
def test_global_generators_are_neither_used_nor_changed(case: MetricCase) -> None:
    results = []
    arguments = case.inputs(COUNT)
    states = global_generators()
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # as above
            random.seed(seed)
            before = global_generators()
            metric = case.make()
            metric.update(*arguments)
            results.append(numbers(metric.compute()))
            after = global_generators()
            assert all(np.array_equal(*pair) for pair in zip(before[:2], after[:2]))
            assert before[2] == after[2]
    finally:
        torch.random.set_rng_state(states[0])
        random.setstate(states[2])
    assert torch.equal(*results)


def networks_of(value: Any, visited: set[int] | None = None) -> Iterator[nn.Module]:
    """Yield the networks that a metric refers to, however deep in attributes, lists and mappings."""
    visited = set() if visited is None else visited
    if id(value) in visited or isinstance(value, (str, bytes, int, float, Tensor, type)):
        return
    visited.add(id(value))
    if isinstance(value, nn.Module) and not isinstance(value, Metric):
        yield value
        return
    attributes = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    for item in value if isinstance(value, (list, tuple)) else list(attributes.values()):
        yield from networks_of(item, visited)


@every
def test_the_network_is_left_as_it_was(case: MetricCase) -> None:
    metric = case.make()
    networks = list(networks_of(metric))
    before = [condition(network) for network in networks]
    metric.update(*case.inputs(COUNT))
    metric.compute()
    for network, state in zip(networks, before):
        require_same(state, condition(network))


def test_a_network_that_changed_is_noticed() -> None:
    class Meddling(PictureMetric):
        def __init__(self) -> None:
            super().__init__()
            self.networks = {"hidden": [nn.BatchNorm2d(3)]}

        def measure(self, pictures: Tensor, *inputs: Any) -> Tensor:
            result: Tensor = self.networks["hidden"][0](pictures)
            return result.mean((1, 2, 3))

    case = MetricCase("Meddling", Meddling, lambda count: (torch.rand(count, 3, 4, 4),), None, None, None)
    with pytest.raises(AssertionError):
        test_the_network_is_left_as_it_was(case)


@every
def test_pictures_are_left_alone_and_no_graph_is_stored(case: MetricCase) -> None:
    arguments = case.inputs(COUNT)
    pictures = next(argument for argument in arguments if isinstance(argument, Tensor))
    before = pictures.clone()
    pictures.requires_grad_(True)
    metric = case.make()
    metric.update(*arguments)
    states = [numbers(metric.compute())]
    for state in metric.metric_state.values():
        states += state if isinstance(state, list) else [state]
    assert not any(state.requires_grad for state in states)
    assert torch.equal(pictures, before)
    assert pictures.grad is None


# Bad input.

MISTAKES = [(case.name, call, message) for case in CASES for call, message in case.mistakes]


@pytest.mark.parametrize(
    ("name", "call", "message"), MISTAKES, ids=[f"{name}: {message[:40]}" for name, _, message in MISTAKES]
)
def test_mistakes_are_explained(name: str, call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def with_nan(pictures: Tensor) -> Tensor:
    return torch.where(torch.arange(len(pictures))[:, None, None, None] == 1, torch.nan, pictures)


BAD_PICTURES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "NaN": (with_nan, "NaN in 1 of 3, the first at index 1"),
    "above 1": (lambda pictures: pictures * 255, r"must lie in \[0, 1\], got values from .* to .*; pass them before"),
    "below 0": (lambda pictures: pictures - 1, r"must lie in \[0, 1\]"),
    "levels": (lambda pictures: (pictures * 255).to(torch.uint8), "divide levels"),
    "an array": (lambda pictures: pictures.numpy(), "must be a tensor"),
    "one picture": (lambda pictures: pictures[0], r"must be a batch \(N, C, H, W\), got shape \(3, "),
    "no picture": (lambda pictures: pictures[:0], "must be a batch"),
}


@every
@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_pictures_are_refused_and_not_counted(case: MetricCase, kind: str) -> None:
    metric = fed(case, [3])
    before = numbers(metric.compute())
    spoil, message = BAD_PICTURES[kind]
    wrong = tuple(spoil(argument) if isinstance(argument, Tensor) else argument for argument in case.inputs(3))
    with pytest.raises((ValueError, TypeError), match=f"pictures.*{message}"):
        metric.update(*wrong)
    assert torch.equal(numbers(metric.compute()), before)
