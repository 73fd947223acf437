"""Does the unit fire? The score of a picture, under views that it was not made for, and among the scores of photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from featviz_pl.metrics.base import PictureMetric, check_targets
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations
from featviz_pl.metrics.targets import Scorer
from featviz_pl.networks import FrozenNetwork, as_network
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.random import mix
from featviz_pl.transforms import Blur, Compose, Jitter, Noise, Pad, Rotate, Scale, Transform, Views
from featviz_pl.transforms.ranges import uniform


class _TargetMetric(PictureMetric):
    """Measure every picture by a network, for the target that it was made for."""

    higher_is_better = True

    def __init__(
        self, network: str | nn.Module | FrozenNetwork, reduction: Literal["mean", "none"] = "mean", **kwargs: Any
    ) -> None:
        super().__init__(reduction, **kwargs)
        self._given = repr(network) if isinstance(network, str) else None
        self.network = as_network(network)
        self._scorer: Scorer | None = None

    def update(self, pictures: Tensor, targets: str | Sequence[str] = (), *others: Any) -> None:
        """Measure further pictures (N, C, H, W), each for its target: one for all, or one for each."""
        super().update(pictures, targets, *others)

    def measure(self, pictures: Tensor, targets: str | Sequence[str] = (), *others: Any) -> Tensor:
        """Return the value (N,) of each picture for its target."""
        return self.value(pictures, check_targets(targets, len(pictures)))

    def value(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Return the value (N,) of each picture for its own target."""
        raise NotImplementedError

    def scorer(self) -> Scorer:
        """Return what scores with the network as it is at the first picture after a reset."""
        if self._scorer is None:
            self._scorer = Scorer(self.network)
        return self._scorer

    def reset(self) -> None:
        """Forget the pictures, and read the network anew: it may be in training."""
        super().reset()
        self._scorer = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be made again."""
        return {**super().__getstate__(), "_scorer": None}

    def __repr__(self) -> str:
        """Return the constructor."""
        network = self._given or f"<{self.network.name}>"
        return f"{type(self).__name__}({network}, {self.extra_repr()})"


class Activation(_TargetMetric):
    """Measure how strongly each picture excites its target: the score that a render reports, without views.

    ``score(picture)``: for a channel the mean over positions, for a class the logit. Scores of different units do not
    compare; their percentiles do.

    Range: (-∞, ∞); higher is better, between pictures of one target.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network. Read as it is at the first update,
            or at the first one after a reset.
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when a target does not parse or names several units, or the network has no such layer, unit or
            class.

    Example:
        >>> import torch
        >>> network = nn.Conv2d(1, 2, 1, bias=False)
        >>> _ = nn.init.constant_(network.weight, 2.0)
        >>> metric = Activation(network, reduction="none")
        >>> metric.update(torch.tensor([0.25, 0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4), ["output:0", "output:1"])
        >>> metric.compute().tolist()
        [0.5, 1.0]

    Reference:
        Erhan, Bengio, Courville, Vincent, "Visualizing Higher-Layer Features of a Deep Network", 2009
    """

    def value(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Score the pictures as they are."""
        return self.scorer().scores(pictures, targets)


class HeldOutActivation(_TargetMetric):
    """Measure how strongly each picture excites its target through views that it was not made for.

    ``mean over views of score(view)``. The views are drawn from the seed and their number alone, so all pictures, of
    any target and size, are seen through the same ones: see `held_out_transforms`. A picture that only fires as it is,
    pixel by pixel, loses most of its score.

    Range: (-∞, ∞); higher is better, between pictures of one target.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network; see `Activation`.
        views: number of views, 1 or more.
        transforms: what happens to each view, in place of `held_out_transforms`; ranges that move during a run stay as
            at its start.
        seed: of the views.
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when a target does not parse or names several units, or the network has no such layer, unit or
            class.

    Example:
        >>> import torch
        >>> network = nn.Conv2d(1, 1, 1, bias=False)
        >>> _ = nn.init.constant_(network.weight, 2.0)
        >>> metric = HeldOutActivation(network, views=2, transforms=Rotate(90.0))
        >>> metric.update(torch.full((1, 1, 4, 4), 0.25), "output:0")
        >>> round(metric.compute().item(), 6)
        0.5

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (transformation robustness)
    """

    def __init__(
        self,
        network: str | nn.Module | FrozenNetwork,
        views: int = 16,
        transforms: Transform | None = None,
        seed: int = 0,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, reduction, **kwargs)
        self.views = whole_number("views", views)
        self.seed = whole_number("seed", seed, least=0)
        if transforms is not None and not isinstance(transforms, Transform):
            raise TypeError(f"transforms must be a transform such as Rotate(5.0), got {type(transforms).__name__}")
        self.transforms = transforms

    def value(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Score the views of the pictures."""
        chosen = self.transforms or held_out_transforms((int(pictures.shape[-2]), int(pictures.shape[-1])))
        return self.scorer().scores(pictures, targets, Views(chosen, self.views), mix(self.seed, "held out"))

    def extra_repr(self) -> str:
        """Show the arguments."""
        chosen = "" if self.transforms is None else f"transforms={self.transforms!r}, "
        return f"views={self.views}, {chosen}seed={self.seed}, {super().extra_repr()}"


def held_out_transforms(size: tuple[int, int]) -> Compose:
    """Return moderate views that no preset trains on, the same for every size: their lengths are shares of the shorter side.

    Turned by up to 8 degrees, zoomed by 0.85 to 1.15, shifted by up to a sixteenth of the side on each axis, blurred
    with a deviation of up to 1/448 of the side (half a pixel at 224), with Gaussian noise of deviation 0.02. All are
    drawn uniformly from an interval, as in no preset whose pictures are moved as a whole. Outside the picture is a grey
    drawn for each view: presets are trained to mirrored borders, to middle grey, to black or to none at all, and this
    is none of these.

    Args:
        size: of the picture, (height, width) in pixels.

    Example:
        >>> held_out_transforms((32, 64)).listed()[3]
        Jitter(Uniform(low=-2, high=2))
    """
    side = min(size)
    shift = Jitter(uniform(-side / SHIFT, side / SHIFT))
    return Compose(
        [
            Pad(0, "grey"),
            Rotate(uniform(-DEGREES, DEGREES)),
            Scale(uniform(*ZOOM)),
            shift,
            Blur(uniform(0.0, side / BLUR)),
            Noise(NOISE),
        ]
    )


DEGREES, ZOOM, SHIFT, BLUR, NOISE = 8.0, (0.85, 1.15), 16, 448, 0.02


class ActivationPercentile(_TargetMetric):
    """Measure how many photos excite a picture's target less than the picture does.

    ``100 * (photos below + half of those equal) / photos``: at 100 the picture excites its unit more than every photo
    does. Means over positions depend a little on the size: measure the photos at the size of the pictures.

    Range: [0, 100]; higher is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        network: the one by which the photos were measured; see `Activation`.
        photos: from `measure_activations`, or a file of them.
        reduction: ``"mean"`` over all pictures, or ``"none"`` for a value for each.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        ValueError: when the photos were measured by another network, or a target is none of their units.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from PIL import Image
        >>> from featviz_pl.metrics.photo_activations import measure_activations
        >>> network = nn.Conv2d(3, 1, 1, bias=False)
        >>> _ = nn.init.constant_(network.weight, 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for level in (0, 64, 128, 255):
        ...         Image.new("RGB", (8, 8), (level, level, level)).save(f"{folder}/{level}.png")
        ...     photos = measure_activations(network, folder, "output", size=8)
        >>> metric = ActivationPercentile(network, photos)
        >>> metric.update(torch.full((1, 3, 8, 8), 0.75), "output:0")
        >>> metric.compute().item()
        75.0

    Reference:
        Borowski, Zimmermann and others, "Exemplary Natural Images Explain CNN Activations Better than State-of-the-Art
        Feature Visualization", 2021 (photos as the measure of a unit)
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 100.0

    def __init__(
        self,
        network: str | nn.Module | FrozenNetwork,
        photos: PhotoActivations | str | os.PathLike[str],
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, reduction, **kwargs)
        self._file = None if isinstance(photos, PhotoActivations) else os.fspath(photos)
        self.photos = photos if isinstance(photos, PhotoActivations) else load_activations(photos)
        self.photos.check(self.network)

    def scorer(self) -> Scorer:
        """Return what scores, after a look whether the network is still the one of the photos."""
        if self._scorer is None:
            self.photos.check(self.network)
        return super().scorer()

    def value(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Find the place of each score among those of the photos."""
        for target in dict.fromkeys(targets):
            self.photos.of(target)  # what is not held is refused before anything is measured
        scores = self.scorer().scores(pictures, targets)
        for target in dict.fromkeys(targets):
            own = [place for place, other in enumerate(targets) if other == target]
            scores[own] = self.photos.percentile(target, scores[own])
        return scores

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self.photos if self._file is None else self._file!r}, {super().extra_repr()}"
