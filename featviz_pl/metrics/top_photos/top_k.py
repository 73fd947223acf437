"""The few photos of each unit that are kept, and what is known of all the others: memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featviz_pl.metrics.top_photos.results import PERCENTILES, ScoreDistribution

Numbers = NDArray[Any]
NOBODY = np.iinfo(np.int64).max  # no photo
SAMPLED = 4096  # photos whose scores are kept for percentiles and density
BINS = 32


@dataclass(frozen=True)
class Cut:
    """Hold where a unit was highest in one photo, and that part of it.

    Args:
        position: of the layer where it was highest: (y, x), (token,), or nothing for a vector.
        box: (top, left, bottom, right) of what this position sees, in pixels.
        size: (height, width) of the photo.
        levels: the part in 256 levels (C, h, w).
    """

    position: tuple[int, ...]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    levels: NDArray[np.uint8]


class KeptPhotos:
    """Keep the photos with the k lowest orders for each unit; equal ones by their number.

    Args:
        units: how many.
        k: photos for each unit, 0 or more.
    """

    def __init__(self, units: int, k: int) -> None:
        self.k = k
        self.orders = np.full((units, k), np.inf)
        self.photos = np.full((units, k), NOBODY, dtype=np.int64)
        self.scores = np.full((units, k), np.nan)
        self.peaks = np.full((units, k), np.nan)
        self.cuts: list[list[Any]] = [[None] * k for _ in range(units)]

    def offer(
        self, orders: Numbers, photos: Numbers, scores: Numbers, peaks: Numbers, cut: Callable[[int, int], Any]
    ) -> None:
        """Take photos that belong to the k lowest.

        Args:
            orders: (units, N), what is lowest first.
            photos: (units, N), their numbers.
            scores: (units, N).
            peaks: (units, N), the highest activations.
            cut: called for each unit and column that is taken.
        """
        if self.k == 0:
            return
        last = (self.orders[:, -1:], self.photos[:, -1:])
        better = (orders < last[0]) | ((orders == last[0]) & (photos < last[1]))
        units = np.flatnonzero(better.any(1))
        if not len(units):
            return
        together = [np.concatenate(pair, 1) for pair in self._with(units, orders, photos, scores, peaks)]
        chosen = np.lexsort((together[1], together[0]), axis=1)[:, : self.k]
        for own, values in zip((self.orders, self.photos, self.scores, self.peaks), together):
            own[units] = np.take_along_axis(values, chosen, 1)
        for unit, columns in zip(units.tolist(), chosen.tolist()):
            held = self.cuts[unit]
            self.cuts[unit] = [held[column] if column < self.k else cut(unit, column - self.k) for column in columns]

    def _with(self, units: Numbers, *offered: Numbers) -> list[tuple[Numbers, Numbers]]:
        return [
            (own[units], new[units]) for own, new in zip((self.orders, self.photos, self.scores, self.peaks), offered)
        ]

    def without_cuts(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Return what other processes need to know before they ask for parts of photos."""
        return self.orders, self.photos, self.scores, self.peaks


@dataclass(frozen=True)
class Place:
    """Say which process holds a part of a photo, and in which column."""

    rank: int
    column: int


@dataclass(frozen=True)
class _Places:
    """Say instead of cutting which process has already cut."""

    rank: int

    def __call__(self, unit: int, column: int) -> Place:
        return Place(self.rank, column)


def merged(shares: Sequence[tuple[Numbers, Numbers, Numbers, Numbers]], k: int) -> KeptPhotos:
    """Join what several processes keep; parts of photos are places where to find them."""
    whole = KeptPhotos(len(shares[0][0]), k)
    for rank, share in enumerate(shares):
        whole.offer(*share, cut=_Places(rank))
    return whole


class ScoreStatistics:
    """Follow the scores of all photos: moments and extremes exactly, percentiles and density from a sample.

    The sample are the photos with the lowest draws, at most `SAMPLED`: all of them, up to that number.

    Args:
        units: how many.
    """

    def __init__(self, units: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(units), np.zeros(units)
        self.least, self.greatest = np.full(units, np.inf), np.full(units, -np.inf)
        self.active = np.zeros(units, dtype=np.int64)
        self.draws = np.zeros(0)
        self.photos = np.zeros(0, dtype=np.int64)
        self.sample = np.zeros((0, units), dtype=np.float32)

    def add(self, scores: Numbers, photos: Numbers, draws: Numbers) -> None:
        """Add scores (N, units) of photos (N,)."""
        if len(scores):
            wide = scores.astype(np.float64)
            mean = wide.mean(0)
            self._join(len(wide), mean, ((wide - mean) ** 2).sum(0), wide.min(0), wide.max(0), (wide > 0).sum(0))
            self._sample(draws, photos, scores)

    def join(self, other: ScoreStatistics) -> None:
        """Add what another process has seen."""
        self._join(other.count, other.mean, other.squares, other.least, other.greatest, other.active)
        self._sample(other.draws, other.photos, other.sample)

    def _join(
        self, count: int, mean: Numbers, squares: Numbers, least: Numbers, greatest: Numbers, active: Numbers
    ) -> None:
        """Join two means and sums of squared deviations (Chan, Golub, LeVeque, 1979)."""
        total = self.count + count
        if count:
            apart = mean - self.mean
            self.squares = self.squares + squares + apart**2 * (self.count * count / total)
            self.mean = self.mean + apart * (count / total)
        self.count = total
        self.least, self.greatest = np.minimum(self.least, least), np.maximum(self.greatest, greatest)
        self.active = self.active + active

    def _sample(self, draws: Numbers, photos: Numbers, scores: Numbers) -> None:
        if len(self.draws) == SAMPLED:
            low = draws <= self.draws[-1]
            draws, photos, scores = draws[low], photos[low], scores[low]
        draws, photos = np.concatenate([self.draws, draws]), np.concatenate([self.photos, photos])
        chosen = np.lexsort((photos, draws))[:SAMPLED]
        self.draws, self.photos = draws[chosen], photos[chosen]
        self.sample = np.concatenate([self.sample, scores] if len(self.sample) else [scores])[chosen]

    def distributions(self) -> list[ScoreDistribution]:
        """Return the distribution of each unit."""
        percentiles = np.percentile(self.sample.astype(np.float64), PERCENTILES, axis=0)
        return [self._distribution(unit, percentiles[:, unit]) for unit in range(len(self.mean))]

    def _distribution(self, unit: int, percentiles: Numbers) -> ScoreDistribution:
        least, greatest = float(self.least[unit]), float(self.greatest[unit])
        finite = bool(np.isfinite([least, greatest]).all())
        density, edges = np.zeros(0), np.zeros(0)
        if finite:  # a histogram of what is no number has no bins
            density, edges = np.histogram(
                self.sample[:, unit].astype(np.float64), bins=BINS, range=(least, greatest), density=True
            )
        return ScoreDistribution(
            photos=self.count,
            sampled=len(self.sample),
            mean=float(self.mean[unit]),
            std=float(np.sqrt(self.squares[unit] / self.count)),
            least=least,
            greatest=greatest,
            active=float(self.active[unit] / self.count),
            percentiles={str(percent): float(value) for percent, value in zip(PERCENTILES, percentiles)},
            edges=[float(edge) for edge in edges],
            density=[float(value) for value in density],
        )
