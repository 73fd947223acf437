"""The progress bar: it counts optimizer steps of the whole run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from guests import At
from lightning.pytorch import Trainer
from toys import QUIET, toy

from featviz_pl.callbacks import StepProgressBar
from featviz_pl.images import FourierImage
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks import _progress_bar as progress


def fit(*callbacks: Any, ckpt_path: Any = None, **arguments: Any) -> Trainer:
    module = FeatureVisualization(toy(), "features.5:1", image=FourierImage(8), steps=6)
    trainer = Trainer(
        **{**QUIET, "enable_progress_bar": True, "max_steps": 10, "callbacks": list(callbacks), **arguments}
    )
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True)
    return trainer


class Recorder:
    """Stand for a drawn bar."""

    made: list[Recorder]

    def __init__(self, total: int | None, done: int) -> None:
        self.total, self.initial, self.updates, self.texts, self.closed = total, done, list[int](), list[str](), 0
        type(self).made.append(self)

    def update(self, done: int, text: str) -> None:
        assert not self.closed
        self.updates.append(done)
        self.texts.append(text)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    Recorder.made = []
    monkeypatch.setattr(progress, "new_bar", Recorder)
    return Recorder.made


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        ({"max_steps": 10}, 10),
        ({"max_steps": -1, "max_epochs": 1}, 6),
        ({"max_steps": 4, "accumulate_grad_batches": 3}, 4),
        ({"max_steps": -1, "max_epochs": 1, "accumulate_grad_batches": 2}, 6),
    ],
    ids=str,
)
def test_the_total_is_the_number_of_optimizer_steps(
    bars: list[Recorder], arguments: dict[str, Any], total: int
) -> None:
    trainer = fit(StepProgressBar(refresh_rate=1), **arguments)
    assert trainer.global_step == total
    assert [(bar.total, bar.initial, bar.closed) for bar in bars] == [(total, 0, 1)]
    assert sorted(set(bars[0].updates)) in (list(range(total + 1)), list(range(1, total + 1)))


def test_a_resumed_run_starts_where_it_was(bars: list[Recorder], tmp_path: Path) -> None:
    bar = StepProgressBar(refresh_rate=1)
    trainer = Trainer(**{**QUIET, "enable_progress_bar": True, "max_steps": 10, "callbacks": [bar]})
    trainer.callbacks.append(At(4, lambda: trainer.save_checkpoint(tmp_path / "a.ckpt")))  # type: ignore[attr-defined]
    trainer.fit(FeatureVisualization(toy(), "features.5:1", image=FourierImage(8)))
    fit(StepProgressBar(refresh_rate=1), ckpt_path=tmp_path / "a.ckpt")
    assert [(bar.total, bar.initial) for bar in bars] == [(10, 0), (10, 4)]
    assert sorted(set(bars[1].updates)) == [5, 6, 7, 8, 9, 10]


def test_it_is_drawn_as_often_as_asked_and_at_the_end(bars: list[Recorder]) -> None:
    fit(StepProgressBar(refresh_rate=4))
    assert bars[0].updates == [4, 8, 10]


def test_logged_values_are_shown(bars: list[Recorder]) -> None:
    fit(StepProgressBar(refresh_rate=5), max_steps=30)
    assert "loss " in bars[0].texts[-1]
    assert "v_num" not in bars[0].texts[-1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_it_is_closed_after_a_failure(bars: list[Recorder], error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises((SystemExit, RuntimeError)):
        fit(StepProgressBar(), At(3, fail))
    assert [(bar.closed, bar.updates[-1]) for bar in bars] == [(1, 3)]


def test_rich_draws_it_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "160")
    fit(StepProgressBar(refresh_rate=1))
    out, err = capsys.readouterr()
    assert "optimising" in err
    assert "10/10" in err
    assert out == ""


def test_tqdm_draws_it_where_rich_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    bar = StepProgressBar(refresh_rate=1)
    trainer = Trainer(**{**QUIET, "enable_progress_bar": True, "max_steps": 10, "callbacks": [bar]})
    trainer.callbacks.append(At(4, lambda: trainer.save_checkpoint(tmp_path / "a.ckpt")))  # type: ignore[attr-defined]
    trainer.fit(FeatureVisualization(toy(), "features.5:1", image=FourierImage(8)))
    out, err = capsys.readouterr()
    assert "optimising: 100%" in err
    assert "10/10" in err
    assert out == ""
    fit(StepProgressBar(refresh_rate=1), ckpt_path=tmp_path / "a.ckpt")
    err = capsys.readouterr().err
    assert "4/10" in err
    assert "10/10" in err
    assert "0/10 " not in err.replace("10/10 ", "")


def test_a_disabled_bar_draws_nothing(bars: list[Recorder]) -> None:
    bar = StepProgressBar()
    bar.disable()
    fit(bar)
    assert bars == []
    bar.enable()
    fit(bar)
    assert len(bars) == 1


@pytest.mark.parametrize("refresh_rate", [0, -1, 0.5])
def test_impossible_rates_are_refused(refresh_rate: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="refresh_rate must be"):
        StepProgressBar(refresh_rate)
