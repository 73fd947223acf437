"""What every metric promises; the rows of the table are in tests/support/metric_cases_*.py."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
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
NAMES = [case.name for case in CASES]
COUNT = 6

every = pytest.mark.parametrize("case", CASES, ids=NAMES)
of_pictures = pytest.mark.parametrize("case", [case for case in CASES if case.per_picture], ids=lambda case: case.name)
early = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before:UserWarning")


def close(found: Any, expected: Any) -> None:
    """Compare results; networks in float32 round differently in batches of other sizes."""
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-5, atol=1e-6)


def fed(case: MetricCase, parts: list[int] | None = None, **arguments: Any) -> Metric:
    """Return a metric that has seen the pictures, in parts of these sizes."""
    metric = case.make(**arguments)
    first = 0
    for size in parts or [COUNT]:
        metric.update(*case.part(first, first + size))
        first += size
    return metric


# The table.


def test_every_exported_metric_has_a_row() -> None:
    exported = {
        name
        for name in metrics.__all__
        if isinstance(getattr(metrics, name), type) and issubclass(getattr(metrics, name), Metric)
    }
    assert exported - {"PictureMetric"} == set(NAMES)


@every
def test_a_row_names_the_class_that_it_builds_and_states_its_range(case: MetricCase) -> None:
    metric = case.make()
    assert type(metric) is getattr(metrics, case.name)
    assert isinstance(metric, PictureMetric) == case.per_picture
    stated = (type(metric).plot_lower_bound, type(metric).plot_upper_bound, type(metric).higher_is_better)
    assert stated == (case.lower, case.upper, case.higher_is_better)
    assert type(metric).is_differentiable is False
    assert type(metric).full_state_update is False


def bound(text: str) -> float | None:
    """Return a bound as a docstring writes it; None where it is open or depends on the network."""
    try:
        return float(text)
    except ValueError:
        return None


@every
def test_the_docstring_says_range_direction_and_source(case: MetricCase) -> None:
    text = getattr(metrics, case.name).__doc__
    found = re.search(r"^    Range: [\[(](.+?), (.+?)[\])]; (.+?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    assert (bound(found[1]), bound(found[2])) == (case.lower, case.upper)
    said = {True: "higher is better" in found[3], False: "lower is better" in found[3]}
    assert said == {direction: direction is case.higher_is_better for direction in (True, False)}
    assert "Reference:" in text
    assert "Example:" in text


@every
def test_values_are_finite_and_within_the_range(case: MetricCase) -> None:
    found = numbers(fed(case).compute())
    assert bool(torch.isfinite(found).all())
    assert case.lower is None or float(found.min()) >= case.lower
    assert case.upper is None or float(found.max()) <= case.upper


@of_pictures
def test_values_tell_pictures_apart(case: MetricCase) -> None:
    # A metric that gave a constant would keep every other promise.
    found = numbers(fed(case, reduction="none").compute())
    assert len(set(found.tolist())) > 1


# Batches and processes.


@every
@pytest.mark.parametrize("parts", [[1] * COUNT, [1, 3, 2], [4, 2]])
def test_pictures_in_parts_count_as_all_at_once(case: MetricCase, parts: list[int]) -> None:
    close(fed(case, parts).compute(), fed(case).compute())
    if case.per_picture:
        close(fed(case, parts, reduction="none").compute(), fed(case, reduction="none").compute())


@every
def test_forward_returns_the_batch_s_own_and_adds_it(case: MetricCase) -> None:
    metric = case.make()
    close(metric(*case.part(0, 3)), fed(case, [3]).compute())
    metric(*case.part(3, COUNT))
    close(metric.compute(), fed(case).compute())


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[float] | str]]:
    """Return what two processes found together in every row: one pair of programs for all, as starting them takes long."""
    folder = tmp_path_factory.mktemp("processes")
    program = Path(__file__).with_name("two_processes.py")
    support = str(Path(__file__).parents[1] / "support")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([support, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program), str(rank), "2", str(folder / "meeting"), str(COUNT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    reports = []
    try:
        for process in started:
            out, err = process.communicate(timeout=400)
            assert process.returncode == 0, err
            reports.append(
                json.loads(next(line for line in out.splitlines() if line.startswith("REPORT")).partition(" ")[2])
            )
    finally:
        for process in started:
            process.kill()
    return reports


@every
@pytest.mark.parametrize("way", ["unequal", "all to one"])
def test_two_processes_find_what_one_does(
    case: MetricCase, way: str, together: list[dict[str, list[float] | str]]
) -> None:
    expected = (fed(case, reduction="none") if case.per_picture else fed(case)).compute()
    for report in together:
        found = report[f"{case.name}, {way}"]
        assert isinstance(found, list), found
        close(found, expected)


# States.


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
def test_copies_go_on_where_the_metric_was_and_leave_it_alone(case: MetricCase, fresh: bool) -> None:
    metric = case.make() if fresh else fed(case, [3])
    before = None if fresh else numbers(metric.compute())
    first = 0 if fresh else 3
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        other.update(*case.part(first, COUNT))
        close(other.compute(), fed(case).compute())
        assert repr(other) == repr(metric)
    if before is not None:
        assert torch.equal(numbers(metric.compute()), before)
        metric.update(*case.part(3, COUNT))
        close(metric.compute(), fed(case).compute())


CASTS: list[Callable[[Metric], Any]] = [
    lambda metric: metric.to(torch.float16),
    lambda metric: nn.ModuleList([metric]).half(),
    lambda metric: nn.ModuleList([metric]).to(torch.bfloat16),
    lambda metric: metric.set_dtype(torch.float16),
]


@every
@pytest.mark.parametrize("cast", CASTS, ids=["to", "half", "bfloat16", "set_dtype"])
def test_no_cast_of_the_program_around_it_spoils_the_result(case: MetricCase, cast: Callable[[Metric], Any]) -> None:
    metric = case.make()
    cast(metric)
    metric.update(*case.part(0, 3))
    cast(metric)
    metric.update(*case.part(3, COUNT))
    assert torch.equal(numbers(metric.compute()), numbers(fed(case, [3, 3]).compute()))


@every
def test_the_program_s_default_precision_does_not_matter(case: MetricCase) -> None:
    expected = numbers(fed(case).compute())
    arguments = case.inputs(COUNT)
    for default in (torch.float64, torch.bfloat16):
        metric = case.make()  # here, because it may draw a network
        torch.set_default_dtype(default)
        try:
            metric.update(*arguments)
            found = metric.compute()
        finally:
            torch.set_default_dtype(torch.float32)
        close(found, expected)


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


@every
def test_the_representation_is_one_line_that_begins_like_the_constructor(case: MetricCase) -> None:
    text = repr(case.make())
    assert text.startswith(f"{case.name}(")
    assert text.endswith(")")
    assert "\n" not in text
    if case.per_picture:
        assert "reduction='none'" in repr(case.make(reduction="none"))


# What must stay as it is.


def global_generators() -> list[Any]:
    return [torch.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"], random.getstate()]  # noqa: NPY002  # the global one is meant


@every
def test_global_generators_are_neither_used_nor_changed(case: MetricCase) -> None:
    found = []
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
            found.append(numbers(metric.compute()))
            after = global_generators()
            assert all(np.array_equal(one, other) for one, other in zip(before[:2], after[:2]))
            assert before[2] == after[2]
    finally:
        torch.random.set_rng_state(states[0])
        random.setstate(states[2])
    assert torch.equal(*found)


def networks_of(thing: Any, seen: set[int] | None = None) -> Iterator[nn.Module]:
    """Find the networks that a metric holds, however deep: in what it holds, lists and mappings."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, Tensor, type)):
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module) and not isinstance(thing, Metric):
        yield thing
        return
    held = thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})
    inside = thing if isinstance(thing, (list, tuple)) else list(held.values())
    for one in inside:
        yield from networks_of(one, seen)


@every
def test_the_network_is_a_guest(case: MetricCase) -> None:
    metric = case.make()
    networks = list(networks_of(metric))
    before = [condition(network) for network in networks]
    metric.update(*case.inputs(COUNT))
    metric.compute()
    for network, was in zip(networks, before):
        require_same(was, condition(network))


@every
def test_pictures_are_left_alone_and_no_graph_is_kept(case: MetricCase) -> None:
    arguments = case.inputs(COUNT)
    pictures = next(argument for argument in arguments if isinstance(argument, Tensor))
    before = pictures.clone()
    pictures.requires_grad_(True)
    metric = case.make()
    metric.update(*arguments)
    assert not numbers(metric.compute()).requires_grad
    assert not any(
        state.requires_grad
        for held in metric.metric_state.values()
        for state in (held if isinstance(held, list) else [held])
    )
    assert torch.equal(pictures, before)
    assert pictures.grad is None


# Reduction.


@of_pictures
@pytest.mark.parametrize("count", [1, COUNT])
def test_reduction_is_the_mean_or_a_list_in_order(case: MetricCase, count: int) -> None:
    listed = fed(case, [count], reduction="none").compute()
    assert listed.shape == (count,)
    assert listed.dtype == torch.float64
    mean = fed(case, [count]).compute()
    assert mean.shape == ()
    assert mean.item() == pytest.approx(math.fsum(listed.tolist()) / count, rel=1e-12)
    for index in range(count):
        alone = case.make()
        alone.update(*case.part(index, index + 1))
        close(alone.compute(), listed[index])


@of_pictures
def test_an_unknown_reduction_is_refused(case: MetricCase) -> None:
    with pytest.raises(ValueError, match="reduction: unknown reduction 'man'; did you mean 'mean'"):
        case.make(reduction="man")


# Bad input.


MISTAKES = [(case.name, wrong, pattern) for case in CASES for wrong, pattern in case.bad]


@early
@pytest.mark.parametrize(
    ("name", "wrong", "pattern"), MISTAKES, ids=[f"{name}: {pattern[:40]}" for name, _, pattern in MISTAKES]
)
def test_mistakes_are_explained(name: str, wrong: Callable[[], Any], pattern: str) -> None:
    with pytest.raises((ValueError, TypeError), match=pattern):
        wrong()


SPOILED: list[tuple[Callable[[Tensor], Any], str]] = [
    (
        lambda pictures: torch.where(torch.arange(len(pictures))[:, None, None, None] == 1, torch.nan, pictures),
        "NaN in 1 of 3",
    ),
    (lambda pictures: pictures * 255, r"must lie in \[0, 1\]"),
    (lambda pictures: (pictures * 255).to(torch.uint8), "divide levels"),
    (lambda pictures: pictures.numpy(), "must be a tensor"),
    (lambda pictures: pictures[0], "must be a batch"),
]


@every
@pytest.mark.parametrize(("spoil", "pattern"), SPOILED, ids=["NaN", "range", "levels", "array", "one"])
def test_pictures_that_are_none_are_refused_and_not_counted(
    case: MetricCase, spoil: Callable[[Tensor], Any], pattern: str
) -> None:
    metric = fed(case, [3])
    before = numbers(metric.compute())
    wrong = tuple(spoil(argument) if isinstance(argument, Tensor) else argument for argument in case.inputs(3))
    with pytest.raises((ValueError, TypeError), match=f"pictures.*{pattern}"):
        metric.update(*wrong)
    assert torch.equal(numbers(metric.compute()), before)


def test_a_network_that_changed_would_be_found() -> None:
    class Meddling(PictureMetric):
        def __init__(self) -> None:
            super().__init__()
            self.held = {"networks": [nn.BatchNorm2d(3)]}

        def measure(self, pictures: Tensor, *others: Any) -> Tensor:
            result: Tensor = self.held["networks"][0](pictures)
            return result.mean((1, 2, 3))

    case = MetricCase("Meddling", Meddling, lambda count: (torch.rand(count, 3, 4, 4),), None, None, None)
    with pytest.raises(AssertionError):
        test_the_network_is_a_guest(case)
