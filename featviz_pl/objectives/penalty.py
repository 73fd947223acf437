"""Penalties on the picture itself: sums over pixels and channels, positive, named for a defect, subtracted by the user."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.objectives.base import Term, number_formula
from featviz_pl.objectives.protocol import Observation, Setting


class TotalVariation(Term):
    """Sum the differences of neighbouring pixels: ``sum |dy|^power + sum |dx|^power``.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        power: 1 is the field's, 2 the article's. At least 1.

    Example:
        >>> import torch
        >>> picture = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
        >>> TotalVariation()(Observation(picture, {})).item(), TotalVariation(power=2)(Observation(picture, {})).item()
        (2.0, 1.5)

    Reference:
        Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", 1992
    """

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = finite_number("power", power, least=1.0)

    def score(self, observation: Observation) -> Tensor:
        """Sum over both axes."""
        vertical = observation.pictures.diff(dim=2).flatten(1).abs()
        horizontal = observation.pictures.diff(dim=3).flatten(1).abs()
        if self.power != 1:
            vertical, horizontal = vertical**self.power, horizontal**self.power
        return (vertical.sum(1) + horizontal.sum(1))[:, None]

    def formula(self) -> str:
        """Return the constructor."""
        return "TotalVariation()" if self.power == 1 else f"TotalVariation(power={number_formula(self.power)})"


class L1(Term):
    """Sum the distances of all values from one value: ``sum |x - center|``.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> import torch
        >>> L1(0.5)(Observation(torch.tensor([[[[0.0, 1.0]]]]), {})).item()
        1.0
    """

    def __init__(self, center: float = 0.0) -> None:
        super().__init__()
        self.center = finite_number("center", center)

    def score(self, observation: Observation) -> Tensor:
        """Sum the distances."""
        return (observation.pictures - self.center).flatten(1).abs().sum(1, keepdim=True)

    def formula(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}({number_formula(self.center)})" if self.center else f"{type(self).__name__}()"


class L2(L1):
    """Measure the Euclidean distance of the picture from one value: ``sqrt(1e-6 + sum (x - center)^2)``.

    The small number keeps the gradient finite where the picture is flat, as in Lucid.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> import torch
        >>> round(L2()(Observation(torch.tensor([[[[3.0, 4.0]]]]), {})).item(), 4)
        5.0
    """

    def score(self, observation: Observation) -> Tensor:
        """Take the root of the sum of squares."""
        return (1e-6 + (observation.pictures - self.center).flatten(1).square().sum(1, keepdim=True)).sqrt()


class LInfinity(L1):
    """Measure the largest distance of any value from one value: ``max |x - center|``. A maximum, not a sum.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> import torch
        >>> LInfinity()(Observation(torch.tensor([[[[0.25, 0.75]]]]), {})).item()
        0.75
    """

    def score(self, observation: Observation) -> Tensor:
        """Take the largest distance."""
        return (observation.pictures - self.center).flatten(1).abs().amax(1, keepdim=True)


class BlurDistance(Term):
    """Blur the picture a little in every step: ``sum (x - blur(x)) ^ 2 / 2``, the blurred picture held fixed.

    Its gradient is ``x - blur(x)``, so a step of plain descent with weight w mixes in the blurred picture by its
    learning rate times w. The blur is a mean over 3 x 3 pixels, the middle one counted twice; at the border over those
    that are there.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Example:
        >>> import torch
        >>> round(BlurDistance()(Observation(torch.tensor([[[[1.0, 0.0]]]]), {})).item(), 4)
        0.1111

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, observation: Observation) -> Tensor:
        """Compare with the blurred picture."""
        return _blur_penalty(observation.pictures)

    def formula(self) -> str:
        """Return the constructor."""
        return "BlurDistance()"


class BoundaryComplexity(Term):
    """Sum what is not plain grey in a frame: ``sum over the frame of (blur(x) - x) ^ 2 + 0.8 (x - 0.5) ^ 2``.

    The blur is a mean over `kernel` x `kernel` pixels that counts the outermost ones half; the gradient goes through
    it.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        width: of the frame in pixels, 1 or more. The field's is 20, and 5 for the icons of an atlas.
        kernel: side of the blur in pixels, odd, 3 or more.

    Example:
        >>> import torch
        >>> round(BoundaryComplexity(1)(Observation(torch.zeros(1, 1, 4, 4), {})).item(), 4)
        2.4

    Reference:
        Carter, Armstrong, Schubert, Johnson, Olah, "Activation Atlas", Distill, 2019
    """

    def __init__(self, width: int = 20, kernel: int = 5) -> None:
        super().__init__()
        self.width, self.kernel = whole_number("width", width), whole_number("kernel", kernel, least=3)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that it has a middle, got {kernel}")

    def score(self, observation: Observation) -> Tensor:
        """Sum over the frame: what the whole picture has and its inside does not."""
        pictures, width = observation.pictures, self.width
        distances = (_blurred(pictures, self.kernel) - pictures).square() + 0.8 * (pictures - 0.5).square()
        outside = torch.ones_like(pictures[0, 0])
        outside[width:-width, width:-width] = 0
        return (distances * outside).flatten(1).sum(1, keepdim=True)

    def formula(self) -> str:
        """Return the constructor."""
        kernel = "" if self.kernel == 5 else f", kernel={self.kernel}"
        return f"BoundaryComplexity({self.width}{kernel})"


class HighFrequency(Term):
    """Measure the share of fine detail: the spectral energy above a frequency, divided by all of it. A share, not a sum.

    The mean of each channel does not count; a picture of one color has none.

    Shape:
        pictures (N, C, H, W) -> (N, 1) in [0, 1]

    Args:
        cutoff: in cycles per pixel, whatever the direction, from 0 to less than 0.7, the finest there is on a diagonal.
            On an axis it is 0.5: every other pixel.

    Example:
        >>> import torch
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(1, 1, 4, 2)
        >>> HighFrequency()(Observation(stripes, {})).item(), HighFrequency(0.5)(Observation(stripes, {})).item()
        (1.0, 0.0)
    """

    def __init__(self, cutoff: float = 0.25) -> None:
        super().__init__()
        self.cutoff = finite_number("cutoff", cutoff, least=0.0, most=0.7)

    def score(self, observation: Observation) -> Tensor:
        """Divide the energies."""
        pictures = observation.pictures
        height, width = pictures.shape[-2:]
        spectrum = torch.fft.fft2(pictures - pictures.mean((2, 3), keepdim=True), norm="ortho")
        energy = torch.view_as_real(spectrum).square().sum(4).sum(1)
        # On the CPU and in double precision: a frequency that is exactly the cutoff must not count by rounding.
        vertical, horizontal = (torch.fft.fftfreq(length, dtype=torch.float64) for length in (height, width))
        fine = torch.hypot(vertical[:, None], horizontal) > self.cutoff * (1 + 1e-12)
        high = (energy * to_device(fine.to(energy.dtype), energy.device)).flatten(1).sum(1)
        return (high / (energy.flatten(1).sum(1) + 1e-12))[:, None]

    def formula(self) -> str:
        """Return the constructor."""
        return "HighFrequency()" if self.cutoff == 0.25 else f"HighFrequency({number_formula(self.cutoff)})"


class AlphaTerm(Term):
    """Judge how opaque a picture is."""

    def check_term(self, setting: Setting) -> None:
        """Refuse pictures that are opaque everywhere."""
        if not setting.alpha:
            raise ValueError(
                f"{self!r}: the pictures, {setting.picture[0]} channels, have no alpha, so there is nothing to judge; use an AlphaImage"
            )

    def formula(self) -> str:
        """Return the constructor."""
        return f"{type(self).__name__}()"


class AlphaMean(AlphaTerm):
    """Measure how opaque the picture is: the mean of its last channel. A mean, not a sum.

    Of each view where the views still carry alpha, or of the picture where they do not.
    ``objective * (1 - AlphaMean())`` leaves transparent what the objective does not need.

    Shape:
        views (N, V, C, h, w) -> (N, V), or pictures (N, C, H, W) -> (N, 1)

    Args:
        of_views: False takes the whole picture, whatever the views show of it.

    Raises:
        ValueError: for pictures without alpha.

    Example:
        >>> import torch
        >>> AlphaMean()(Observation(torch.full((1, 4, 2, 2), 0.25), {})).item()
        0.25

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(self, of_views: bool = True) -> None:
        super().__init__()
        self.of_views = bool(of_views)

    def score(self, observation: Observation) -> Tensor:
        """Average the last channel."""
        shown = observation.network_input()
        carried = self.of_views and shown.shape[2] == observation.pictures.shape[1]
        return (shown if carried else observation.pictures[:, None])[:, :, -1].mean((2, 3))

    def formula(self) -> str:
        """Return the constructor."""
        return "AlphaMean()" if self.of_views else "AlphaMean(of_views=False)"


class AlphaBlurDistance(AlphaTerm):
    """Blur how opaque the picture is a little in every step: `BlurDistance` of its last channel alone.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Raises:
        ValueError: for pictures without alpha.

    Example:
        >>> import torch
        >>> AlphaBlurDistance()(Observation(torch.full((1, 4, 2, 2), 0.25), {})).item()
        0.0

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def score(self, observation: Observation) -> Tensor:
        """Compare the last channel with itself blurred."""
        return _blur_penalty(observation.pictures[:, -1:])


def _blur_penalty(pictures: Tensor) -> Tensor:
    difference = pictures - _blurred(pictures, 3).detach()
    return 0.5 * difference.square().flatten(1).sum(1, keepdim=True)


def _blurred(pictures: Tensor, kernel: int) -> Tensor:
    """Average each pixel with those around it, the outermost counted half; only over pixels that are there."""
    weights = torch.full((kernel, kernel), 0.5)
    weights[1:-1, 1:-1] = 1.0
    weights = to_device(weights.to(pictures.dtype), pictures.device)[None, None]
    planes = pictures.flatten(0, 1)[:, None]
    there = functional.conv2d(torch.ones_like(planes[:1]), weights, padding=kernel // 2)
    return (functional.conv2d(planes, weights, padding=kernel // 2) / there).view_as(pictures)
