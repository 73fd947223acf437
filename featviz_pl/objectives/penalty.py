"""Penalties on the picture itself: positive, to be subtracted; sums over pixels and channels unless stated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from featviz_pl.numerics.checks import finite_number, whole_number
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.objectives.base import Term
from featviz_pl.objectives.protocol import Observation, Setting


class TotalVariation(Term):
    """Sum the differences of neighbouring pixels: ``sum |dy|^power + sum |dx|^power``.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        power: 1 is the field's, 2 the article's. At least 1.

    Example:
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
        vertical = observation.pictures.diff(dim=2).flatten(1).abs()
        horizontal = observation.pictures.diff(dim=3).flatten(1).abs()
        if self.power != 1:
            vertical, horizontal = vertical**self.power, horizontal**self.power
        return (vertical.sum(1) + horizontal.sum(1))[:, None]


class L1(Term):
    """Sum the distances of all values from a constant: ``sum |x - center|``.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> L1(0.5)(Observation(torch.tensor([[[[0.0, 1.0]]]]), {})).item()
        1.0
    """

    positional = ("center",)

    def __init__(self, center: float = 0.0) -> None:
        super().__init__()
        self.center = finite_number("center", center)

    def score(self, observation: Observation) -> Tensor:
        return (observation.pictures - self.center).flatten(1).abs().sum(1, keepdim=True)


class L2(L1):
    """Measure the Euclidean distance of the picture from a constant: ``sqrt(1e-6 + sum (x - center)^2)``.

    The small number keeps the gradient finite where the picture is flat, as in Lucid.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> round(L2()(Observation(torch.tensor([[[[3.0, 4.0]]]]), {})).item(), 4)
        5.0
    """

    def score(self, observation: Observation) -> Tensor:
        return (1e-6 + (observation.pictures - self.center).flatten(1).square().sum(1, keepdim=True)).sqrt()


class LInfinity(L1):
    """Measure the largest distance of any value from a constant: ``max |x - center|``. A maximum, not a sum.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        center: in [0, 1]; the field penalises distance from 0 or from grey, 0.5.

    Example:
        >>> LInfinity()(Observation(torch.tensor([[[[0.25, 0.75]]]]), {})).item()
        0.75
    """

    def score(self, observation: Observation) -> Tensor:
        return (observation.pictures - self.center).flatten(1).abs().amax(1, keepdim=True)


class BlurDistance(Term):
    """Measure the distance of the picture from its blurred copy: ``sum (x - blur(x)) ^ 2 / 2``, the copy detached.

    Its gradient is ``x - blur(x)``: a step of gradient descent with weight w blends in the blurred picture by its
    learning rate times w, Lucid's ``blur_input_each_step``. The blur is a mean over 3 x 3 pixels, the middle one
    counted twice; at the border over those inside the picture.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Example:
        >>> round(BlurDistance()(Observation(torch.tensor([[[[1.0, 0.0]]]]), {})).item(), 4)
        0.1111

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """

    def score(self, observation: Observation) -> Tensor:
        return _blur_penalty(observation.pictures)


class BoundaryComplexity(Term):
    """Sum detail and contrast along the border: ``sum over the frame of (blur(x) - x) ^ 2 + 0.8 (x - 0.5) ^ 2``.

    The blur is a mean over `kernel` x `kernel` pixels that counts the outermost ones half; the gradient goes through
    it.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Args:
        width: of the frame in pixels, 1 or more. The field's is 20, and 5 for the icons of an atlas.
        kernel: side of the blur in pixels, odd, 3 or more.

    Example:
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
        pictures, width = observation.pictures, self.width
        distances = (_blurred(pictures, self.kernel) - pictures).square() + 0.8 * (pictures - 0.5).square()
        frame = torch.ones_like(pictures[0, 0])
        frame[width:-width, width:-width] = 0
        return (distances * frame).flatten(1).sum(1, keepdim=True)

    def formula(self) -> str:
        """Return the constructor call, always with the width."""
        kernel = "" if self.kernel == 5 else f", kernel={self.kernel}"
        return f"BoundaryComplexity({self.width}{kernel})"


class HighFrequency(Term):
    """Measure the share of spectral energy above a frequency. A share, not a sum.

    The mean of each channel does not count; a picture of one color has none.

    Shape:
        pictures (N, C, H, W) -> (N, 1) in [0, 1]

    Args:
        cutoff: in cycles per pixel in any direction, from 0 to 0.7, the highest on a diagonal; on an axis it is 0.5.

    Example:
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(1, 1, 4, 2)
        >>> HighFrequency()(Observation(stripes, {})).item(), HighFrequency(0.5)(Observation(stripes, {})).item()
        (1.0, 0.0)
    """

    positional = ("cutoff",)

    def __init__(self, cutoff: float = 0.25) -> None:
        super().__init__()
        self.cutoff = finite_number("cutoff", cutoff, least=0.0, most=0.7)

    def score(self, observation: Observation) -> Tensor:
        pictures = observation.pictures
        height, width = pictures.shape[-2:]
        spectrum = torch.fft.fft2(pictures - pictures.mean((2, 3), keepdim=True), norm="ortho")
        energy = torch.view_as_real(spectrum).square().sum(4).sum(1)
        # On the CPU and in double precision: a frequency that is exactly the cutoff must not count by rounding.
        vertical, horizontal = (torch.fft.fftfreq(length, dtype=torch.float64) for length in (height, width))
        fine = torch.hypot(vertical[:, None], horizontal) > self.cutoff * (1 + 1e-12)
        high = (energy * to_device(fine.to(energy.dtype), energy.device)).flatten(1).sum(1)
        return (high / (energy.flatten(1).sum(1) + 1e-12))[:, None]


class AlphaTerm(Term):
    """Score the alpha channel of a picture."""

    def check_term(self, setting: Setting) -> None:
        if not setting.alpha:
            raise ValueError(
                f"{self!r}: the pictures, {setting.picture[0]} channels, have no alpha channel; use an AlphaImage"
            )


class AlphaMean(AlphaTerm):
    """Measure how opaque the picture is: the mean of its alpha channel. A mean, not a sum.

    Of each view where the views still have alpha, or of the picture where they do not.
    ``objective * (1 - AlphaMean())`` leaves transparent what the objective does not need.

    Shape:
        views (N, V, C, h, w) -> (N, V), or pictures (N, C, H, W) -> (N, 1)

    Args:
        of_views: False takes the whole picture instead of its views.

    Raises:
        ValueError: for pictures without alpha.

    Example:
        >>> AlphaMean()(Observation(torch.full((1, 4, 2, 2), 0.25), {})).item()
        0.25

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def __init__(self, of_views: bool = True) -> None:
        super().__init__()
        self.of_views = bool(of_views)

    def score(self, observation: Observation) -> Tensor:
        views = observation.network_input()
        with_alpha = self.of_views and views.shape[2] == observation.pictures.shape[1]
        return (views if with_alpha else observation.pictures[:, None])[:, :, -1].mean((2, 3))


class AlphaBlurDistance(AlphaTerm):
    """Measure the distance of the alpha channel from its blurred copy, as `BlurDistance` does of the picture.

    Shape:
        pictures (N, C, H, W) -> (N, 1)

    Raises:
        ValueError: for pictures without alpha.

    Example:
        >>> AlphaBlurDistance()(Observation(torch.full((1, 4, 2, 2), 0.25), {})).item()
        0.0

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018
    """

    def score(self, observation: Observation) -> Tensor:
        return _blur_penalty(observation.pictures[:, -1:])


def _blur_penalty(pictures: Tensor) -> Tensor:
    difference = pictures - _blurred(pictures, 3).detach()
    return 0.5 * difference.square().flatten(1).sum(1, keepdim=True)


def _blurred(pictures: Tensor, kernel: int) -> Tensor:
    """Average each pixel with its neighbours, the outermost counted half; only over pixels inside the picture."""
    weights = torch.full((kernel, kernel), 0.5)
    weights[1:-1, 1:-1] = 1.0
    weights = to_device(weights.to(pictures.dtype), pictures.device)[None, None]
    planes = pictures.flatten(0, 1)[:, None]
    total = functional.conv2d(torch.ones_like(planes[:1]), weights, padding=kernel // 2)
    return (functional.conv2d(planes, weights, padding=kernel // 2) / total).view_as(pictures)
