"""Images made of images made of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from featviz_pl.images import AlphaImage, FixedImage, GrowingImage, Image, MaskedImage, PixelImage, StackImage

MASK = torch.linspace(0, 1, 30).view(5, 6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(channels: int = 3) -> Tensor:
    return torch.rand(1, channels, 5, 6, generator=generator(9))


def growing(kind: type[Image], count: int | None = 1) -> GrowingImage:
    return GrowingImage((5, 6), count, sizes=[2, 5], image=kind)


def test_a_state_dict_fills_every_level() -> None:
    def nested(count: int | None) -> tuple[nn.Module, StackImage, GrowingImage]:
        inner = growing(AlphaImage, count)
        masked = MaskedImage(inner, photos(), MASK)
        module, stacked = nn.Module(), StackImage([FixedImage(photos(4), alpha=True), masked])
        module.image = stacked
        return module, stacked, inner

    (outer, image, _), (fresh, loaded, stages) = nested(2), nested(None)
    image.initialize(3, generator())
    image.advance(7, 8)
    fresh.load_state_dict(outer.state_dict())
    assert torch.equal(loaded(), image())
    assert stages.current.size == (5, 6), "the stage is kept too"


def test_parts_that_were_started_stay_as_they_are() -> None:
    inner = PixelImage.from_image(photos())
    image = AlphaImage(image=inner)
    assert not bool(image.initialized), "the alpha plane is not drawn yet"
    image.initialize(1, generator())
    np.testing.assert_allclose(image()[:, :3].detach().numpy(), photos().numpy(), atol=1e-3)
    assert bool(StackImage([inner]).initialized)


def test_transparency_idle_parameters_and_steps_pass_through() -> None:
    for kind in (AlphaImage, PixelImage):
        masked = MaskedImage(growing(kind), photos(), MASK)
        outer: list[Image] = [masked, StackImage([masked])]
        if kind is PixelImage:
            outer.append(AlphaImage(image=masked))
        for image in outer:
            assert image.alpha == (kind is AlphaImage or isinstance(image, AlphaImage))
            assert image.has_idle_parameters
        outer[-1].initialize(1, generator())
        outer[-1].advance(3, 4)
        assert masked.image.current.size == (5, 6)
    assert not StackImage([PixelImage(4)]).has_idle_parameters
    assert not MaskedImage(PixelImage((5, 6)), photos(), MASK).alpha
