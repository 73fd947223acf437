"""Measure photos, or other pictures, with every metric that needs the picture alone: the values of photos that the docstrings quote.

    python benchmarks/natural.py imagenet-samples

The --size x --size pixels about the centre are measured as they are in the file; smaller photos are left out. With
--shrink the largest square about the centre is shrunk to them, which softens the finest detail. With --size 0 pictures
are measured whole.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from featviz_pl.io import as_saved, read_picture
from featviz_pl.io.photos import photo_paths
from featviz_pl.metrics import (
    ClippedShare,
    ColorDistance,
    HighFrequencyShare,
    PictureMetric,
    SpectrumSlope,
    VariationPerPixel,
)
from featviz_pl.numerics.resampling import crop_and_shrink


def metrics() -> list[PictureMetric]:
    return [ClippedShare(), ColorDistance(), SpectrumSlope(), VariationPerPixel(), HighFrequencyShare()]


def read(path: str, size: int, shrink: bool) -> Tensor | None:
    """Return one picture (1, 3, H, W) in 256 levels, or None where it is smaller than `size` or cannot be read."""
    try:
        picture = read_picture(path)[None]
    except ValueError:
        return None
    height, width = picture.shape[-2:]
    if min(height, width) < size:
        return None
    if shrink and size:
        return as_saved(crop_and_shrink(picture, (size, size)))
    top, left = (height - size) // 2, (width - size) // 2
    return picture[..., top : top + size, left : left + size] if size else picture


def measure(paths: Sequence[str], size: int, shrink: bool) -> tuple[dict[str, Tensor], int]:
    """Return the values of every metric for the pictures that count, and how many do not."""
    measured = metrics()
    skipped = 0
    for path in paths:
        picture = read(path, size, shrink)
        if picture is None:
            skipped += 1
            continue
        for metric in measured:
            metric.update(picture)
    if skipped == len(paths):
        raise ValueError(f"sources: none of {len(paths)} pictures can be read and has {size} x {size} pixels")
    return {
        type(metric).__name__: torch.cat([torch.as_tensor(value) for value in metric.values]) for metric in measured
    }, skipped


def summary(values: Tensor) -> dict[str, float]:
    low, middle, high = torch.quantile(values, values.new_tensor([0.05, 0.5, 0.95])).tolist()
    deviation = values.std().item() if len(values) > 1 else 0.0
    return {"mean": values.mean().item(), "deviation": deviation, "5 %": low, "median": middle, "95 %": high}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python benchmarks/natural.py", description="Measure pictures with the metrics of natural images."
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folders of pictures, or files")
    parser.add_argument("--size", type=int, default=224, help="in pixels; 0: all of the picture (default: %(default)s)")
    parser.add_argument("--shrink", action="store_true", help="shrink photos to the size in place of cutting it out")
    parser.add_argument("--limit", type=int, help="read at most so many of a folder, evenly spread")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    options = parser.parse_args(arguments)
    try:
        listed = [
            photo_paths(source, options.limit) if Path(source).is_dir() else [source] for source in options.sources
        ]
        by_metric, skipped = measure([path for paths in listed for path in paths], options.size, options.shrink)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = {name: summary(values) for name, values in by_metric.items()}
    count = len(next(iter(by_metric.values())))
    if options.json:
        print(
            json.dumps(
                {"pictures": count, "skipped": skipped, "size": options.size, "shrunk": options.shrink, "metrics": rows}
            )
        )
        return 0
    print(f"{count} pictures, {skipped} left out")
    print(f"{'':20}" + "".join(f"{column:>11}" for column in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:20}" + "".join(f"{value:11.4f}" for value in row.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
