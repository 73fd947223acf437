"""Pictures, photos and a network with classes for tests of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor, nn
from toys import toy

from featviz_pl.io import as_saved, save_png
from featviz_pl.networks import FrozenNetwork

ALWAYS = ["picture", "target", "score", "held_out", "slope", "clipped", "color_distance", "variation", "high_frequency"]


def noise(count: int, height: int = 40, width: int = 48, channels: int = 3, seed: int = 0) -> Tensor:
    """Return pictures as files hold them."""
    return as_saved(torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed)))


def toy_score(picture: Tensor, unit: int, network: nn.Module | None = None) -> float:
    """Score a picture for ``features.5:unit`` of the toy network, without the library."""
    with torch.no_grad():
        return float((network or toy()).eval().features(picture[None])[0, unit].mean())  # type: ignore[operator]


def make_photos(folder: Path) -> Path:
    """Write twelve photos of different size and mode, and a file that is none."""
    folder.mkdir()
    for index, levels in enumerate(noise(12, 50, 60, seed=9)):
        level = int(20 * index)
        array = (levels.permute(1, 2, 0).numpy() * 40 + level).clip(0, 255).astype(np.uint8)
        picture = Pillow.fromarray(array).resize((60 - 2 * index, 50))
        picture.convert("L" if index == 3 else "RGB").save(folder / f"{index:02}.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def save(path: Path, picture: Tensor, target: Any = "features.5:1", **more: Any) -> Path:
    """Save a picture with the provenance that a run gives it."""
    provenance = {"target": target, "objective": "Channel('features.5', 1)", "network": "ToyNet", **more}
    return save_png(picture, path, provenance)


def named(classes: tuple[str, ...]) -> FrozenNetwork:
    """Return the toy network with names for its five classes."""
    return FrozenNetwork(toy(), classes=classes)
