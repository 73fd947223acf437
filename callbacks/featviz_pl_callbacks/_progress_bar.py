"""A progress bar that counts what a callback counts, drawn by Rich or tqdm."""

from __future__ import annotations

import sys
from typing import Protocol

from lightning.pytorch.callbacks import ProgressBar
from typing_extensions import override

from featviz_pl.numerics.checks import whole_number


class Bar(Protocol):
    """A bar on stderr with a text behind it."""

    def update(self, done: int, text: str) -> None: ...
    def close(self) -> None: ...


class CountingProgressBar(ProgressBar):
    """Base of the progress bars, which take the place of Lightning's.

    Args:
        refresh_rate: optimization steps between two updates, 1 or more.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__()
        self.refresh_rate = whole_number("refresh_rate", refresh_rate)
        self._enabled = True
        self._bar: Bar | None = None

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class _RichBar:
    def __init__(self, total: int | None, done: int) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("optimising"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        self._progress.start()
        self._task = self._progress.add_task("optimising", total=total, completed=done, text="")

    def update(self, done: int, text: str) -> None:
        self._progress.update(self._task, completed=done, text=text)

    def close(self) -> None:
        self._progress.stop()


class _TqdmBar:
    def __init__(self, total: int | None, done: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, initial=done, unit="step", desc="optimising", file=sys.stderr, dynamic_ncols=True)

    def update(self, done: int, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def new_bar(total: int | None, done: int) -> Bar:
    """Return a bar of Rich where it is installed, else of tqdm."""
    try:
        return _RichBar(total, done)
    except ImportError:
        return _TqdmBar(total, done)
