"""Merge the top photos of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer

from featviz_pl.metrics.top_photos.results import KINDS, PhotoPatch, UnitActivations
from featviz_pl.metrics.top_photos.top_k import RemoteCrop, ScoreStatistics, TopPhotos, merge
from featviz_pl_callbacks._photo_numbers import PHOTOS_PER_LOADER
from featviz_pl_callbacks._training_guard import gathered

UNITS_PER_EXCHANGE = 64  # units whose patches processes exchange at once


def merge_results(
    photos: dict[str, TopPhotos] | None, statistics: ScoreStatistics | None, counts: dict[str, int], trainer: Trainer
) -> list[UnitActivations]:
    """Return the results of all units of a layer, the same in all processes; a collective operation.

    Args:
        photos: of this process by kind, or None when it saw no photo.
        statistics: of this process, or None.
        counts: photos of each kind.
        trainer: its processes take part.
    """
    if trainer.world_size > 1:
        arrays = None if photos is None else {kind: top.arrays() for kind, top in photos.items()}
        shares = gathered((arrays, statistics), trainer)
        photos = _merge_photos(photos, [share for share, _ in shares], counts, trainer)
        parts = [part for _, part in shares if part is not None]
        statistics = parts[0] if parts else None
        for part in parts[1:]:
            parts[0].merge(part)
    if photos is None or statistics is None:  # there was no photo
        return []
    patches = {kind: _patches(top) for kind, top in photos.items()}
    return [
        UnitActivations(patches["top"][unit], patches["random"][unit], patches["least"][unit], distribution)
        for unit, distribution in enumerate(statistics.distributions())
    ]


def _merge_photos(
    photos: dict[str, TopPhotos] | None,
    shares: Sequence[dict[str, Any] | None],
    counts: dict[str, int],
    trainer: Trainer,
) -> dict[str, TopPhotos] | None:
    """Select the top k of all processes, then exchange the crops of these alone, some units at a time."""
    ranks = [rank for rank, share in enumerate(shares) if share is not None]
    if not ranks:
        return None
    merged = {}
    for kind in KINDS:
        top = merged[kind] = merge([share[kind] for share in shares if share is not None], counts[kind])
        for first in range(0, len(top.crops), UNITS_PER_EXCHANGE):
            crops = {}
            for unit in range(first, min(first + UNITS_PER_EXCHANGE, len(top.crops))):
                for slot, crop in enumerate(top.crops[unit]):
                    if photos is not None and isinstance(crop, RemoteCrop) and ranks[crop.rank] == trainer.global_rank:
                        crops[unit, slot] = photos[kind].crops[unit][crop.column]
            for part in gathered(crops, trainer):
                for (unit, slot), crop in part.items():
                    top.crops[unit][slot] = crop
    return merged


def _patches(top: TopPhotos) -> list[list[PhotoPatch]]:
    """Return the photos of each unit, in order."""
    return [
        [
            PhotoPatch(
                photo=int(photo % PHOTOS_PER_LOADER),
                loader=int(photo // PHOTOS_PER_LOADER),
                score=float(score),
                peak=float(peak),
                position=crop.position,
                box=crop.box,
                size=crop.size,
                levels=torch.from_numpy(crop.levels),
            )
            for photo, score, peak, crop in zip(top.photos[unit], top.scores[unit], top.peaks[unit], crops)
            if crop is not None
        ]
        for unit, crops in enumerate(top.crops)
    ]
