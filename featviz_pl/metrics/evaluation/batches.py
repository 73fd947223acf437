"""Pictures of any sizes, shown to metrics in batches of one size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.metrics.base import PictureMetric, check_pictures
from featviz_pl.metrics.evaluation.pictures import EvaluatedPicture, named

_AT_ONCE = 32  # pictures that a metric is shown together
Values = list[float | None]


class Batches:
    """Hold pictures and what a reader should know of them, and show them to metrics.

    Args:
        pictures: of any sizes.

    Raises:
        ValueError: when one holds no values in [0, 1], by its name.
    """

    def __init__(self, pictures: list[EvaluatedPicture]) -> None:
        self.pictures = pictures
        self.notes: list[str] = []
        for picture in pictures:
            try:
                check_pictures(picture.image[None])
            except ValueError as error:
                raise ValueError(f"{picture.name}: {error}") from error

    def measured(
        self,
        metric: PictureMetric,
        others: Sequence[Any] | None = None,
        channels: int | None = None,
        skip: str | None = None,
    ) -> Values:
        """Return the values of a metric; where `others` has None there is none.

        A metric is asked directly, not updated: nothing is then summed over the processes of a run, which may not all
        be here.
        """
        values: Values = [None] * len(self.pictures)
        for places in self.parts(
            [place for place in range(len(self.pictures)) if others is None or others[place] is not None]
        ):
            batch = self.batch(places, channels)
            metric.to(batch.device)
            try:
                found = metric.measure(batch, *([] if others is None else [[others[place] for place in places]]))
            except ValueError as error:
                if skip is None:
                    raise
                self.notes.append(f"{named([self.pictures[place].name for place in places])}: {skip}: {error}")
                continue
            for place, value in zip(places, found.tolist()):
                values[place] = finite(value)
        return values

    def parts(self, places: Sequence[int]) -> Iterator[list[int]]:
        """Yield the places of pictures that fit into one batch."""
        groups: dict[Any, list[int]] = {}
        for place in places:
            image = self.pictures[place].image
            groups.setdefault((image.shape, image.dtype, image.device), []).append(place)
        for group in groups.values():
            yield from (group[first : first + _AT_ONCE] for first in range(0, len(group), _AT_ONCE))

    def batch(self, places: Sequence[int], channels: int | None = None) -> Tensor:
        """Return pictures as a batch; grey ones in color where that is asked for."""
        batch = check_pictures(torch.stack([self.pictures[place].image for place in places]))
        return batch.expand(-1, channels, -1, -1) if batch.shape[1] == 1 and channels is not None else batch


def finite(value: float) -> float | None:
    """Return a value, or None where it is no number.

    Example:
        >>> finite(2.0), finite(float("nan"))
        (2.0, None)
    """
    return value if math.isfinite(value) else None
