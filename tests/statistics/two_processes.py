"""Measure one share of some pictures: started as one program for each process, which meet over gloo.

Prints one line of JSON: what both metrics found over all processes.
"""

from __future__ import annotations

import json
import sys

import torch
from torch import distributed

from featviz_pl.statistics import AmplitudeSpectrum, ColorCovariance


def main(rank: int, processes: int, meeting: str, pictures: str, batch: int) -> None:
    """Join the others, take every so many pictures beginning with the rank, and print."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    images = torch.load(pictures, weights_only=True)
    # Shares of unequal size: the last process takes what the first leaves.
    cut = len(images) // 3
    share = images[:cut] if rank == 0 else images[cut:]
    colors, spectrum = ColorCovariance(), AmplitudeSpectrum(8)
    for part in share.split(batch + rank):
        colors.update(part)
        spectrum.update(part)
    results, magnitude = colors.compute(), spectrum.compute()
    report = {
        "mean": results.mean.tolist(),
        "covariance": results.covariance.tolist(),
        "pixels": results.count,
        "magnitude": magnitude.magnitude.tolist(),
        "pictures": magnitude.count,
    }
    print("REPORT", json.dumps(report))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
