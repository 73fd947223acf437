"""Runs that print nothing: what Lightning reports of a Trainer is for those who make the Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_quiet: ContextVar[bool] = ContextVar("featviz_pl_is_quiet", default=False)


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not _is_quiet.get()


# Once, with the import: levels and filters that change during a call would change for all threads.
for _package in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
    logging.getLogger(f"{_package}.utilities.rank_zero").addFilter(_is_shown)
# Of Lightning itself under torch 2.10 and newer: https://github.com/Lightning-AI/pytorch-lightning/issues/21326
warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).* is deprecated", FutureWarning)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the information that Lightning logs from being shown, in this thread; its warnings are shown.

    Example:
        >>> with quiet():
        ...     logging.getLogger("lightning.pytorch.utilities.rank_zero").info("GPU available: False")
    """
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)
