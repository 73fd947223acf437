from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from featviz_pl import transforms
from featviz_pl.transforms import Cosine, Linear, Schedule, WarmUp
from featviz_pl.transforms.schedule import SCHEDULES, schedule_named

PROGRESS = np.linspace(0.0, 1.0, 21)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.8), (0.5, 0.5)])
def test_linear_is_a_straight_line(start: float, end: float) -> None:
    found = [Linear(start, end).strength(progress) for progress in PROGRESS]
    np.testing.assert_allclose(found, np.interp(PROGRESS, [0.0, 1.0], [start, end]), atol=1e-12)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.8)])
def test_cosine_is_half_a_wave(start: float, end: float) -> None:
    found = np.array([Cosine(start, end).strength(progress) for progress in PROGRESS])
    # The middle of the range, and half the range times a cosine.
    np.testing.assert_allclose(found, (start + end) / 2 + (start - end) / 2 * np.cos(np.pi * PROGRESS), atol=1e-12)
    assert found[0] == pytest.approx(start)
    assert found[-1] == pytest.approx(end)


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_warm_up_rises_then_stays(share: float) -> None:
    found = [WarmUp(share).strength(progress) for progress in PROGRESS]
    np.testing.assert_allclose(found, np.interp(PROGRESS, [0.0, share], [0.0, 1.0]), atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "shown"),
    [
        (Linear(), "Linear(start=0, end=1)"),
        (Cosine(0.5, 0.25), "Cosine(start=0.5, end=0.25)"),
        (WarmUp(), "WarmUp(share=0.1)"),
    ],
)
def test_schedules_are_values(schedule: Schedule, shown: str) -> None:
    assert repr(schedule) == shown
    for copied in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert copied == schedule
        assert hash(copied) == hash(schedule)
    assert schedule != WarmUp(0.7)
    assert Linear() != Cosine()


def test_every_exported_schedule_has_a_name() -> None:
    exported = [getattr(transforms, name) for name in transforms.__all__]
    classes = {listed for listed in exported if isinstance(listed, type) and issubclass(listed, Schedule)}
    assert (
        {listed for listed in classes if not inspect.isabstract(listed)}
        == set(SCHEDULES.values())
        == {Linear, Cosine, WarmUp}
    )


def test_schedules_are_found_by_name_or_passed_on() -> None:
    assert schedule_named("linear") == Linear(0.0, 1.0)
    assert schedule_named("cosine") == Cosine(0.0, 1.0)
    assert schedule_named("warmup") == WarmUp(0.1)
    assert schedule_named(None) is None
    own = Linear(0.3, 0.4)
    assert schedule_named(own) is own


def test_bad_schedules_are_named() -> None:
    with pytest.raises(ValueError, match="schedule: unknown schedule 'cosin'; did you mean 'cosine'"):
        schedule_named("cosin")
    with pytest.raises(
        TypeError, match=r"schedule must be a Schedule or one of \['linear', 'cosine', 'warmup'\], got float"
    ):
        schedule_named(0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"start must be at least 0, got -0\.1"):
        Linear(-0.1, 1.0)
    with pytest.raises(ValueError, match="end must be at least 0, got inf"):
        Cosine(0.0, float("inf"))
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"share must be above 0 and at most 1, got {share}"):
            WarmUp(share)
