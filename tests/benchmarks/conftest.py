"""The benchmarks are no installed package: they, and the libraries that replace peers, are imported from here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE.parents[1], HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # behind what is installed


@pytest.fixture
def _loud_again() -> Iterator[None]:
    """Restore Lightning's logging level, which a benchmark changes."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    yield
    logger.setLevel(level)
