"""How a Trainer's run ended: by itself, by Ctrl-C or by SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

TERMINATED = 128 + signal.SIGTERM  # exit code of a process that SIGTERM ended


def run_until_stopped(trainer: Trainer, run: Callable[[], object]) -> signal.Signals | None:
    """Call a method of a Trainer and return the signal that stopped it: SIGINT, SIGTERM, or None when it ran to its end.

    Callbacks have finished by then. Where the run is stopped or fails, the processes that the Trainer has started are
    ended too: they would wait for this one, or go on without it.

    Args:
        trainer: whose method is called.
        run: calls it.

    Example:
        >>> run_until_stopped(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), lambda: None) is None
        True
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        run()
    except SystemExit as stop:
        _end_other_processes(trainer)
        if isinstance(stop, SIGTERMException) or stop.code == TERMINATED:  # Lightning's own would end with code 0
            return signal.SIGTERM
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)  # Lightning turns Ctrl-C into an exit, and leaves it ignored
        return signal.SIGINT
    except BaseException:
        _end_other_processes(trainer)
        raise
    return None


def _end_other_processes(trainer: Trainer) -> None:
    kill = getattr(trainer.strategy.launcher, "kill", None)
    if kill is not None:
        kill(getattr(signal, "SIGKILL", signal.SIGTERM))
