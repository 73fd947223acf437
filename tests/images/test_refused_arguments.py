"""Arguments that cannot work are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from toys import toy

from featviz_pl.images import (
    AlphaImage,
    BallImage,
    CPPNImage,
    FixedImage,
    FourierImage,
    GeneratorImage,
    GrowingImage,
    Image,
    InterpolationBasisImage,
    LaplacianPyramidImage,
    MacoImage,
    MaskedImage,
    MultiResolutionImage,
    PixelImage,
    SharedImage,
    StackImage,
)

PICTURE, MASK, NAN, INFINITE = torch.full((3, 5, 6), 0.5), torch.ones(5, 6), float("nan"), float("inf")
LATENT = [
    ({"size": 0}, "size must be at least 1, got 0"),
    ({"size": (4, -1)}, "size must be at least 1, got -1"),
    ({"size": (4, 5, 6)}, r"size must be one number or \(height, width\), got \(4, 5, 6\)"),
    ({"size": 4.5}, "size must be a whole number of at least 1, got 4.5"),
    ({"size": "8"}, "size must be a whole number of at least 1, got '8'"),
    ({"channels": 0}, "channels must be at least 1, got 0"),
    ({"count": 0}, "count must be at least 1, got 0"),
    ({"count": True}, "count must be a whole number of at least 1, got True"),
    ({"deviation": -0.1}, "deviation must be at least 0, got -0.1"),
    ({"deviation": NAN}, "deviation must be at least 0, got nan"),
    ({"color": "lab"}, "color: unknown color space 'lab'"),
    ({"color": "imagenet", "channels": 1}, "color: .*matrix.* 1 channels"),
    ({"color": torch.ones(3, 3)}, "color: the matrix cannot be inverted"),
]


def generated(*arguments: Any, **keywords: Any) -> Image:
    return GeneratorImage(nn.Sequential(nn.Linear(4, 90), nn.Unflatten(1, (3, 5, 6))), *arguments, **keywords)


def masked(**arguments: Any) -> Image:
    return MaskedImage(**{"image": PixelImage((5, 6)), "picture": PICTURE, "mask": MASK, **arguments})


def shared(**arguments: Any) -> Image:
    return SharedImage(**{"image": PixelImage(4, 2), **arguments})


class Twice(nn.Module):
    """Return two pictures for each latent, or no tensor."""

    def __init__(self, tensor: bool) -> None:
        super().__init__()
        self.tensor = tensor

    def forward(self, latent: torch.Tensor) -> Any:
        pictures = torch.zeros(2 * len(latent), 3, 4, 4)
        return pictures if self.tensor else [pictures]


CASES: list[tuple[Callable[..., Any], list[tuple[Any, str]]]] = [
    (PixelImage, [*LATENT, ({"squash": "clamp"}, "squash: unknown squash 'clamp'; did you mean 'clip'")]),
    (FourierImage, [*LATENT[-4:], ({"size": 8, "decay": INFINITE}, "decay must be finite, got inf")]),
    (
        LaplacianPyramidImage,
        [({"levels": 0}, "levels must be at least 1"), ({"levels": 2.5}, "levels must be a whole")],
    ),
    (
        MultiResolutionImage,
        [
            ({"size": 8, "resolutions": [1, 9]}, "resolutions must be at most 8, .* got 9"),
            ({"resolutions": []}, "resolutions must be pixels along the longer side"),
            ({"resolutions": 4}, "resolutions must be pixels along the longer side"),
            ({"resolutions": [0, 1]}, "resolutions must be at least 1, got 0"),
            ({"resolutions": [1.5]}, "resolutions must be a whole number"),
            ({"interpolation": "bicubik"}, "interpolation: unknown interpolation 'bicubik'; did you mean 'bicubic'"),
        ],
    ),
    (
        CPPNImage,
        [
            *LATENT[:1],
            ({"width": 0}, "width must be at least 1, got 0"),
            ({"depth": 0}, "depth must be at least 1, got 0"),
            ({"activation": "tanh"}, "activation: unknown activation 'tanh'; known: composite, unbiased, relu"),
        ],
    ),
    (
        MacoImage,
        [
            ({"size": 8, "spectrum": torch.ones(3, 8, 8)}, r"spectrum: .* \(3, 8, 5\) .* got \(3, 8, 8\)"),
            ({"size": 8, "spectrum": torch.ones(1, 8, 5)}, r"spectrum: .* got \(1, 8, 5\)"),
            ({"channels": 1}, "spectrum: measured on 3 channels, which do not fit pictures of 1"),
            ({"size": 8, "spectrum": -torch.ones(3, 8, 5)}, "spectrum: the magnitude must be finite, nowhere negative"),
            ({"size": 8, "spectrum": torch.zeros(3, 8, 5)}, "spectrum: the magnitude must be finite"),
            ({"size": 8, "spectrum": torch.full((3, 8, 5), NAN)}, "spectrum: the magnitude must be finite"),
            ({"spectrum": "no such file.pt"}, "there is no file 'no such file.pt'"),
            ({"spectrum": object()}, "spectrum must be 'natural', a file, statistics or a tensor, got object"),
            ({"spectrum": None}, "spectrum must be .* got NoneType"),
            ({"size": 3}, "size must be at least 4 pixels"),
        ],
    ),
    (
        InterpolationBasisImage,
        [
            ({"objectives": 1}, "objectives must be at least 2, got 1"),
            ({"steps": 1}, "steps must be at least 2, got 1"),
            ({"steps": 2.0}, "steps must be a whole number"),
            ({"size": 0}, "size must be at least 1, got 0"),
            ({"size": 8, "color": "lab"}, "color: unknown color space 'lab'"),
        ],
    ),
    (
        shared,
        [
            ({"image": torch.zeros(3, 4, 4)}, "image must be a LatentImage such as FourierImage, got Tensor"),
            ({"image": MacoImage(8)}, "image: shared parts would leave the bounds of a MacoImage"),
            ({"shared": [(1, 2, 3)]}, r"shared: give \(maps, divisor\) .* got \(1, 2, 3\)"),
            ({"shared": [4]}, "shared: give .* got 4"),
            ({"shared": [(0, 2)]}, "shared must be at least 1, got 0"),
            ({"shared": [(1, 2.5)]}, "shared must be a whole number"),
            ({"groups": [[1.0, 2.0]]}, "groups: 1 rows do not fit 2 pictures"),
            ({"groups": [1.0, 2.0]}, r"groups: must be finite numbers \(pictures, groups\), got \(2,\)"),
            ({"groups": [[1.0], [NAN]]}, "groups: must be finite"),
            ({"own_weight": INFINITE}, "own_weight must be finite"),
            ({"group_weight": "1"}, "group_weight must be a number"),
            ({"deviation": -1.0}, "deviation must be at least 0"),
        ],
    ),
    (
        AlphaImage,
        [
            ({"size": 0}, "size must be at least 1, got 0"),
            ({"size": 8, "image": PixelImage(4)}, r"size: 8 differs from that of the image, \(4, 4\)"),
            ({"channels": 1, "image": PixelImage(4)}, "channels: 1 differs from that of the image, 3"),
            ({"image": AlphaImage(4)}, "image: AlphaImage has an alpha channel already"),
            ({"image": toy()}, "image must be an Image, got ToyNet"),
            ({"opacity": 0}, "opacity must be at least 0.001 and at most 0.999, got 0"),
            ({"opacity": 1.5}, "opacity must be at least 0.001"),
            ({"count": 3, "image": PixelImage(4, 2)}, "count: the image holds 2 pictures"),
        ],
    ),
    (
        lambda **arguments: BallImage(**{"picture": PICTURE, "radius": 1.0, **arguments}),
        [
            ({"radius": 0}, "radius must be above 0, got 0"),
            ({"radius": INFINITE}, "radius must be above 0, got inf"),
            ({"norm": "l1"}, "norm: unknown norm 'l1'"),
            ({"picture": PICTURE * 3}, r"picture must lie in \[0, 1\], got values from 1.5 to 1.5"),
            ({"picture": PICTURE.expand(2, -1, -1, -1), "count": 3}, "count: 2 centres do not fit 3 pictures"),
        ],
    ),
    (
        lambda **arguments: FixedImage(**{"picture": PICTURE, **arguments}),
        [
            ({"picture": []}, "picture must be a tensor or the path of a picture file or several"),
            ({"picture": 3}, "picture must be a tensor or the path"),
            ({"picture": "absent.png"}, "picture: cannot read a picture from 'absent.png'"),
            ({"picture": "absent.png", "channels": 2}, "channels: picture files hold 1, 3 or 4, not 2"),
            ({"channels": 4}, "picture: pictures of 3 channels do not fit 4"),
            ({"picture": PICTURE[0]}, "picture must be floats"),
        ],
    ),
    (
        lambda **arguments: generated(**{"latent_shape": 4, **arguments}),
        [
            ({"latent_shape": 7}, r"latent_shape: the generator fails on a latent \(1, 7,\)"),
            ({"latent_shape": 0}, "latent_shape must be at least 1, got 0"),
            ({"size": 9}, r"size: the generator's pictures have \(5, 6\) pixels, not \(9, 9\)"),
            ({"channels": 1}, "channels: the generator's pictures have 3, not 1"),
            ({"value_range": (1, -1)}, r"value_range must be \(low, high\), low below high"),
            ({"value_range": (1,)}, r"value_range must be \(low, high\), low below high"),
        ],
    ),
    (
        lambda generator, shape: GeneratorImage(generator, shape),
        [
            (("generator", 4), "generator must be an nn.Module, got str"),
            ((nn.Flatten(), (2, 3)), r"generator must return pictures .* got \(1, 6\)"),
            ((Twice(True), 3), r"generator must return pictures .* got \(2, 3, 4, 4\)"),
            ((Twice(False), 3), "generator must return pictures .* got list"),
        ],
    ),
    (
        lambda **arguments: GrowingImage(**{"size": 8, **arguments}),
        [
            ({"sizes": [4, 6]}, r"sizes must grow up to the shorter side of the picture, 8, got \[4, 6\]"),
            ({"sizes": [4, 4, 8]}, "sizes must grow"),
            ({"sizes": []}, "sizes must grow"),
            ({"sizes": [0, 8]}, "sizes must be at least 1, got 0"),
            ({"sizes": [4, 8], "starts": [0]}, "starts must be 2 growing shares of the run"),
            ({"sizes": [4, 8], "starts": [0.1, 0.5]}, "starts must be 2 growing shares of the run, 0 first"),
            ({"sizes": [4, 8], "starts": [0, 1]}, r"below 1, got \[0.0, 1.0\]"),
            ({"zoom": 1.5}, "zoom must be at least 0 and at most 1, got 1.5"),
            ({"image": nn.Linear}, "image must be a class of images, such as FourierImage"),
            ({"image": CPPNImage}, "image: no picture can start the stages, CPPNImage: .* cannot be started"),
        ],
    ),
    (
        masked,
        [
            ({"image": toy()}, "image must be an Image, got ToyNet"),
            ({"image": PixelImage(5)}, r"picture: shape \(3, 5, 6\) does not fit an image of \(3, 5, 5\)"),
            ({"mask": MASK.T}, r"mask: must be of shape \(5, 6\).* got \(1, 1, 6, 5\)"),
            ({"mask": PICTURE}, r"mask: must be of shape \(5, 6\).* got \(1, 3, 5, 6\)"),
            ({"mask": 0 * MASK}, "mask: is 0 everywhere"),
            ({"mask": 2 * MASK}, r"mask must lie in \[0, 1\]"),
            ({"mask": "absent.png"}, "mask: cannot read a picture"),
            ({"start": "photo"}, "start: unknown start 'photo'"),
            (
                {"image": PixelImage((5, 6), 3), "picture": PICTURE.expand(2, -1, -1, -1)},
                "mask: 1 masks, 2 pictures and 3 images do not fit; give one or as many",
            ),
        ],
    ),
    (
        StackImage,
        [
            (([],), "images must be one Image or more"),
            (([PixelImage(4), toy()],), "images must be one Image or more"),
            (([PixelImage(4), FourierImage(5)],), r"\(3, 5, 5\) without alpha at index 1 does not fit PixelImage"),
            (([AlphaImage(4), PixelImage(4, channels=4)],), "without alpha at index 1 does not fit AlphaImage"),
        ],
    ),
]


@pytest.mark.parametrize(("make", "arguments", "message"), [(make, *case) for make, cases in CASES for case in cases])
def test_bad_arguments_are_named(make: Callable[..., Any], arguments: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(**arguments) if isinstance(arguments, dict) else make(*arguments)
