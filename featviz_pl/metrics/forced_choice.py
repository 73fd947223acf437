"""Does a picture tell what its unit responds to? Whoever sees it must tell strongly from weakly exciting photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.io import read_picture
from featviz_pl.metrics.base import PictureMetric, check_pictures, check_targets
from featviz_pl.metrics.embedding import Embedding, PhotoEmbeddings, load_embeddings
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations
from featviz_pl.metrics.row_metric import RowMetric, check_embedding, target_keys, unit_vectors
from featviz_pl.numerics.checks import whole_number

Paths = str | os.PathLike[str]


class ForcedChoice(RowMetric, PictureMetric):
    """Measure how often a picture's likeness tells a photo that excites its unit strongly from one that does so weakly.

    Of the k photos that excite the target most and the k that do so least, every pair is a question. The answer is
    right when ``s(strong) > s(weak)``, where ``s(photo) = cos(photo, picture) - mean over controls of cos(photo,
    control)``; the score is the share of right answers, ties counted half. Of fewer than 2 k photos, half are strong
    and half weak.

    The controls are pictures of other targets. Rendered pictures have much in common, and what they share is nearer to
    some photos whatever the unit: without controls those of other units, too, answer up to 80 % of the questions. A
    picture of another unit is at chance, 0.5, on average. Unless `controls` or an opposite are given, the controls are
    the other pictures that the metric has seen, and the score of one depends on them; where none are of another target,
    it is NaN.

    Range: [0, 1]; higher is better, and 0.5 is chance.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        activations: of photos, from `measure_activations`, or a file of them.
        embeddings: of the same photos, from `embed_photos`, or a file of them. They are matched by path.
        embedding: by which they were embedded; the default `Embedding` unless given.
        k: number of photos on either side, 1 or more.
        controls: pictures that were made in the same way for other targets: a batch (M, C, H, W), their vectors (M, D),
            or files. The measured pictures themselves may be among them.
        control_targets: what the controls were made for, one for each: those of a picture's own target are then left
            out for it.
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when there is only one photo, the photos differ, they were embedded by another embedding, or a
            target is not among the activations.

    Example:
        >>> red, blue = (torch.tensor(color).view(1, 3, 1, 1).expand(2, 3, 48, 48) for color in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]))
        >>> embedding, names = Embedding(size=48), ["a.png", "b.png", "c.png", "d.png"]
        >>> photos = PhotoEmbeddings(embedding(torch.cat([red, blue])), names, embedding.identity())
        >>> values = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0], [0.0, 3.0]])  # unit 0 responds to red, unit 1 to blue
        >>> metric = ForcedChoice(PhotoActivations({"features": values}, names, "toy", "", 48), photos, embedding)
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
        embedding: Embedding | None = None,
        k: int = 20,
        controls: Tensor | list[str] | None = None,
        control_targets: list[str] | None = None,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, **kwargs)
        self._files = [
            None if isinstance(one, (PhotoActivations, PhotoEmbeddings)) else os.fspath(one)
            for one in (activations, embeddings)
        ]
        self.activations = activations if isinstance(activations, PhotoActivations) else load_activations(activations)
        self.embeddings = embeddings if isinstance(embeddings, PhotoEmbeddings) else load_embeddings(embeddings)
        if len(self.activations) < 2:
            raise ValueError("activations: of one photo; a choice needs two or more")
        self.embedding = check_embedding(embedding)
        self.embeddings.check(self.embedding)
        self.k = whole_number("k", k)
        self._places = _matched(self.activations.paths, self.embeddings.paths)
        if control_targets is not None and controls is None:
            raise ValueError("control_targets: there are no controls; give both, or neither")
        self._controls = None if controls is None else self._control_vectors(controls)
        held = (
            None
            if self._controls is None or control_targets is None
            else check_targets(control_targets, len(self._controls))
        )
        self._control_keys = None if held is None else target_keys(held)
        self.add_rows("vectors")
        self.add_rows(
            "contrasts"
        )  # of the controls; NaN where these are the other pictures, which are known at the end
        self.add_rows("queries", torch.int64)
        self.add_rows("keys", torch.int64)

    def _control_vectors(self, controls: Any) -> Tensor:
        """Return the vectors (M, D) of the controls."""
        if isinstance(controls, Tensor) and controls.ndim == 2:
            width = self.embeddings.values.shape[1]
            if controls.shape[1] != width or not len(controls):
                raise ValueError(
                    f"controls must be (M, {width}) as vectors of this embedding, got shape {tuple(controls.shape)}"
                )
            return functional.normalize(controls.detach().to("cpu", torch.float64), dim=1)
        if isinstance(controls, Tensor):
            return unit_vectors(self.embedding, check_pictures(controls)).cpu()
        if not isinstance(controls, Sequence) or isinstance(controls, str) or not len(controls):
            raise TypeError(
                f"controls must be pictures (M, C, H, W), their vectors or a list of their files, got {type(controls).__name__}"
            )
        shown = [read_picture(path, self.embedding.network.channels)[None] for path in controls]
        return torch.cat([unit_vectors(self.embedding, picture) for picture in shown])

    def row_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of a state."""
        width = self.embeddings.values.shape[1]
        return {"vectors": (width,), "contrasts": (width,), "queries": (2 * self._pairs,), "keys": ()}[name]

    @property
    def _pairs(self) -> int:
        """Number of photos on either side."""
        return min(self.k, len(self.activations) // 2)

    def update(
        self, pictures: Tensor, targets: str | Sequence[str] = (), opposites: Tensor | None = None, *others: Any
    ) -> None:
        """Add further pictures (N, C, H, W), each of its target: one for all, or one for each.

        Args:
            pictures: (N, C, H, W) in [0, 1].
            targets: such as ``"features.9:33"``.
            opposites: (N, C, H, W) pictures of what excites the target least, in place of controls.
            others: of the base; none.
        """
        for name, rows in self._seen(check_pictures(pictures), targets, opposites).items():
            getattr(self, name).append(rows)

    def measure(
        self, pictures: Tensor, targets: str | Sequence[str] = (), opposites: Tensor | None = None, *others: Any
    ) -> Tensor:
        """Return the score (N,) of each picture among these; see `update`."""
        return self._scores(**self._seen(pictures, targets, opposites))

    def compute(self) -> Tensor:
        """Return the mean of the scores, or all of them."""
        scores = self._scores(self.rows("vectors"), self.rows("contrasts"), self.rows("queries"), self.rows("keys"))
        return scores.mean() if self.reduction == "mean" else scores

    def _seen(self, pictures: Tensor, targets: str | Sequence[str], opposites: Tensor | None) -> dict[str, Tensor]:
        """Return the rows of pictures: vector, contrast, places of the strong photos and then of the weak ones, target."""
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
            contrasts = _mean_of_others(keys, self._controls, self._control_keys)
        device = vectors.device
        return {
            "vectors": vectors,
            "contrasts": contrasts.to(device),
            "queries": queries.to(device),
            "keys": keys.to(device),
        }

    def _queries(self, target: str) -> Tensor:
        """Return the places (2 k,) of the strong photos and then of the weak ones among the embeddings."""
        strong, weak = self.activations.strongest(target, self._pairs), self.activations.weakest(target, self._pairs)
        return self._places[torch.cat([strong, weak])]

    def _scores(self, vectors: Tensor, contrasts: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the share of right answers (N,) of each picture."""
        if self._controls is None:
            contrasts = torch.where(contrasts.isnan(), _mean_of_others(keys, vectors, keys), contrasts)
        photos = functional.normalize(self.embeddings.values.to(vectors.device, torch.float64), dim=1)
        found = []
        for direction, places in zip(vectors - contrasts, queries):
            strong, weak = (photos[places] @ direction).chunk(2)
            apart = strong[:, None] - weak
            found.append(torch.where(apart.isnan(), apart, (apart.sign() + 1) / 2).mean())
        return torch.stack(found)

    def extra_repr(self) -> str:
        """Show the arguments."""
        photos = [repr(file or held) for file, held in zip(self._files, (self.activations, self.embeddings))]
        controls = "" if self._controls is None else f"controls=<{len(self._controls)}>, "
        return f"{', '.join(photos)}, embedding={self.embedding!r}, k={self.k}, {controls}{super().extra_repr()}"


def _mean_of_others(keys: Tensor, vectors: Tensor, their_keys: Tensor) -> Tensor:
    """Return for each key (N,) the mean (N, D) of the vectors of other keys, NaN where there are none."""
    means = {key: vectors[their_keys.to(vectors.device) != key].mean(0) for key in keys.unique().tolist()}
    return torch.stack([means[key] for key in keys.tolist()])


def _matched(names: list[str], others: list[str]) -> Tensor:
    """Return the place of each photo of the activations among the embeddings.

    Raises:
        ValueError: when they are not the same photos.
    """
    places = {name: place for place, name in enumerate(others)}
    missing = [name for name in names if name not in places] or sorted(set(others) - set(names))
    if missing or len(names) != len(others):
        raise ValueError(
            f"embeddings: they must be of the photos of the activations, by relative path; {len(names)} and {len(others)} photos, "
            f"and {missing[0] if missing else names[0]!r} is not once in both; measure both on the same folder with the same limit"
        )
    return torch.tensor([places[name] for name in names], dtype=torch.int64)
