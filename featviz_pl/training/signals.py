"""Signals that wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType

# Ctrl-C, and those with which clusters announce that a job's time is over. SIGTERM is Lightning's: it waits by itself.
_HELD = ("SIGINT", "SIGUSR1", "SIGUSR2")


class HeldSignals:
    """Keep signals that have a handler from acting in the middle of a step, where pictures and optimizer may not fit together.

    A second Ctrl-C acts at once.

    Example:
        >>> held, got = HeldSignals(), []
        >>> before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
        >>> held.hold(); signal.raise_signal(signal.SIGUSR1); got
        []
        >>> held.deliver(held.waiting); got == [signal.SIGUSR1]
        True
        >>> held.release(); _ = signal.signal(signal.SIGUSR1, before)
    """

    def __init__(self) -> None:
        self._handlers: dict[int, object] = {}
        self._waiting: list[int] = []

    @property
    def waiting(self) -> int:
        """The number of the signal that came first, 0 for none."""
        return self._waiting[0] if self._waiting else 0

    def hold(self) -> None:
        """Begin to hold back; outside the main thread Python takes no signals, and nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (int(getattr(signal, name)) for name in _HELD if hasattr(signal, name)):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._waiting:
            self._waiting.remove(number)
            self._call(number, frame)
        elif number not in self._waiting:
            self._waiting.append(number)

    def deliver(self, number: int) -> None:
        """Let a signal act, also one that only other processes of the run received."""
        if number in self._waiting:
            self._waiting.remove(number)
        self._call(number, None)

    def _call(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(number)
        if callable(handler):
            handler(number, frame)

    def release(self) -> None:
        """Give the signals back to their handlers, unless somebody else has taken them over since."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._received:
                signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}
