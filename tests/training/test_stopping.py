"""How a run is found to have been stopped."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from featviz_pl.training.stopping import TERMINATED, run_until_stopped


class Launched:
    """Stand for a Trainer that has started other processes."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.strategy = SimpleNamespace(launcher=SimpleNamespace(kill=self.killed.append))


def interrupt() -> None:
    """Do what Lightning does for Ctrl-C."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise SystemExit(1)  # noqa: B904 - as Lightning does


def leave(exit_: BaseException) -> Any:
    def run() -> None:
        raise exit_

    return run


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (interrupt, signal.SIGINT),
        (leave(SIGTERMException()), signal.SIGTERM),
        (leave(SystemExit(TERMINATED)), signal.SIGTERM),
        (leave(SystemExit(3)), SystemExit),
        (leave(RuntimeError()), RuntimeError),
        (leave(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_a_stopped_run_ends_the_other_processes_and_leaves_ctrl_c_as_it_was(run: Any, expected: Any) -> None:
    trainer: Any = Launched()
    handler = signal.getsignal(signal.SIGINT)
    try:
        if isinstance(expected, signal.Signals):
            assert run_until_stopped(trainer, run) == expected
        else:
            with pytest.raises(expected):
                run_until_stopped(trainer, run)
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert trainer.killed == [signal.SIGKILL]


def test_a_run_that_ends_by_itself_kills_nobody() -> None:
    trainer: Any = Launched()
    assert run_until_stopped(trainer, lambda: None) is None
    assert not trainer.killed
