"""Print the lower bound of every dependency as a pin, for ``pip install -r``: ``python tests/tools/lower_bounds.py [EXTRA ...]``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires


def pins(requirements: list[str], extras: list[str]) -> list[str]:
    """Return ``name==version`` for each requirement of the library, and of these extras, with a lower bound.

    >>> pins(["torch>=2.6", "rich<14,>=13; extra == 'rich'", "wandb>=0.18; extra == 'wandb'"], ["rich"])
    ['torch==2.6', 'rich==13']
    """
    pinned = []
    for requirement in requirements:
        extra = re.search(r"extra == ['\"](.+?)['\"]", requirement)
        bound = re.match(r"([\w.-]+)[^;]*>=([\w.]+)", requirement)
        if bound and (extra is None or extra[1] in extras):
            pinned.append(f"{bound[1]}=={bound[2]}")
    return pinned


if __name__ == "__main__":
    print("\n".join(pins(requires("featviz_pl") or [], sys.argv[1:])))
