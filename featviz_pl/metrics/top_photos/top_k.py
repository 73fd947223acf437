"""Streaming statistics of unit scores, in constant memory: the top k photos and the distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featviz_pl.metrics.top_photos.results import PERCENTILES, ScoreDistribution

Array = NDArray[Any]
NO_PHOTO = np.iinfo(np.int64).max
SAMPLE_SIZE = 4096  # photos whose scores are stored for percentiles and density
BINS = 32


@dataclass(frozen=True)
class Crop:
    """The part of a photo that the position with the highest activation sees.

    Args:
        position: of the highest activation in the layer: (y, x), (token,), or () for a vector.
        box: (top, left, bottom, right) of the receptive field, in pixels.
        size: (height, width) of the photo.
        levels: the part in 256 levels (C, h, w).
    """

    position: tuple[int, ...]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    levels: NDArray[np.uint8]


@dataclass(frozen=True)
class RemoteCrop:
    """Location of a crop in another process.

    Args:
        rank: index of the process.
        column: of the crop in its `TopPhotos`.
    """

    rank: int
    column: int


class TopPhotos:
    """Keep the k photos with the lowest sort keys for each unit; ties go to the lower photo number.

    Args:
        units: number of units.
        k: photos for each unit, 0 or more.
    """

    def __init__(self, units: int, k: int) -> None:
        self.k = k
        self.keys = np.full((units, k), np.inf)
        self.photos = np.full((units, k), NO_PHOTO, dtype=np.int64)
        self.scores = np.full((units, k), np.nan)
        self.peaks = np.full((units, k), np.nan)
        self.crops: list[list[Any]] = [[None] * k for _ in range(units)]

    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Return keys, photo numbers, scores and peaks, each (units, k)."""
        return self.keys, self.photos, self.scores, self.peaks

    def update(self, keys: Array, photos: Array, scores: Array, peaks: Array, crop: Callable[[int, int], Any]) -> None:
        """Insert the photos that are among the k lowest.

        Args:
            keys: (units, N), sort keys.
            photos: (units, N), photo numbers.
            scores: (units, N).
            peaks: (units, N), the highest activations.
            crop: called with unit and column for each photo that is inserted; its result goes to `crops`.
        """
        if self.k == 0:
            return
        last_key, last_photo = self.keys[:, -1:], self.photos[:, -1:]
        better = (keys < last_key) | ((keys == last_key) & (photos < last_photo))
        units = np.flatnonzero(better.any(1))
        if not len(units):
            return
        candidates = [
            np.concatenate([state[units], values[units]], 1)
            for state, values in zip(self.arrays(), (keys, photos, scores, peaks))
        ]
        columns = np.lexsort((candidates[1], candidates[0]), axis=1)[:, : self.k]
        for state, values in zip(self.arrays(), candidates):
            state[units] = np.take_along_axis(values, columns, 1)
        for unit, row in zip(units.tolist(), columns.tolist()):
            crops = self.crops[unit]
            self.crops[unit] = [crops[column] if column < self.k else crop(unit, column - self.k) for column in row]


def merge(shares: Sequence[tuple[Array, Array, Array, Array]], k: int) -> TopPhotos:
    """Return the top k of the arrays of several processes, with a `RemoteCrop` for each photo."""
    top = TopPhotos(len(shares[0][0]), k)
    for rank, share in enumerate(shares):
        top.update(*share, crop=lambda _, column, rank=rank: RemoteCrop(rank, column))  # type: ignore[misc]
    return top


class ScoreStatistics:
    """Accumulate the scores of all photos: moments and extremes exactly, percentiles and density from a sample.

    The sample are the photos with the lowest random keys, at most `SAMPLE_SIZE`: all of them, up to that number.

    Args:
        units: number of units.
    """

    def __init__(self, units: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(units), np.zeros(units)
        self.least, self.greatest = np.full(units, np.inf), np.full(units, -np.inf)
        self.active = np.zeros(units, dtype=np.int64)
        self.keys = np.zeros(0)
        self.photos = np.zeros(0, dtype=np.int64)
        self.sample = np.zeros((0, units), dtype=np.float32)

    def update(self, scores: Array, photos: Array, keys: Array) -> None:
        """Add scores (N, units) of photos (N,) with their random keys (N,)."""
        if len(scores):
            scores64 = scores.astype(np.float64)
            mean = scores64.mean(0)
            squares = ((scores64 - mean) ** 2).sum(0)
            self._add(len(scores64), mean, squares, scores64.min(0), scores64.max(0), (scores64 > 0).sum(0))
            self._add_sample(keys, photos, scores)

    def merge(self, statistics: ScoreStatistics) -> None:
        """Add the statistics of another process."""
        self._add(*(getattr(statistics, name) for name in ("count", "mean", "squares", "least", "greatest", "active")))
        self._add_sample(statistics.keys, statistics.photos, statistics.sample)

    def _add(self, count: int, mean: Array, squares: Array, least: Array, greatest: Array, active: Array) -> None:
        """Combine two means and sums of squared deviations (Chan, Golub, LeVeque, 1979)."""
        total = self.count + count
        if count:
            difference = mean - self.mean
            self.squares = self.squares + squares + difference**2 * (self.count * count / total)
            self.mean = self.mean + difference * (count / total)
        self.count = total
        self.least, self.greatest = np.minimum(self.least, least), np.maximum(self.greatest, greatest)
        self.active = self.active + active

    def _add_sample(self, keys: Array, photos: Array, scores: Array) -> None:
        if len(self.keys) == SAMPLE_SIZE:
            low = keys <= self.keys[-1]
            keys, photos, scores = keys[low], photos[low], scores[low]
        keys, photos = np.concatenate([self.keys, keys]), np.concatenate([self.photos, photos])
        order = np.lexsort((photos, keys))[:SAMPLE_SIZE]
        self.keys, self.photos = keys[order], photos[order]
        self.sample = np.concatenate([self.sample, scores] if len(self.sample) else [scores])[order]

    def distributions(self) -> list[ScoreDistribution]:
        """Return the distribution of each unit."""
        percentiles = np.percentile(self.sample.astype(np.float64), PERCENTILES, axis=0)
        return [self._distribution(unit, percentiles[:, unit]) for unit in range(len(self.mean))]

    def _distribution(self, unit: int, percentiles: Array) -> ScoreDistribution:
        least, greatest = float(self.least[unit]), float(self.greatest[unit])
        density, edges = np.zeros(0), np.zeros(0)
        if np.isfinite([least, greatest]).all():  # else a histogram has no bins
            scores = self.sample[:, unit].astype(np.float64)
            density, edges = np.histogram(scores, bins=BINS, range=(least, greatest), density=True)
        return ScoreDistribution(
            photos=self.count,
            sampled=len(self.sample),
            mean=float(self.mean[unit]),
            std=float(np.sqrt(self.squares[unit] / self.count)),
            least=least,
            greatest=greatest,
            active=float(self.active[unit] / self.count),
            percentiles={str(percent): float(value) for percent, value in zip(PERCENTILES, percentiles)},
            edges=edges.tolist(),
            density=density.tolist(),
        )
