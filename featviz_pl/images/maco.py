"""Pictures with the spectrum of photos: only the phase is optimised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.images.latent import LatentImage
from featviz_pl.numerics.checks import finite_number, whole_number

_EPSILON = 1e-5  # Xplique's: added to the deviation by which the phase is divided


class MacoImage(LatentImage):
    """Optimize the phase of the spectrum at fixed magnitude: ``sigmoid(color @ irfft2(magnitude * exp(i phase)))``.

    The magnitude is that of natural images and constant, so that pictures neither become noisy nor lose contrast, and
    no penalty is needed. The phase of each picture is standardized: ``(phase - mean) / (deviation + 1e-5)``.
    Frequencies that are their own negative, and pairs of a frequency and its negative within the half spectrum, are
    tied as in every real picture, so that the magnitude of the decoded picture is exactly the template. The mean color
    is that of the statistics; of a bare spectrum, every channel's mean is positive. The usual optimizer is NAdam at 1.

    Training accumulates the importance of each pixel: ``transparency = sum_t |d loss / d picture|``, averaged over
    channels; see `mask` and `rgba`. Checkpoints hold the sum but not the magnitude, so that a checkpoint needs an image
    with the same `spectrum`. Under a gradient scaler it is of the scaled gradient, on several devices of the device's
    views.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: see `LatentImage`; ``"auto"`` takes the channels in which the spectrum was measured, where it has them.
        deviation: standard deviation of the first phases before they are standardized, relative to which steps are.
        spectrum: the magnitude: ``"natural"`` for the shipped one of photos, a file of `featviz_pl.statistics`,
            measured statistics, or a tensor (C, H, W // 2 + 1) for the orthonormal transform.

    Raises:
        ValueError: when the spectrum does not fit the pictures.

    Example:
        >>> image = MacoImage(8, count=2, channels=1, spectrum=torch.ones(1, 8, 5))
        >>> image.initialize(2, torch.Generator().manual_seed(0))
        >>> latent = image.decode_latent(image.weight.detach())
        >>> torch.fft.rfft2(latent, norm="ortho").abs().round(decimals=4).unique().tolist()
        [1.0]

    Reference:
        Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization",
        NeurIPS 2023
    """

    template: Tensor
    transparency: Tensor | None
    phase_mean: Tensor | None
    phase_deviation: Tensor | None

    def __init__(
        self,
        size: int | Sequence[int] = 224,
        count: int | None = None,
        *,
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 1.0,
        spectrum: Any = "natural",
    ) -> None:
        statistics = _load_spectrum(spectrum)
        measured = getattr(statistics, "spectrum", statistics)
        _check_channels(measured, whole_number("channels", channels))
        automatic = isinstance(color, str) and color == "auto" and hasattr(measured, "matrix")
        super().__init__(size, channels=channels, color=measured.matrix if automatic else color, deviation=deviation)
        if automatic:
            self.color = "auto"
        self.spectrum = spectrum if isinstance(spectrum, str) and spectrum == "natural" else "own"
        with torch.inference_mode(False):
            self.register_buffer("template", _magnitude(measured, self.channels, self.size), persistent=False)
            for name in ("transparency", "phase_mean", "phase_deviation"):
                self.register_buffer(name, None)
        if measured is not statistics and isinstance(getattr(statistics, "mean", None), Tensor):
            # A magnitude has no sign, the mean of a decorrelated channel has one: that of a picture of the mean color.
            latent = self.from_rgb(statistics.mean.view(1, -1, 1, 1).clamp(0, 1)).view(-1)
            self.template[:, 0, 0] = latent * math.sqrt(self.size[0] * self.size[1])
        if count is not None:
            self.allocate(count)

    @property
    def magnitude(self) -> Tensor:
        """The magnitude of the spectrum (C, H, W // 2 + 1), the same for all pictures."""
        return self.template.abs()

    def weight_shape(self) -> tuple[int, ...]:
        """Return (C, H, W // 2 + 1): the phase of the half spectrum in radians, before it is standardized."""
        return (self.channels, self.size[0], self.size[1] // 2 + 1)

    def allocate(self, count: int) -> None:
        """Allocate the weights and the transparency of `count` pictures."""
        super().allocate(count)
        if self.transparency is None:
            weight = self.required_weight()
            with torch.inference_mode(False):
                self.transparency = weight.detach().new_zeros(count, *self.size)
                self.phase_mean = weight.detach().new_zeros(count, 1, 1, 1)
                self.phase_deviation = weight.detach().new_ones(count, 1, 1, 1)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Standardize the phase, tie frequencies and their negatives, and transform back to space."""
        mean = weight.mean((1, 2, 3), keepdim=True)
        deviation = weight.std((1, 2, 3), correction=0, keepdim=True)
        phase = (weight - mean) / (deviation + _EPSILON)
        if self.phase_mean is not None and self.phase_deviation is not None:
            phase = phase * self.phase_deviation + self.phase_mean  # those of a start picture
        phase = tied(phase, self.size[1])
        template = self.template.to(weight.dtype)
        spectrum = torch.complex(template * phase.cos(), template * phase.sin())
        latent: Tensor = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return latent

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Return the phase; the magnitude is that of the template."""
        return torch.angle(torch.fft.rfft2(latent, norm="ortho"))

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Encode the phase of pictures; magnitude, and with it mean color and contrast, are those of the template."""
        super().start_from(image)
        weight = self.required_weight()
        assert self.phase_mean is not None
        assert self.phase_deviation is not None
        # The phase of photos is nearly uniform over the circle: its deviation differs from a standardized phase's.
        self.phase_mean.copy_(weight.mean((1, 2, 3), keepdim=True))
        self.phase_deviation.copy_(weight.std((1, 2, 3), correction=0, keepdim=True) + _EPSILON)

    def forward(self) -> Tensor:
        """Decode the pictures, and accumulate their gradient."""
        pictures = super().forward()
        if pictures.requires_grad:
            pictures.register_hook(self._record)
        return pictures

    @torch.no_grad()
    def _record(self, gradient: Tensor | None) -> None:
        """Add the absolute gradient of each pixel, without values that are not finite."""
        if gradient is not None and self.transparency is not None:
            importance = torch.nan_to_num(gradient.detach().abs().mean(1), nan=0.0, posinf=0.0)
            self.transparency += importance.to(self.transparency)

    @torch.no_grad()
    def mask(self, percentile: float = 80.0) -> Tensor:
        """Return the opacity of each pixel: its importance, divided by a percentile of the picture's and clipped.

        Pictures without a gradient so far are opaque.

        Shape:
            () -> (N, 1, H, W) in [0, 1]

        Args:
            percentile: above 0, at most 100.

        Raises:
            RuntimeError: before the number of pictures is known.
        """
        percentile = finite_number("percentile", percentile, above=0.0, most=100.0)
        self.required_weight()
        assert self.transparency is not None
        masks = []
        for importance in self.transparency:
            limit, largest = torch.quantile(importance.flatten(), percentile / 100), importance.max()
            limit = torch.where(limit > 0, limit, largest)
            masks.append(torch.where(largest > 0, (importance / limit).clamp(max=1), torch.ones_like(importance)))
        return torch.stack(masks)[:, None]

    @torch.no_grad()
    def rgba(self, percentile: float = 80.0) -> Tensor:
        """Return the pictures with `mask` as a last channel.

        Shape:
            () -> (N, C + 1, H, W) in [0, 1]
        """
        return torch.cat([self(), self.mask(percentile)], 1)

    def extra_repr(self) -> str:
        """Add the spectrum."""
        return f"{super().extra_repr()}, spectrum={self.spectrum!r}"


def tied(phase: Tensor, width: int) -> Tensor:
    """Return phases of a real picture: opposite for a frequency and its negative, where the half spectrum has both.

    Shape:
        (N, C, H, W // 2 + 1) -> (N, C, H, W // 2 + 1)

    Args:
        phase: of the half spectrum.
        width: W of the picture.

    Example:
        >>> tied(torch.tensor([[[[3.0, 5.0], [2.0, 5.0], [4.0, 5.0]]]]), 3)[0, 0].tolist()
        [[0.0, 5.0], [-1.0, 5.0], [1.0, 5.0]]
    """
    columns = torch.tensor([0] if width % 2 else [0, width // 2], device=phase.device)
    phases = phase.index_select(-1, columns)
    return phase.index_copy(-1, columns, (phases - phases.flip(-2).roll(1, -2)) / 2)


def _load_spectrum(spectrum: Any) -> Any:
    """Return statistics, from a file where the argument names one, or the argument itself."""
    if isinstance(spectrum, str):
        from featviz_pl.statistics import load_statistics, natural_statistics  # imports torchmetrics

        spectrum = natural_statistics() if spectrum == "natural" else load_statistics(spectrum)
    return spectrum


def _check_channels(measured: Any, channels: int) -> None:
    """Raise ValueError for a spectrum of other channels, before its colors are refused."""
    if hasattr(measured, "resized") and len(measured.magnitude) != channels:
        measured_channels = len(measured.magnitude)
        raise ValueError(f"spectrum: measured on {measured_channels} channels, which do not fit pictures of {channels}")


def _magnitude(measured: Any, channels: int, size: tuple[int, int]) -> Tensor:
    """Return the template (C, H, W // 2 + 1), as symmetric as the spectrum of a real picture is."""
    if hasattr(measured, "resized"):
        measured = measured.resized(size)
    try:
        magnitude = torch.as_tensor(getattr(measured, "magnitude", measured), dtype=torch.float32).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"spectrum must be 'natural', a file, statistics or a tensor, got {type(measured).__name__}"
        ) from error
    expected = (channels, size[0], size[1] // 2 + 1)
    if tuple(magnitude.shape) != expected:
        raise ValueError(f"spectrum: must be of shape {expected} for these pictures, got {tuple(magnitude.shape)}")
    if not torch.isfinite(magnitude).all() or (magnitude < 0).any() or not magnitude.any():
        raise ValueError("spectrum: the magnitude must be finite, nowhere negative and somewhere positive")
    for column in {0} if size[1] % 2 else {0, size[1] // 2}:
        magnitude[:, :, column] = (magnitude[:, :, column] + magnitude[:, :, column].flip(-1).roll(1, -1)) / 2
    return magnitude
