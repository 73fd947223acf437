"""Measure the photos of a folder: ``python -m featviz_pl.statistics FOLDER -o FILE``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from featviz_pl.statistics.measuring import folder_statistics


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the file and say in one line what was measured."""
    parser = argparse.ArgumentParser("python -m featviz_pl.statistics", description="Measure colours and spectrum of photos.")
    parser.add_argument("folder", metavar="FOLDER", help="photos, by classes or not")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write the statistics")
    parser.add_argument("--size", type=int, default=128, help="of the spectrum in pixels (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3), help="3 for colour, 1 for grayscale (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="read at most so many photos, evenly spread")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read photos (default: %(default)s)")
    parser.add_argument("--compact", action="store_true", help="store the spectrum in half precision")
    chosen = parser.parse_args(arguments)
    try:
        if Path(chosen.output).is_dir():
            raise ValueError(f"output: {chosen.output!r} is a folder; give the path of a file")
        with tqdm(unit=" photos", disable=not sys.stderr.isatty()) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            found = folder_statistics(chosen.folder, chosen.size, chosen.channels, chosen.limit, chosen.workers, progress)
        path = found.save(chosen.output, chosen.compact)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    skipped = f"{found.unreadable} unreadable, {found.too_small} smaller than {chosen.size} pixels"
    print(f"{path}: {found.spectrum.count} photos, {found.count} pixels; {skipped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
