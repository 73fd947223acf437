"""Images made of other images are built from YAML; test_contract.py does the same for the others."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser
from PIL import Image as Pillow
from torch import Tensor, nn

from featviz_pl import images
from featviz_pl.images import Image

# {folder} holds picture.png and mask.png, 5 x 6 pixels.
CASES: dict[str, str] = {
    "AlphaImage": "{class_path: AlphaImage, init_args: {count: 2, image: {class_path: PixelImage, init_args: {size: [5, 6]}}}}",
    "BallImage": "{class_path: BallImage, init_args: {picture: '{folder}/picture.png', radius: 2, norm: l2, count: 2}}",
    "FixedImage": "{class_path: FixedImage, init_args: {picture: ['{folder}/picture.png', '{folder}/picture.png']}}",
    "GeneratorImage": "{class_path: GeneratorImage, init_args: {generator: {class_path: MODULE.Waves}, latent_shape: [4], count: 2}}",
    "GrowingImage": "{class_path: GrowingImage, init_args: {size: [5, 6], count: 2, sizes: [2, 5], image: featviz_pl.images.PixelImage}}",
    "MaskedImage": "{class_path: MaskedImage, init_args: {image: {class_path: PixelImage, init_args: {size: [5, 6], count: 2}}, "
    "picture: '{folder}/picture.png', mask: '{folder}/mask.png'}}",
    "StackImage": "{class_path: StackImage, init_args: {images: [{class_path: FixedImage, init_args: {picture: '{folder}/picture.png'}}, "
    "{class_path: PixelImage, init_args: {size: [5, 6], count: 1}}]}}",
}


class Waves(nn.Module):
    """Make pictures of 5 x 6 from four numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(4, 90)

    def forward(self, latent: Tensor) -> Tensor:
        pictures: Tensor = torch.tanh(self.make(latent)).view(-1, 3, 5, 6)
        return pictures


def test_every_image_that_is_made_of_more_is_in_the_table() -> None:
    made = {
        name
        for name in images.__all__
        if issubclass(getattr(images, name), images.base.Image) and not inspect.isabstract(getattr(images, name))
    }
    latent = {name for name in made if issubclass(getattr(images, name), images.LatentImage)}
    others = {"SharedImage", "InterpolationBasisImage"}  # in test_contract.py
    assert set(CASES) == (made - latent - others) | {"BallImage", "GeneratorImage"}


@pytest.mark.parametrize("name", CASES)
def test_an_image_is_built_from_yaml(name: str, tmp_path: Path) -> None:
    for file in ("picture.png", "mask.png"):
        Pillow.fromarray(np.full((5, 6, 3), 51, dtype=np.uint8)).save(tmp_path / file)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--image", type=Image)
    text = CASES[name].replace("{folder}", str(tmp_path)).replace("MODULE", __name__)
    built = parser.instantiate(parser.parse_object({"image": yaml.safe_load(text)})).image
    assert type(built) is getattr(images, name)
    built.initialize(2, torch.Generator().manual_seed(0))
    assert built().shape == (2, 4 if name == "AlphaImage" else 3, 5, 6)
