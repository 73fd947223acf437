"""Pictures that share low-resolution parts, so that neighbors align."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featviz_pl.images.ball import BallImage
from featviz_pl.images.base import Image
from featviz_pl.images.generator import GeneratorImage
from featviz_pl.images.laplacian import enlarged_sum, halved_sizes
from featviz_pl.images.latent import LatentImage, unpack
from featviz_pl.images.maco import MacoImage
from featviz_pl.numerics.checks import finite_number, whole_number

ALIGNED = ((1, 2), (1, 4), (1, 8), (2, 8), (1, 16), (2, 16))  # Lucid's notebook on aligned interpolation


class SharedImage(Image):
    """Add shared parts to every picture: ``latent = own_weight * own + sum shared + group_weight * groups @ G``.

    The shared parts are few pixels that the gradients of all pictures move, so that pictures stay alike at low
    resolution. Each is k maps of ``size // d`` pixels, enlarged bilinearly: with k = 1 the same for all pictures, with
    k > 1 spread evenly along the batch and interpolated linearly, the first map for the first picture and the last for
    the last.

    With `groups`, pictures also share G full pictures of the same parameterization, weighted by the matrix: with the
    factors of a non-negative factorization, an activation grid whose cells agree.

    The gradient of one picture moves the shared parts, and with them the other pictures.

    Shape:
        () -> (N, C, H, W)

    Args:
        image: the individual parts of the pictures, with color and squash.
        shared: (k, d) for each shared part: number of maps, and divisor of the size.
        groups: (N, G) weight of each group in each picture.
        own_weight: of the individual parts; Lucid's activation grid has 0.7.
        group_weight: of the groups; Lucid's activation grid has 0.5.
        deviation: standard deviation of the first shared weights; groups start with that of `image`.

    Raises:
        ValueError: when `groups` is no matrix, or has not one row for each picture.

    Example:
        >>> from featviz_pl.images import FourierImage
        >>> image = SharedImage(FourierImage(16, count=3), shared=[(1, 4), (2, 8)])
        >>> image().shape, image.shared.shape  # 3 channels of 4 x 4 pixels and twice 2 x 2
        (torch.Size([3, 3, 16, 16]), torch.Size([72]))

    Reference:
        Mordvintsev, Pezzotti, Schubert, Olah, "Differentiable Image Parameterizations", Distill, 2018; for groups: Olah
        et al., "The Building Blocks of Interpretability", Distill, 2018
    """

    shared: nn.Parameter
    group: nn.Parameter | None
    groups: Tensor | None

    def __init__(
        self,
        image: LatentImage,
        shared: Sequence[tuple[int, int]] = ALIGNED,
        *,
        groups: Tensor | Sequence[Sequence[float]] | None = None,
        own_weight: float = 1.0,
        group_weight: float = 1.0,
        deviation: float = 0.01,
    ) -> None:
        if not isinstance(image, LatentImage):
            raise TypeError(f"image must be a LatentImage such as FourierImage, got {type(image).__name__}")
        if isinstance(image, (BallImage, GeneratorImage, MacoImage)):
            raise ValueError(
                f"image: shared parts would leave the bounds of a {type(image).__name__}; use a FourierImage"
            )
        super().__init__(image.size, image.channels)
        self.image = image
        self.parts = [_part(part) for part in shared]
        self.own_weight = finite_number("own_weight", own_weight)
        self.group_weight = finite_number("group_weight", group_weight)
        self.deviation = finite_number("deviation", deviation, least=0.0)
        device = image.initialized.device
        with torch.inference_mode(False):
            self.initialized = self.initialized.to(device)
            elements = sum(shape.numel() for shape in self._shapes())
            self.shared = nn.Parameter(torch.zeros(elements, dtype=self._precision, device=device))
            self.register_buffer("groups", None, persistent=False)
            self.register_parameter("group", None)
            if groups is not None:
                self.groups = torch.as_tensor(groups, dtype=torch.float32, device=device).detach().clone()
                if self.groups.ndim != 2 or not self.groups.numel() or not torch.isfinite(self.groups).all():
                    raise ValueError(
                        f"groups: must be finite numbers (pictures, groups), got {tuple(self.groups.shape)}"
                    )
                shape = (self.groups.shape[1], *image.weight_shape())
                self.group = nn.Parameter(torch.zeros(shape, dtype=self._precision, device=device))
                if image.count is not None:
                    self._check_rows(image.count)

    def _shapes(self) -> list[torch.Size]:
        sizes = halved_sizes(self.size, [divisor for _, divisor in self.parts])
        return [torch.Size((maps, self.channels, *size)) for (maps, _), size in zip(self.parts, sizes)]

    def _check_rows(self, count: int) -> None:
        if self.groups is not None and len(self.groups) != count:
            raise ValueError(f"groups: {len(self.groups)} rows do not fit {count} pictures; give one row for each")

    @property
    def count(self) -> int | None:
        """Number of pictures, or None before it is known."""
        return self.image.count

    def allocate(self, count: int) -> None:
        """Allocate the individual parts; `groups` must have one row for each picture."""
        self._check_rows(whole_number("count", count))
        self.image.allocate(count)

    @torch.no_grad()
    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the individual weights as without shared parts, then the shared ones from the first generator."""
        self.image.initialize(len(generators), generators)
        first = generators[0]
        self.shared.copy_(torch.randn(self.shared.shape, generator=first, dtype=torch.float32) * self.deviation)
        if self.group is not None:
            for weight in self.group:
                weight.copy_(self.image.draw_weight(first))

    @torch.no_grad()
    def start_from(self, image: Tensor) -> None:
        """Encode pictures in the individual parts, and set the shared ones to zero."""
        pictures = self.check_start(image)
        if self.own_weight == 0:
            raise ValueError("own_weight: with 0 the pictures have no individual part that could be started")
        if self.group is not None:
            self.group.zero_()  # decodes to a zero latent
        self.shared.zero_()
        weight = self.image.required_weight()
        weight.copy_(self.image.encode_latent(self.image.from_rgb(pictures) / self.own_weight).expand_as(weight))
        self.image.initialized.fill_(True)
        self.initialized.fill_(True)

    def forward(self) -> Tensor:
        """Decode the pictures."""
        weight = self.image.required_weight()
        latent = self.own_weight * self.image.decode_latent(weight)
        if self.parts:
            latent = latent + self._shared_latent(len(weight))
        if self.group is not None and self.groups is not None:
            groups = torch.tensordot(self.groups.to(latent), self.image.decode_latent(self.group), 1)
            latent = latent + self.group_weight * groups
        return self.image.to_rgb(latent)

    def _shared_latent(self, count: int) -> Tensor:
        levels = []
        for maps in unpack(self.shared[None], self._shapes()):
            spread = spread_matrix(count, maps.shape[1]).to(maps)
            levels.append(torch.tensordot(spread, enlarged_sum([maps[0]], self.size), 1))
        return torch.stack(levels).sum(0)

    def __repr__(self) -> str:
        groups = "" if self.groups is None else f", groups=<{self.groups.shape[0]} x {self.groups.shape[1]}>"
        weights = f"own_weight={self.own_weight:g}, group_weight={self.group_weight:g}, deviation={self.deviation:g}"
        return f"{type(self).__name__}({self.image!r}, shared={self.parts}{groups}, {weights})"


def _part(part: Any) -> tuple[int, int]:
    if not isinstance(part, Sequence) or isinstance(part, str) or len(part) != 2:
        raise ValueError(f"shared: give (maps, divisor) for each part, such as (1, 4), got {part!r}")
    return whole_number("shared", part[0]), whole_number("shared", part[1])


def spread_matrix(count: int, maps: int) -> Tensor:
    """Return the weight of each map for each picture, when maps are spread evenly along the batch.

    The first picture has the first map, the last one the last, and those between interpolate linearly.

    Shape:
        () -> (count, maps)

    Example:
        >>> spread_matrix(3, 2).tolist(), spread_matrix(2, 1).tolist(), spread_matrix(1, 2).tolist()
        ([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [[1.0], [1.0]], [[1.0, 0.0]])
    """
    positions = torch.linspace(0, maps - 1, count, dtype=torch.float64)
    return (1 - (positions[:, None] - torch.arange(maps, dtype=torch.float64)).abs()).clamp_min(0)
