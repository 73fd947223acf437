"""What happens to pixels where they are: circular shifts, blurs, and gradients of one length."""

from __future__ import annotations

import torch
from torch import Tensor

from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.device_transfer import to_device
from featviz_pl.numerics.jit_tracing import untraced
from featviz_pl.numerics.resampling import gaussian_blur
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.ranges import Range, WholeRange, describe, draw, parse_range, parse_whole_range
from featviz_pl.transforms.warp import at_least_float32


class Roll(Transform):
    """Shift the picture in a circle by a number of whole pixels drawn for each axis.

    What leaves on one side enters on the other. Shifts are rounded to whole pixels.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N, 2), the shift (y, x) in pixels, down and right positive

    Args:
        pixels: n draws from -n to n, a pair (low, high) from low to high; or a `Choice`, or a distribution.

    Example:
        >>> Roll(1).apply(torch.arange(3.0).view(1, 1, 1, 3), torch.tensor([[0.0, 1.0]])).flatten().tolist()
        [2.0, 0.0, 1.0]

    Reference:
        Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with
        Data Augmentations", 2022
    """

    def __init__(self, pixels: WholeRange) -> None:
        super().__init__()
        self.pixels = parse_whole_range("pixels", pixels)

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n shifts."""
        return draw(self.pixels, generator, 2 * n).view(n, 2).round()

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Shorten the shift, to whole pixels."""
        return torch.round(parameters * strength)

    def apply(self, image: Tensor, parameters: Tensor) -> Tensor:  # type: ignore[override]
        """Roll each picture."""
        image = at_least_float32(image)
        with untraced():
            shifts = parameters.round().to("cpu", torch.int64).tolist()
        return torch.stack([picture.roll(tuple(shift), (-2, -1)) for picture, shift in zip(image.unbind(0), shifts)])

    def extra_repr(self) -> str:
        """Show the range."""
        return describe(self.pixels)


class Blur(Transform):
    """Blur with a Gaussian whose deviation is drawn for each view.

    The border is mirrored, so the mean of the picture stays.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,), the deviation in pixels

    Args:
        sigma: deviation in pixels, 0 or more: one number is always used, a pair (low, high) draws uniformly between
            them, as in torchvision's ``GaussianBlur``; or a `Choice`, or a distribution. Draws below 0 count as 0.
        kernel: number of weights across, odd; four deviations to either side unless given.

    Raises:
        ValueError: when `kernel` is even: its middle lies between two pixels, and it would shift the picture by half of
            one.

    Example:
        >>> spot = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 5)
        >>> [round(value, 4) for value in Blur(1.0, kernel=3)(spot, torch.Generator()).flatten().tolist()]
        [0.0, 0.2741, 0.4519, 0.2741, 0.0]
    """

    def __init__(self, sigma: Range, kernel: int | None = None) -> None:
        super().__init__()
        self.sigma = parse_range("sigma", sigma, least=0.0)
        self.kernel = None if kernel is None else whole_number("kernel", kernel)
        if self.kernel is not None and self.kernel % 2 == 0:
            raise ValueError(
                f"kernel must be odd, or it would shift by half a pixel; got {kernel}, use {self.kernel + 1}"
            )

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Draw n deviations."""
        return draw(self.sigma, generator, n).clamp_min(0.0)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Blur less."""
        return parameters * strength

    def apply(self, image: Tensor, parameters: Tensor) -> Tensor:  # type: ignore[override]
        """Blur each picture."""
        return gaussian_blur(at_least_float32(image), parameters, None if self.kernel is None else self.kernel // 2)

    def extra_repr(self) -> str:
        """Show range and kernel."""
        return describe(self.sigma) + ("" if self.kernel is None else f", kernel={self.kernel}")


class NormalizeGradient(Transform):
    """Show the picture as it is, and divide the gradient of each view by its own length.

    ``gradient / max(|gradient|, 1e-12)``: every view pulls equally hard, and a gradient of zero stays zero. It acts on
    what flows back through this place of the composition, so it undoes a gradient scaler and the division by
    accumulated batches: use it without them. Weakened, it divides by ``|gradient| ** strength``.

    Shape:
        (N, C, H, W) -> (N, C, H, W); parameters (N,), the exponent of the length

    Example:
        >>> image = torch.zeros(1, 1, 1, 2, requires_grad=True)
        >>> shown = NormalizeGradient()(image, torch.Generator())
        >>> (shown * torch.tensor([30.0, 40.0])).sum().backward()
        >>> [round(value, 6) for value in image.grad.flatten().tolist()]
        [0.6, 0.8]
    """

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """Repeat 1: nothing is random."""
        return torch.ones(n, dtype=torch.float32)

    def weaken(self, parameters: Tensor, strength: float) -> Tensor:
        """Divide by a power of the length."""
        return parameters * strength

    def apply(self, image: Tensor, parameters: Tensor) -> Tensor:  # type: ignore[override]
        """Return the picture, with a hook on its gradient."""
        image = at_least_float32(image)
        view = image.view_as(image)  # the hook must not see what reaches the picture on other ways
        with untraced():
            exponent = to_device(parameters.detach().to(image.dtype), image.device)
        if view.requires_grad:

            def divided(gradient: Tensor) -> Tensor:
                length = torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(1e-12)
                divisor: Tensor = length**exponent
                return gradient / divisor.view(-1, 1, 1, 1)

            view.register_hook(divided)
        return view
