"""Activation of the unit that a picture is made for: its score, through held-out views, and among photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from featviz_pl.metrics.base import PictureMetric, Reduction, check_targets
from featviz_pl.metrics.cached_reader import CachedReader, NetworkLike
from featviz_pl.metrics.photo_activations import PhotoActivations
from featviz_pl.metrics.target_scores import target_scores
from featviz_pl.networks import FrozenNetwork
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.random import mix
from featviz_pl.transforms import Blur, Compose, Jitter, Noise, Pad, Rotate, Scale, Transform, Views
from featviz_pl.transforms.ranges import uniform

# Of the held-out views: degrees, factors, divisors of the shorter side, and the deviation of noise.
_ROTATION, _ZOOM, _SHIFT, _BLUR, _NOISE = 8.0, (0.85, 1.15), 16, 448, 0.02


class _TargetMetric(PictureMetric):
    """Measure every picture by a network, for the target that it was made for."""

    higher_is_better = True

    def __init__(self, network: NetworkLike, *, reduction: Reduction = "mean", **kwargs: Any) -> None:
        super().__init__(reduction, **kwargs)
        self._reader = CachedReader(network)

    @property
    def network(self) -> FrozenNetwork:
        """The network that measures."""
        return self._reader.network

    def update(self, pictures: Tensor, targets: str | Sequence[str] = (), *inputs: Any) -> None:
        """Measure further pictures (N, C, H, W), each for its target: one for all, or one for each."""
        super().update(pictures, targets, *inputs)

    def measure(self, pictures: Tensor, targets: str | Sequence[str] = (), *inputs: Any) -> Tensor:
        """Return the value (N,) of each picture for its target."""
        return self.score(pictures, check_targets(targets, len(pictures)))

    def score(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Return the score (N,) of each picture as it is."""
        return target_scores(self._reader, pictures, targets)

    def reset(self) -> None:
        """Forget the pictures, and read the network anew: it may be in training."""
        super().reset()
        self._reader.reset()

    def __repr__(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({self._reader!r}, {self.extra_repr()})"


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
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when a target does not parse or names several units, or the network has no such layer, unit or
            class.

    Example:
        >>> import torch
        >>> network = torch.nn.Conv2d(1, 2, 1, bias=False)
        >>> _ = torch.nn.init.constant_(network.weight, 2.0)
        >>> metric = Activation(network, reduction="none")
        >>> metric.update(torch.tensor([0.25, 0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4), ["output:0", "output:1"])
        >>> metric.compute().tolist()
        [0.5, 1.0]

    Reference:
        Erhan, Bengio, Courville, Vincent, "Visualizing Higher-Layer Features of a Deep Network", 2009
    """


class HeldOutActivation(_TargetMetric):
    """Measure how strongly each picture excites its target through views that it was not made for.

    ``mean over views of score(view)``. The views depend on the seed and their number alone, so all pictures, of any
    target and size, are seen through the same ones: see `held_out_transforms`. A picture whose score hangs on single
    pixels loses most of it.

    Range: (-∞, ∞); higher is better, between pictures of one target.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        network: a name, a module that takes pictures in [0, 1], or a frozen network; see `Activation`.
        views: number of views, 1 or more.
        transforms: of each view, in place of `held_out_transforms`; scheduled ranges stay as at the start of a run.
        seed: of the views.
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when a target does not parse or names several units, or the network has no such layer, unit or
            class.

    Example:
        >>> import torch
        >>> network = torch.nn.Conv2d(1, 1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(network.weight, 2.0)
        >>> metric = HeldOutActivation(network, views=2, transforms=Rotate(90.0))
        >>> metric.update(torch.full((1, 1, 4, 4), 0.25), "output:0")
        >>> round(metric.compute().item(), 6)
        0.5

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (transformation robustness)
    """

    def __init__(
        self,
        network: NetworkLike,
        views: int = 16,
        *,
        transforms: Transform | None = None,
        seed: int = 0,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, reduction=reduction, **kwargs)
        self.views = whole_number("views", views)
        self.seed = whole_number("seed", seed, least=0)
        if transforms is not None and not isinstance(transforms, Transform):
            raise TypeError(f"transforms must be a transform such as Rotate(5.0), got {type(transforms).__name__}")
        self.transforms = transforms

    def score(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Return the mean score (N,) over the views of each picture."""
        transforms = self.transforms or held_out_transforms((int(pictures.shape[-2]), int(pictures.shape[-1])))
        seed = mix(self.seed, "held out")
        return target_scores(self._reader, pictures, targets, Views(transforms, self.views), seed)

    def extra_repr(self) -> str:
        """Show the arguments."""
        transforms = "" if self.transforms is None else f"transforms={self.transforms!r}, "
        return f"views={self.views}, {transforms}seed={self.seed}, {super().extra_repr()}"


def held_out_transforms(size: tuple[int, int]) -> Compose:
    """Return moderate views that no preset trains on; their lengths are shares of the shorter side.

    Rotated by up to 8 degrees, zoomed by 0.85 to 1.15, shifted by up to a sixteenth of the side on each axis, blurred
    with a deviation of up to 1/448 of the side (half a pixel at 224), with Gaussian noise of deviation 0.02. All are
    drawn uniformly from an interval, as in no preset whose pictures are moved as a whole. Outside the picture is a grey
    drawn for each view: presets train on mirrored borders, middle grey, black or none at all.

    Args:
        size: of the picture, (height, width) in pixels.

    Example:
        >>> held_out_transforms((32, 64)).listed()[3]
        Jitter(Uniform(low=-2, high=2))
    """
    side = min(size)
    return Compose(
        [
            Pad(0, "grey"),
            Rotate(uniform(-_ROTATION, _ROTATION)),
            Scale(uniform(*_ZOOM)),
            Jitter(uniform(-side / _SHIFT, side / _SHIFT)),
            Blur(uniform(0.0, side / _BLUR)),
            Noise(_NOISE),
        ]
    )


class ActivationPercentile(_TargetMetric):
    """Measure how many photos excite a picture's target less than the picture does.

    ``100 * (photos below + half of those equal) / photos``: at 100 the picture excites its unit more than every photo
    does. Means over positions depend a little on the size: measure the photos at the size of the pictures.

    Range: [0, 100]; higher is better.

    Shape:
        update: pictures (N, C, H, W) in [0, 1] and N targets; compute: () or, with ``"none"``, (all pictures,)

    Args:
        network: that measured the photos; see `Activation`.
        photos: from `measure_activations`, or a file of them.
        reduction, kwargs: of `PictureMetric`.

    Raises:
        ValueError: when the photos were measured by another network, or a target is none of their units.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from PIL import Image
        >>> from featviz_pl.metrics.photo_activations import measure_activations
        >>> network = torch.nn.Conv2d(3, 1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(network.weight, 1.0)
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
        network: NetworkLike,
        photos: PhotoActivations | str | os.PathLike[str],
        *,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, reduction=reduction, **kwargs)
        self.photos, self._photos_repr = PhotoActivations.resolve(photos)
        self.photos.check(self.network)

    def score(self, pictures: Tensor, targets: list[str]) -> Tensor:
        """Return the percentile (N,) of each picture's score among those of the photos."""
        if not self._reader.is_open:
            self.photos.check(self.network)  # it may have been trained since the last reset
        distinct = dict.fromkeys(targets)
        for target in distinct:
            self.photos.of(target)  # refused before anything is measured
        scores = super().score(pictures, targets)
        for target in distinct:
            indices = [index for index, name in enumerate(targets) if name == target]
            scores[indices] = self.photos.percentile(target, scores[indices])
        return scores

    def extra_repr(self) -> str:
        """Show the arguments."""
        return f"{self._photos_repr}, {super().extra_repr()}"
