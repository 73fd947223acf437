"""The photos of each unit, chosen from what all processes keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer

from featviz_pl.metrics.top_photos.results import KINDS, PhotoPatch, UnitActivations
from featviz_pl.metrics.top_photos.top_k import KeptPhotos, ScoreStatistics, merged
from featviz_pl_callbacks._photo_numbers import OF_ONE_LOADER
from featviz_pl_callbacks._training_guard import gathered

UNITS_TOGETHER = 64  # whose patches processes hand over at once


def joined_results(
    kept: dict[str, KeptPhotos] | None, statistics: ScoreStatistics | None, counts: dict[str, int], trainer: Trainer
) -> list[UnitActivations]:
    """Return the results of all units of one layer, the same in all processes; each must call this at the same place.

    Args:
        kept: by this process, or None when it saw no photo.
        statistics: of this process, or None.
        counts: photos of each kind.
        trainer: of all processes.
    """
    together, whole = kept, statistics
    if trainer.world_size > 1:
        shares = gathered(
            (None if kept is None else {kind: one.without_cuts() for kind, one in kept.items()}, statistics), trainer
        )
        together = _joined(kept, [share for share, _ in shares], counts, trainer)
        seen = [other for _, other in shares if other is not None]
        whole = seen[0] if seen else None
        for other in seen[1:]:
            seen[0].join(other)
    if together is None or whole is None:  # there was no photo
        return []
    patches = {kind: _patches(one) for kind, one in together.items()}
    return [
        UnitActivations(patches["top"][unit], patches["random"][unit], patches["least"][unit], distribution)
        for unit, distribution in enumerate(whole.distributions())
    ]


def _joined(
    kept: dict[str, KeptPhotos] | None,
    shares: Sequence[dict[str, Any] | None],
    counts: dict[str, int],
    trainer: Trainer,
) -> dict[str, KeptPhotos] | None:
    """Choose among what all processes keep, then hand over the parts of photos that were chosen, some units at a time."""
    ranks = [rank for rank, share in enumerate(shares) if share is not None]
    if not ranks:
        return None
    found = {}
    for kind in KINDS:
        whole = merged([share[kind] for share in shares if share is not None], counts[kind])
        for first in range(0, len(whole.cuts), UNITS_TOGETHER):
            units = range(first, min(first + UNITS_TOGETHER, len(whole.cuts)))
            own = {
                (unit, slot): kept[kind].cuts[unit][place.column]
                for unit in units
                for slot, place in enumerate(whole.cuts[unit])
                if kept is not None and place is not None and ranks[place.rank] == trainer.global_rank
            }
            for part in gathered(own, trainer):
                for (unit, slot), cut in part.items():
                    whole.cuts[unit][slot] = cut
        found[kind] = whole
    return found


def _patches(kept: KeptPhotos) -> list[list[PhotoPatch]]:
    """Return the photos of each unit, in order."""
    return [
        [
            PhotoPatch(
                photo=int(photo % OF_ONE_LOADER),
                loader=int(photo // OF_ONE_LOADER),
                score=float(score),
                peak=float(peak),
                position=cut.position,
                box=cut.box,
                size=cut.size,
                levels=torch.from_numpy(cut.levels),
            )
            for photo, score, peak, cut in zip(kept.photos[unit], kept.scores[unit], kept.peaks[unit], cuts)
            if cut is not None
        ]
        for unit, cuts in enumerate(kept.cuts)
    ]
