"""The batch size that a sweep chooses by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from toys import QUIET, toy

from featviz_pl.callbacks import SweepProgressBar
from featviz_pl.engine import Ascent
from featviz_pl.sweep import FeatureSweep, FeatureTargets
from featviz_pl.sweep import batch_size as room
from featviz_pl.sweep.batch_size import BatchSize, choose, fitting, seconds_per_step, soonest
from featviz_pl_callbacks import step_progress as progress


def batches(count: int) -> Callable[[int], int]:
    return lambda size: -(-count // size)


@pytest.mark.parametrize(
    ("seconds", "count", "expected"),
    [
        ({1: 10.0, 2: 12.0, 4: 16.0, 8: 24.0}, 64, 8),  # an idle device
        ({1: 10.0, 2: 20.0, 4: 40.0, 8: 80.0}, 64, 1),  # a busy one: the smallest does as well
        ({1: 10.0, 2: 19.0, 4: 45.0, 8: 100.0}, 64, 2),  # caches that are too small
        ({1: 10.0, 2: 19.5, 4: 38.0, 8: 75.0}, 64, 4),  # 640, 624, 608 and 600: 1.3 % are not worth a larger batch
        ({1: 10.0, 2: 15.0, 4: 20.0, 8: 56.0}, 9, 4),  # 90, 75, 60 and 112: what fills up the last batch counts
        ({1: 10.0, 2: 14.0, 4: 26.0}, 5, 2),  # 50, 42 and 52
    ],
)
def test_the_smallest_size_that_ends_nearly_as_soon_as_any_is_chosen(
    seconds: dict[int, float], count: int, expected: int
) -> None:
    assert soonest(seconds, batches(count)) == expected


MEASURED: list[tuple[int, int, int, list[int], int]] = [
    # most, pictures, steps -> sizes, rounds (5 % of the steps of all pictures, for sizes that cost rounds + 2 each)
    (8, 64, 256, [1, 2, 4, 8], 6),
    (8, 8, 256, [1, 2, 4, 8], 4),  # 102 steps of a picture over 15, less 2
    (6, 6, 256, [1, 2, 4, 6], 3),  # 76 over 13
    (64, 64, 256, [1, 2, 4, 8, 16, 32, 64], 4),  # 819 over 127
    (8, 8, 128, [], 0),  # 51 over 15: too little
    (8, 8, 3, [], 0),
    (1, 1000, 512, [], 0),  # there is no choice
]


@pytest.mark.parametrize(("most", "pictures", "steps", "sizes", "rounds"), MEASURED)
def test_measuring_costs_a_twentieth_of_the_sweep_at_most(
    most: int, pictures: int, steps: int, sizes: list[int], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def measure(problems: Sequence[int], rounds: int, steps: int) -> list[float]:
        asked.extend((size, rounds) for size in problems)
        return [0.5 for _ in problems]

    monkeypatch.setattr(room, "seconds_per_step", measure)
    chosen = choose(lambda size: size, most, batches(pictures), pictures, steps)  # type: ignore[arg-type, return-value]
    assert asked == [(size, rounds) for size in sizes]
    assert chosen == BatchSize(most, dict.fromkeys(sizes, 0.5))
    assert sum(sizes) * (rounds + 2) <= 0.05 * pictures * steps


def test_the_time_of_a_step_is_the_least_of_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cost = (
        [0.0],
        iter([9.0, 9.0, 3.0, 5.0, 2.0, 7.0, 4.0, 6.0]),
    )  # two problems in a round that does not count, and three more
    problems = [FeatureSweep(toy(), "lucid", size=8).problem("features.5", range(count), "cpu") for count in (1, 2)]
    taken: list[tuple[int, int]] = []
    step = Ascent.step

    def slow(self: Ascent, index: int, steps: int) -> object:
        clock[0] += next(cost)
        taken.append((len(self.keys), index))
        return step(self, index, steps)

    monkeypatch.setattr("featviz_pl.sweep.batch_size.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Ascent, "step", slow)
    with torch.enable_grad():
        assert seconds_per_step(problems, 3, 18) == [2.0, 5.0]
    assert taken == [
        (1, 16),
        (2, 16),
        (1, 17),
        (2, 17),
        (1, 17),
        (2, 17),
        (1, 17),
        (2, 17),
    ]  # past the redirected steps


def test_memory_and_the_number_of_units_bound_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, cpu = FeatureSweep(toy(), "lucid", size=8), torch.device("cpu")

    def largest(units: int, ranks: int, here: int, free: int) -> int:
        monkeypatch.setattr(room, "free_memory", lambda _: free)
        monkeypatch.setattr(room, "kept_bytes", lambda _: 1000)
        make = lambda layer, chosen: sweep.problem(layer, chosen, cpu)  # noqa: E731
        return fitting(make, {"features.5": range(units)}, 1, cpu, ranks, here).size

    assert largest(8, 1, 1, 10**9) == 8
    assert largest(8, 2, 1, 10**9) == 4
    assert largest(8, 1, 1, 12_500) == 3  # a quarter of the free memory
    assert largest(8, 2, 2, 16_000) == 2  # which two processes share


def test_a_sweep_says_which_size_it_chose_and_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "seconds_per_step", lambda *_: [0.25, 0.25, 0.75])
    monkeypatch.setattr(room, "SHARE", 10)
    sweep, targets = FeatureSweep(toy(), "lucid", size=8, steps=3), FeatureTargets("features.5:0-3")
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        Trainer(**QUIET).predict(sweep, targets, return_predictions=False)
    assert targets.batch_size == 2
    said = [record.message for record in caplog.records if "batch size" in record.message]
    assert said == ["batch size 2: the step of one picture takes 250 ms with 1, 125 ms with 2, 188 ms with 4"]
    assert str(BatchSize(3, {})) == "batch size 3, by memory: the sweep is too short to measure"


def test_measuring_changes_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SHARE", 10)

    def run(batch_size: int | str) -> tuple[list[torch.Tensor], int | None]:
        targets = FeatureTargets("features.5:0-1", batch_size)
        rendered = Trainer(**QUIET).predict(FeatureSweep(toy(), "lucid", size=8, steps=3), targets)
        assert rendered is not None
        return [batch.images for batch in rendered], targets.batch_size  # type: ignore[union-attr]

    chosen, size = run("auto")
    assert size in (1, 2)
    expected, _ = run(int(size))
    assert all(torch.equal(one, other) for one, other in zip(chosen, expected))


def test_the_progress_bar_begins_with_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(room, "SHARE", 10)
    monkeypatch.setattr(room, "seconds_per_step", lambda *_: [0.25, 0.25, 0.375])
    bar = SimpleNamespace(update=lambda _, text: texts.append(text), close=lambda: None)
    monkeypatch.setattr(progress, "_new_bar", lambda *_: bar)
    trainer = Trainer(**{**QUIET, "callbacks": [SweepProgressBar(1000)], "enable_progress_bar": True})
    trainer.predict(
        FeatureSweep(toy(), "lucid", size=8, steps=3), FeatureTargets("features.5:0-3"), return_predictions=False
    )
    assert texts[0] == "batch size 4: the step of one picture takes 250 ms with 1, 125 ms with 2, 93.8 ms with 4"
    assert len(texts) == 2
