"""Signals that wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

# Ctrl-C, and those with which clusters announce that the time of a job is over; Lightning defers SIGTERM by itself.
_DEFERRED = ("SIGINT", "SIGUSR1", "SIGUSR2")


class DeferredSignals:
    """Defer signals that have a handler to the end of a step: within it, pictures and optimizer may not fit together.

    A second Ctrl-C acts at once.

    Example:
        >>> deferred, received = DeferredSignals(), []
        >>> before = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
        >>> deferred.install(); signal.raise_signal(signal.SIGUSR1); received
        []
        >>> deferred.deliver(deferred.first); received == [signal.SIGUSR1]
        True
        >>> deferred.restore(); _ = signal.signal(signal.SIGUSR1, before)
    """

    def __init__(self) -> None:
        self._handlers: dict[int, object] = {}
        self._received: list[int] = []

    @property
    def first(self) -> int:
        """The number of the signal that came first, 0 for none."""
        return self._received[0] if self._received else 0

    def install(self) -> None:
        """Replace the handlers; does nothing outside the main thread, where Python handles no signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (int(getattr(signal, name)) for name in _DEFERRED if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._received:
            self._received.remove(number)
            self._call(number, frame)
        elif number not in self._received:
            self._received.append(number)

    def deliver(self, number: int) -> None:
        """Call the handler of a signal, also of one that only other processes of the run received."""
        if number in self._received:
            self._received.remove(number)
        self._call(number, None)

    def _call(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(number)
        if callable(handler):
            handler(number, frame)

    def restore(self) -> None:
        """Restore the handlers, except where another one has been installed since."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}


class RestoreSignals(Callback):
    """Restore the handlers after a run that fails: no hook of the module is called then."""

    def __init__(self, signals: DeferredSignals) -> None:
        self.signals = signals

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the handlers."""
        self.signals.restore()

    def __getstate__(self) -> dict[str, Any]:
        """Leave handlers behind: they are those of one process."""
        return {"signals": DeferredSignals()}
