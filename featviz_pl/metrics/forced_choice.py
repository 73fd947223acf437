"""How well a picture predicts which photos excite its unit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.io import read_picture
from featviz_pl.metrics.base import PictureMetric, Reduction, check_pictures, check_targets
from featviz_pl.metrics.embedding import Embedding, check_embedding, unit_vectors
from featviz_pl.metrics.photo_activations import PhotoActivations
from featviz_pl.metrics.photo_embeddings import PhotoEmbeddings
from featviz_pl.metrics.row_metric import target_keys
from featviz_pl.numerics.checks import whole_number

Paths = str | os.PathLike[str]


class ForcedChoice(PictureMetric):
    """Measure how often the similarity to a picture tells a strongly exciting photo of its unit from a weakly exciting one.

    Of the k photos that excite the target most and the k that do so least, every pair is a question. The answer is
    right when ``s(strong) > s(weak)``, where ``s(photo) = cos(photo, picture) - mean over controls of cos(photo,
    control)``; the score is the share of right answers, ties counted half. Of fewer than 2 k photos, half are strong
    and half weak.

    The controls are pictures of other targets. Rendered pictures have much in common, which is nearer to some photos
    whatever the unit: without controls, pictures of other units answer up to 80 % of the questions too. With them, a
    picture of another unit is at chance, 0.5, on average. Unless `controls` or an opposite are given, the controls are
    the other pictures of the metric, and the score of one depends on them; where none are of another target, it is NaN.

    Range: [0, 1]; higher is better, and 0.5 is chance.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        activations: of photos, from `measure_activations`, or a file of them.
        embeddings: of the same photos, from `embed_photos`, or a file of them. Matched by path.
        embedding: that embedded them; the default `Embedding` unless given.
        k: number of photos on either side, 1 or more.
        controls: pictures that were made in the same way for other targets: a batch (M, C, H, W), their vectors (M, D),
            or files. The measured pictures themselves may be among them.
        control_targets: of the controls, one for each: those of a picture's target are then left out for it.
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when there is only one photo, the photos differ, they were embedded by another embedding, or a
            target is not among the activations.

    Example:
        >>> red, blue = (torch.tensor(color).view(1, 3, 1, 1).expand(2, 3, 48, 48) for color in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]))
        >>> embedding, names = Embedding(size=48), ["a.png", "b.png", "c.png", "d.png"]
        >>> photos = PhotoEmbeddings(embedding(torch.cat([red, blue])), names, identity=embedding.identity())
        >>> values = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])  # unit 0 responds to red, unit 1 to blue
        >>> activations = PhotoActivations({"features": values}, names, network="toy", weights_hash="", size=48)
        >>> metric = ForcedChoice(activations, photos, embedding=embedding)
        >>> metric.update(torch.cat([red[:1], blue[:1]]) * 0.9, ["features:0", "features:1"])
        >>> metric.compute().item()
        1.0

    Reference:
        Zimmermann, Klindt, Brendel, "Measuring Per-Unit Interpretability at Scale Without Humans", 2024 (there the
        control is the picture of the least activation, and similarity is DreamSim's)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(
        self,
        activations: PhotoActivations | Paths,
        embeddings: PhotoEmbeddings | Paths,
        *,
        embedding: Embedding | None = None,
        k: int = 20,
        controls: Tensor | list[str] | None = None,
        control_targets: list[str] | None = None,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        self.activations, activations_repr = PhotoActivations.resolve(activations)
        self.embeddings, embeddings_repr = PhotoEmbeddings.resolve(embeddings)
        self._photos_repr = f"{activations_repr}, {embeddings_repr}"
        if len(self.activations) < 2:
            raise ValueError("activations: of one photo; a choice needs two or more")
        self.embedding = check_embedding(embedding)
        self.embeddings.check(self.embedding)
        self.k = whole_number("k", k)
        self._indices = _matched(self.activations.paths, self.embeddings.paths)
        if control_targets is not None and controls is None:
            raise ValueError("control_targets: there are no controls; give both, or neither")
        self._controls = None if controls is None else self._control_vectors(controls)
        self._control_keys: Tensor | None = None
        if self._controls is not None and control_targets is not None:
            self._control_keys = target_keys(check_targets(control_targets, len(self._controls)))
        self.add_rows("vectors")
        self.add_rows("contrasts")  # of the controls; NaN where these are the other pictures, complete at the end only
        self.add_rows("queries", torch.int64)
        self.add_rows("keys", torch.int64)

    def _control_vectors(self, controls: Any) -> Tensor:
        """Return the vectors (M, D) of the controls."""
        if isinstance(controls, Tensor) and controls.ndim == 2:
            width = self.embeddings.values.shape[1]
            if controls.shape[1] != width or not len(controls):
                shape = tuple(controls.shape)
                raise ValueError(f"controls must be (M, {width}) as vectors of this embedding, got shape {shape}")
            return functional.normalize(controls.detach().to("cpu", torch.float64), dim=1)
        if isinstance(controls, Tensor):
            return unit_vectors(self.embedding, check_pictures(controls)).cpu()
        if not isinstance(controls, Sequence) or isinstance(controls, str) or not len(controls):
            name = type(controls).__name__
            raise TypeError(f"controls must be pictures (M, C, H, W), their vectors or a list of files, got {name}")
        pictures = [read_picture(path, self.embedding.network.channels, "controls")[None] for path in controls]
        return torch.cat([unit_vectors(self.embedding, picture) for picture in pictures])

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state."""
        width = self.embeddings.values.shape[1]
        return {"vectors": (width,), "contrasts": (width,), "queries": (2 * self._pairs,)}.get(name, ())

    @property
    def _pairs(self) -> int:
        """Number of photos on either side."""
        return min(self.k, len(self.activations) // 2)

    def update(
        self, pictures: Tensor, targets: str | Sequence[str] = (), opposites: Tensor | None = None, *inputs: Any
    ) -> None:
        """Add further pictures (N, C, H, W), each of its target: one for all, or one for each.

        Args:
            pictures: (N, C, H, W) in [0, 1].
            targets: such as ``"features.9:33"``.
            opposites: (N, C, H, W) pictures of what excites the target least, in place of controls.
            inputs: of the base; none.
        """
        self.append(**self._picture_rows(check_pictures(pictures), targets, opposites))

    def measure(
        self, pictures: Tensor, targets: str | Sequence[str] = (), opposites: Tensor | None = None, *inputs: Any
    ) -> Tensor:
        """Return the score (N,) of each picture among these; see `update`."""
        return self._scores(**self._picture_rows(pictures, targets, opposites))

    def compute(self) -> Tensor:
        """Return the mean of the scores, or all of them."""
        scores = self._scores(**{name: self.rows(name) for name in ("vectors", "contrasts", "queries", "keys")})
        return scores.mean() if self.reduction == "mean" else scores

    def _picture_rows(
        self, pictures: Tensor, targets: str | Sequence[str], opposites: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the rows of pictures: vectors, contrasts, indices of the strong and then of the weak photos, targets."""
        listed = check_targets(targets, len(pictures))
        queries = torch.stack([self._queries(target) for target in listed])
        keys = target_keys(listed)
        if opposites is not None and check_pictures(opposites).shape[0] != len(pictures):
            raise ValueError(f"opposites: {len(opposites)} do not fit {len(pictures)} pictures; give one for each")
        vectors = unit_vectors(self.embedding, pictures)
        if opposites is not None:
            contrasts = unit_vectors(self.embedding, check_pictures(opposites))
        elif self._controls is None:
            contrasts = torch.full_like(vectors, torch.nan)
        elif self._control_keys is None:
            contrasts = self._controls.mean(0).expand(len(vectors), -1)
        else:
            contrasts = _means_of_other_keys(keys, self._controls, self._control_keys)
        rows = {"vectors": vectors, "contrasts": contrasts, "queries": queries, "keys": keys}
        return {name: values.to(vectors.device) for name, values in rows.items()}

    def _queries(self, target: str) -> Tensor:
        """Return the indices (2 k,) of the strong photos and then of the weak ones among the embeddings."""
        strong, weak = self.activations.strongest(target, self._pairs), self.activations.weakest(target, self._pairs)
        return self._indices[torch.cat([strong, weak])]

    def _scores(self, vectors: Tensor, contrasts: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the share of right answers (N,) of each picture."""
        if self._controls is None:
            contrasts = torch.where(contrasts.isnan(), _means_of_other_keys(keys, vectors, keys), contrasts)
        photos = functional.normalize(self.embeddings.values.to(vectors.device, torch.float64), dim=1)
        scores = []
        for direction, indices in zip(vectors - contrasts, queries):
            strong, weak = (photos[indices] @ direction).chunk(2)
            margins = strong[:, None] - weak
            scores.append(torch.where(margins.isnan(), margins, (margins.sign() + 1) / 2).mean())
        return torch.stack(scores)

    def extra_repr(self) -> str:
        """Show the arguments."""
        controls = "" if self._controls is None else f"controls=<{len(self._controls)}>, "
        return f"{self._photos_repr}, embedding={self.embedding!r}, k={self.k}, {controls}{super().extra_repr()}"


def _means_of_other_keys(keys: Tensor, vectors: Tensor, vector_keys: Tensor) -> Tensor:
    """Return for each key (N,) the mean (N, D) of the vectors of other keys, NaN where there are none."""
    means = {key: vectors[vector_keys.to(vectors.device) != key].mean(0) for key in keys.unique().tolist()}
    return torch.stack([means[key] for key in keys.tolist()])


def _matched(paths: list[str], embedded_paths: list[str]) -> Tensor:
    """Return the index of each photo of the activations among the embeddings.

    Raises:
        ValueError: when they are not the same photos.
    """
    indices = {path: index for index, path in enumerate(embedded_paths)}
    missing = [path for path in paths if path not in indices] or sorted(set(embedded_paths) - set(paths))
    if missing or len(paths) != len(embedded_paths):
        raise ValueError(
            f"embeddings: their {len(embedded_paths)} photos must be the {len(paths)} of the activations, by relative "
            f"path; {missing[0] if missing else paths[0]!r} is not once in both; measure both on one folder with one limit"
        )
    return torch.tensor([indices[path] for path in paths], dtype=torch.int64)
