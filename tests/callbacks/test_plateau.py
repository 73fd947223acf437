"""The end of runs that no longer get better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from guests import At
from lightning.pytorch import Callback, LightningModule, Trainer
from toys import QUIET, toy

from featviz_pl.callbacks import StopOnPlateau
from featviz_pl.engine import Step
from featviz_pl.images import FourierImage
from featviz_pl.training import FeatureVisualization


class Scores(Callback):
    """Replace the scores that the module reports, step by step; the last one repeats."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, FeatureVisualization)
        score = self.scores[min(batch_idx, len(self.scores) - 1)]
        pl_module.last = Step(torch.zeros(()), torch.tensor([score, score]), {})


def run(*callbacks: Callback, max_steps: int = 30, ckpt_path: Any = None) -> int:
    module = FeatureVisualization(toy(), "features.5:1", image=FourierImage(8))
    trainer = Trainer(**{**QUIET, "max_steps": max_steps, "callbacks": list(callbacks)})
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True)
    return trainer.global_step


@pytest.mark.parametrize(
    ("patience", "every", "end"),
    [(4, 2, 6), (5, 2, 8), (3, 1, 4), (1, 1, 2), (10, 5, 15), (1, 10, 20)],
    # The first reading, at step `every`, sets the best; the run ends with the first reading `patience` steps later.
)
def test_a_constant_score_stops_after_patience(patience: int, every: int, end: int) -> None:
    assert run(Scores(1.0), StopOnPlateau(patience, every=every)) == end


def test_a_rising_score_goes_on_to_the_end() -> None:
    assert run(Scores(*[1.1**step for step in range(30)]), StopOnPlateau(2, min_delta=0.05, every=1)) == 30


@pytest.mark.parametrize(("factor", "end"), [(1.02, 30), (1.002, 4)])
def test_the_rise_that_counts_is_relative(factor: float, end: int) -> None:
    for scale in (1.0, 1000.0, 1e-3):
        assert (
            run(Scores(*[scale * factor**step for step in range(30)]), StopOnPlateau(3, min_delta=0.01, every=1)) == end
        )


def test_a_falling_and_a_negative_score() -> None:
    assert run(Scores(*[-1.0 - step for step in range(30)]), StopOnPlateau(3, every=1)) == 4
    assert run(Scores(*[-100.0 + step for step in range(30)]), StopOnPlateau(3, min_delta=0.001, every=1)) == 30


def test_one_rise_starts_the_patience_anew() -> None:
    assert run(Scores(1.0, 1.0, 1.0, 2.0), StopOnPlateau(3, every=1)) == 7


def test_readings_are_means_of_the_steps_between_them() -> None:
    # Up and down, with a mean that stands still: single steps would seem to rise at step 2, and again never.
    assert run(Scores(*[1.0, 3.0] * 15), StopOnPlateau(4, every=2)) == 6


def test_a_real_run_goes_on_while_its_score_rises() -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.scores: list[float] = []

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            assert isinstance(pl_module, FeatureVisualization)
            assert pl_module.last is not None
            self.scores.append(float(pl_module.last.scores.mean()))

    watch = Watch()
    assert run(StopOnPlateau(2, min_delta=0.0, every=1), watch, max_steps=12) == 12
    assert watch.scores == sorted(watch.scores)


def test_its_state_resumes(tmp_path: Path) -> None:
    def callbacks() -> tuple[Callback, Callback]:
        return Scores(1.0, 2.0), StopOnPlateau(9, every=3)

    unbroken = run(*callbacks())
    assert unbroken == 15  # best: the reading at step 6, which no longer holds the first score
    module = FeatureVisualization(toy(), "features.5:1", image=FourierImage(8))
    trainer = Trainer(**{**QUIET, "max_steps": 30, "callbacks": [*callbacks()]})

    def save_and_stop() -> None:
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        raise KeyboardInterrupt

    trainer.callbacks.append(At(8, save_and_stop))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        trainer.fit(module)
    assert run(*callbacks(), ckpt_path=tmp_path / "a.ckpt") == unbroken


def test_a_second_run_forgets_the_first() -> None:
    plateau = StopOnPlateau(3, every=1)
    assert run(Scores(5.0), plateau) == 4
    assert run(Scores(1.0), plateau) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience must be at least 1"),
        ({"every": 0}, "every must be at least 1"),
        ({"min_delta": -0.1}, "min_delta must be at least 0"),
        ({"min_delta": float("nan")}, "min_delta must be at least 0"),
    ],
    ids=str,
)
def test_impossible_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StopOnPlateau(**arguments)


def test_accumulated_batches_count_as_one_step() -> None:
    module = FeatureVisualization(toy(), "features.5:1", image=FourierImage(8))
    trainer = Trainer(
        **{
            **QUIET,
            "max_steps": 30,
            "callbacks": [Scores(1.0), StopOnPlateau(4, every=2)],
            "accumulate_grad_batches": 3,
        }
    )
    trainer.fit(module)
    assert trainer.global_step == 6  # as without accumulation, above
