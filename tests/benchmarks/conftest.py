"""The benchmarks are no installed package: they, and the libraries that stand in for peers, are found from here."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE.parents[1], HERE):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # behind what is installed
