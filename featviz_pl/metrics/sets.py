"""How different the pictures of a set are, and whether those of each target agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.metrics.base import check_pictures, check_targets
from featviz_pl.metrics.embedding import Embedding, check_embedding, unit_vectors
from featviz_pl.metrics.row_metric import RowMetric, target_keys


class _SetMetric(RowMetric):
    """Hold the vector of every picture; a subclass computes a value of all."""

    def __init__(self, embedding: Embedding | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = check_embedding(embedding)
        self.add_rows("vectors")

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state."""
        return (self.embedding.width,) if name == "vectors" else ()

    def update(self, pictures: Tensor) -> None:
        """Add further pictures (N, C, H, W)."""
        self.append(vectors=unit_vectors(self.embedding, check_pictures(pictures)))

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"embedding={self.embedding!r}"


class PairwiseDistance(_SetMetric):
    """Measure the mean distance between pictures.

    ``mean over pairs of 1 - cos(v_i, v_j)``: 0 where all are the same. NaN for a single picture.

    Range: [0, 2]; neither is better: higher is more diverse, and noise is diverse too.

    Shape:
        update: pictures (N, C, H, W) in [0, 1], sizes may differ between updates; compute: ()

    Args:
        embedding: that compares pictures; the default `Embedding` unless given.
        kwargs: of `torchmetrics.Metric`.

    Example:
        >>> metric = PairwiseDistance(Embedding(size=48))
        >>> metric.update(torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1))
        >>> round(metric.compute().item(), 6)
        0.0

    Reference:
        Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        2018 (distance of pictures by the features of a network)
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 2.0

    def compute(self) -> Tensor:
        """Return the mean distance over all pairs."""
        vectors = self.rows("vectors")
        return (1 - mean_of_pairs(vectors)).clamp_min(0)


class VendiScore(_SetMetric):
    """Count how many different pictures there are, by an embedding.

    ``exp(-sum of l log l)`` over the eigenvalues l of ``K / n``, ``K_ij = cos(v_i, v_j)``: n equal pictures count as
    1, n orthogonal ones as n. By the default embedding, in which no pictures are orthogonal, 50 photos of different
    classes count as 7: compare sets of the same number by the same embedding.

    Range: [1, number of pictures]; neither is better: higher is more diverse, and noise is diverse too.

    Shape:
        update: pictures (N, C, H, W) in [0, 1], sizes may differ between updates; compute: ()

    Args:
        embedding: that compares pictures; the default `Embedding` unless given.
        kwargs: of `torchmetrics.Metric`.

    Example:
        >>> metric = VendiScore(Embedding(size=48))
        >>> metric.update(torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1))
        >>> round(metric.compute().item(), 6)
        1.0

    Reference:
        Friedman, Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", 2023
    """

    plot_lower_bound = 1.0

    def compute(self) -> Tensor:
        """Return the effective number of different pictures."""
        vectors = self.rows("vectors")
        count, width = vectors.shape
        products = vectors @ vectors.T if count <= width else vectors.T @ vectors  # the same eigenvalues, but for zeros
        shares = torch.linalg.eigvalsh(products / count).clamp_min(0)
        entropy: Tensor = torch.special.entr(shares).sum()
        return entropy.exp().clamp_min(1)


class Agreement(_SetMetric):
    """Measure whether pictures of one target agree, such as those of several seeds or parameterizations.

    For each target that has two pictures or more, ``(w - b) / (1 - b)``, where w is the mean cosine of pairs of its
    pictures and b that of its pictures with those of other targets; then the mean over targets: 1 where its pictures
    are the same, 0 where they are no more alike than those of different targets. NaN where no target has two pictures,
    or there is only one target.

    Range: (-∞, 1]; higher is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: ()

    Args:
        embedding: that compares pictures; the default `Embedding` unless given.
        kwargs: of `torchmetrics.Metric`.

    Example:
        >>> metric = Agreement(Embedding(size=48))
        >>> pictures = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
        >>> metric.update(pictures, ["output:1", "output:2", "output:1", "output:2"])
        >>> round(metric.compute().item(), 4)
        1.0

    Reference:
        Bareeva, Höhne, Warnecke, Pirch, Müller, Rieck, Lapuschkin, Bykov, "Manipulating Feature Visualizations with
        Gradient Slingshots", 2025 (other starts as a defence); the normalisation is this library's
    """

    higher_is_better = True  # type: ignore[assignment]  # the base has no direction
    plot_upper_bound = 1.0

    def __init__(self, embedding: Embedding | None = None, **kwargs: Any) -> None:
        super().__init__(embedding, **kwargs)
        self.add_rows("keys", torch.int64)

    def update(self, pictures: Tensor, targets: str | Sequence[str] = ()) -> None:
        """Add further pictures (N, C, H, W), each of its target: one for all, or one for each."""
        checked = check_pictures(pictures)
        keys = target_keys(check_targets(targets, len(checked))).to(checked.device)
        super().update(checked)
        self.append(keys=keys)

    def compute(self) -> Tensor:
        """Return the mean agreement over the targets that have two pictures or more."""
        vectors, keys = self.rows("vectors"), self.rows("keys")
        values = []
        for key in keys.unique():
            same, different = vectors[keys == key], vectors[keys != key]
            if len(same) > 1 and len(different):
                within, between = mean_of_pairs(same), same.mean(0) @ different.mean(0)
                distance = 1 - between
                values.append(torch.where(distance > 1e-9, (within - between) / distance.clamp_min(1e-9), 0.0))
        return torch.stack(values).mean().clamp_max(1) if values else vectors.new_tensor(torch.nan)


def mean_of_pairs(vectors: Tensor) -> Tensor:
    """Return the mean product of two different vectors (N, D), NaN where there is only one."""
    count = len(vectors)
    if count < 2:
        return vectors.new_tensor(torch.nan)
    return (vectors.sum(0).square().sum() - vectors.square().sum()) / (count * (count - 1))
