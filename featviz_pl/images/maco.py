"""Pictures with the spectrum of photos: only the phase is optimised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featviz_pl.images.latent import LatentImage
from featviz_pl.numerics.checks import finite_number, whole_number

_LEAST_DEVIATION = 1e-5  # Xplique's: added to the deviation of the phase before it divides


class MacoImage(LatentImage):
    """Optimise the phase of the spectrum and keep its magnitude: ``picture = sigmoid(color @ irfft2(magnitude * exp(i phase)))``.

    The magnitude is that of natural images and never moves, so nothing can grow noisy or lose contrast, and no penalty
    is needed. The phase is standardised, picture by picture: ``(phase - mean) / (deviation + 1e-5)``. Frequencies that
    are their own negative, and pairs of a frequency and its negative within the half spectrum, are tied as they are in
    every real picture, so the magnitude of the decoded picture is exactly the template. The mean color is that of the
    statistics, and does not move; of a bare spectrum, every channel's mean is positive. The usual optimizer is NAdam at
    1.

    While it is trained, the picture adds up how strongly each pixel is wanted:
    ``transparency = sum_t |d loss / d picture|``, averaged over channels. `mask` and `rgba` show it. The sum is running
    state and stays in checkpoints; the magnitude does not, so a checkpoint wants an image with the same `spectrum`.
    Under a gradient scaler it is of the scaled gradient, on several devices of one's views.

    Shape:
        () -> (N, C, H, W)

    Args:
        size: of the pictures in pixels, one number or (height, width).
        count: number of pictures; None lets the objective decide.
        channels: of each picture.
        color: as in `LatentImage`; with ``"auto"``, the channels in which the spectrum was measured, where it says so.
        deviation: standard deviation of the first phases before they are standardised: it scales how far a step goes.
        spectrum: the magnitude: ``"natural"`` for that of photos that is shipped, a file of `featviz_pl.statistics`,
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
        channels: int = 3,
        color: Any = "auto",
        deviation: float = 1.0,
        spectrum: Any = "natural",
    ) -> None:
        statistics = _resolved(spectrum)
        measured = getattr(statistics, "spectrum", statistics)
        _check_channels(measured, whole_number("channels", channels))
        own = isinstance(color, str) and color == "auto" and hasattr(measured, "matrix")
        super().__init__(size, None, channels, measured.matrix if own else color, deviation)
        if own:
            self.color = "auto"
        self.spectrum = spectrum if isinstance(spectrum, str) and spectrum == "natural" else "own"
        with torch.inference_mode(False):
            self.register_buffer("template", _magnitude(measured, self.channels, self.size), persistent=False)
            for name in ("transparency", "phase_mean", "phase_deviation"):
                self.register_buffer(name, None)
        if measured is not statistics and isinstance(getattr(statistics, "mean", None), Tensor):
            # A magnitude has no sign, but a mean has one: that of each decorrelated channel in a picture of the mean
            # color.
            latent = self.unfinish(statistics.mean.view(1, -1, 1, 1).clamp(0, 1)).view(-1)
            self.template[:, 0, 0] = latent * math.sqrt(self.size[0] * self.size[1])
        if count is not None:
            self.allocate(count)

    @property
    def magnitude(self) -> Tensor:
        """The magnitude of the spectrum (C, H, W // 2 + 1), the same for all pictures."""
        return self.template.abs()

    def weight_shape(self) -> tuple[int, ...]:
        """Return (C, H, W // 2 + 1): the phase of the half spectrum in radians, before it is standardised."""
        return (self.channels, self.size[0], self.size[1] // 2 + 1)

    def allocate(self, count: int) -> None:
        """Make room for `count` pictures and their transparency; asking again for the same number changes nothing.

        Raises:
            ValueError: when the pictures were allocated with another number.
        """
        super().allocate(count)
        if self.transparency is None:
            weight = self.required_weight()
            with torch.inference_mode(False):
                self.transparency = torch.zeros(count, *self.size, dtype=weight.dtype, device=weight.device)
                self.phase_mean = torch.zeros(count, 1, 1, 1, dtype=weight.dtype, device=weight.device)
                self.phase_deviation = torch.ones(count, 1, 1, 1, dtype=weight.dtype, device=weight.device)

    def decode_latent(self, weight: Tensor) -> Tensor:
        """Standardise the phase, tie what must be tied, and transform back to space."""
        mean = weight.mean((1, 2, 3), keepdim=True)
        deviation = weight.std((1, 2, 3), correction=0, keepdim=True)
        phase = (weight - mean) / (deviation + _LEAST_DEVIATION)
        if self.phase_mean is not None and self.phase_deviation is not None:
            phase = phase * self.phase_deviation + self.phase_mean  # of the picture it started from, if it did
        phase = tied(phase, self.size[1])
        template = self.template.to(weight.dtype)
        latent: Tensor = torch.fft.irfft2(
            torch.complex(template * phase.cos(), template * phase.sin()), s=self.size, norm="ortho"
        )
        return latent

    def encode_latent(self, latent: Tensor) -> Tensor:
        """Take the phase; the magnitude stays that of the template."""
        return torch.angle(torch.fft.rfft2(latent, norm="ortho"))

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Take the phase of the given pictures; their magnitude, and with it their mean color and contrast, is the template's.

        Shape:
            image (C, H, W) or (N, C, H, W) in [0, 1]

        Raises:
            ValueError: when the picture has another shape than the parameterization.
        """
        super().start_from(image)
        weight = self.required_weight()
        assert self.phase_mean is not None
        assert self.phase_deviation is not None
        # A standardised phase has another deviation than that of photos, which is nearly uniform over the circle.
        self.phase_mean.copy_(weight.mean((1, 2, 3), keepdim=True))
        self.phase_deviation.copy_(weight.std((1, 2, 3), correction=0, keepdim=True) + _LEAST_DEVIATION)

    def forward(self) -> Tensor:
        """Decode the pictures, and listen for the gradient that reaches them.

        Raises:
            RuntimeError: before the number of pictures is known.
        """
        pictures = super().forward()
        if pictures.requires_grad:
            pictures.register_hook(self._record)
        return pictures

    @torch.no_grad()
    def _record(self, gradient: Tensor | None) -> None:
        """Add how strongly each pixel is wanted; what is not finite never reaches the picture, nor its transparency."""
        if gradient is not None and self.transparency is not None:
            self.transparency += torch.nan_to_num(gradient.detach().abs().mean(1), nan=0.0, posinf=0.0).to(
                self.transparency
            )

    @torch.no_grad()
    def mask(self, percentile: float = 80.0) -> Tensor:
        """Return how opaque each pixel is: the transparency, clipped at a percentile of each picture and divided by it.

        Pictures to which no gradient has come yet are opaque.

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
        for wanted in self.transparency:
            limit, largest = torch.quantile(wanted.flatten(), percentile / 100), wanted.max()
            limit = torch.where(limit > 0, limit, largest)
            masks.append(torch.where(largest > 0, (wanted / limit).clamp(max=1), torch.ones_like(wanted)))
        return torch.stack(masks)[:, None]

    @torch.no_grad()
    def rgba(self, percentile: float = 80.0) -> Tensor:
        """Return the pictures with `mask` as a last channel.

        Shape:
            () -> (N, C + 1, H, W) in [0, 1]
        """
        return torch.cat([self(), self.mask(percentile)], 1)

    def extra_repr(self) -> str:
        """Show where the magnitude comes from."""
        return f"{super().extra_repr()}, spectrum={self.spectrum!r}"


def tied(phase: Tensor, width: int) -> Tensor:
    """Return phases of a real picture: opposite for a frequency and its negative where both are in the half spectrum, so 0 at their own.

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
    own = phase.index_select(-1, columns)
    return phase.index_copy(-1, columns, (own - own.flip(-2).roll(1, -2)) / 2)


def _resolved(spectrum: Any) -> Any:
    """Return what was measured, read from a file where one is named, or a tensor as it is."""
    if isinstance(spectrum, str):
        from featviz_pl.statistics import load_statistics, natural_statistics  # reads a file: only where one is wanted

        spectrum = natural_statistics() if spectrum == "natural" else load_statistics(spectrum)
    return spectrum


def _check_channels(measured: Any, channels: int) -> None:
    """Refuse a measured spectrum of other channels, before its colors are."""
    if hasattr(measured, "resized") and len(measured.magnitude) != channels:
        raise ValueError(
            f"spectrum: measured on {len(measured.magnitude)} channels, which do not fit pictures of {channels}"
        )


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
    wanted = (channels, size[0], size[1] // 2 + 1)
    if tuple(magnitude.shape) != wanted:
        raise ValueError(
            f"spectrum: shape {tuple(magnitude.shape)} does not fit pictures of {(channels, *size)}; it must be {wanted}"
        )
    if not torch.isfinite(magnitude).all() or (magnitude < 0).any() or not magnitude.any():
        raise ValueError("spectrum: the magnitude must be finite, nowhere negative and somewhere positive")
    for column in {0} if size[1] % 2 else {0, size[1] // 2}:
        magnitude[:, :, column] = (magnitude[:, :, column] + magnitude[:, :, column].flip(-1).roll(1, -1)) / 2
    return magnitude
