"""What commands show on stderr while they run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def quiet_lightning() -> None:
    """Let Lightning log errors only: stdout and stderr are the command's."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def photo_progress(unit: str = "photos", leave: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; yield a function of the photos read so far and of all.

    Args:
        unit: what is counted.
        leave: whether the bar stays when all is done.

    Example:
        >>> with photo_progress() as progress:
        ...     progress(16, 32)
    """
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    with tqdm(unit=f" {unit}", disable=hidden, file=sys.stderr, dynamic_ncols=True, leave=leave) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


@contextmanager
def announced(command: str, name: str = "featviz_pl") -> Iterator[None]:
    """Print on stderr what the library, or a part of it, logs of its choices, such as a precision that it measured."""
    logger, handler = logging.getLogger(name), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{command}: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
