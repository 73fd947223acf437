"""Print a table of hashes of small pictures, to check that a change of the code changes no picture.

    python picture_hashes.py --out table.json                        # before the change
    python picture_hashes.py --compare table.json                    # after it: prints rows that differ, exits with 1
    python picture_hashes.py --compare table.json --ignore changes:  # rows whose names start so may differ
    python picture_hashes.py --only preset: --only resume:           # some of the rows

A row is a name, the first 16 hexadecimal digits of the SHA-256 of a tensor's float32 values, and its shape. Nearly all
tensors are pictures (N, C, H, W) after a few optimization steps, before they are rounded to 256 levels; for these, the
file also holds the hash after rounding ("levels"). Everything runs on the CPU, in one thread, from seed 0. Hashes can
be compared on one machine with one version of PyTorch: the file records the environment, and a comparison across
different ones prints a note.

Only public names of the library are used, each inside its row: a row that fails prints its error, and the others go on.
Rows set optimizer, learning rate, scheduler, views and steps explicitly, so they do not depend on the defaults of the
constructors. Rows that start with "changes:" are named after arguments whose meaning has changed, one number or a list of numbers as
the range of a transform, and pass the choices that those meant before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.distributions import Normal, Uniform
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.utils.data import DataLoader, TensorDataset

import featviz_pl as fv

Row = Callable[[], Tensor]
Entry = dict[str, Any]

CHANNEL = "blocks.2:5"  # of the embedded network
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


# Networks and tensors


class ConvNetwork(nn.Module):
    """Three convolutions with ReLU, batch norm and max pooling, and a linear classifier."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1),
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        y: Tensor = self.head(self.features(x).mean((2, 3)))
        return y


class TransformerBlock(nn.Module):
    """Self-attention and an MLP, both with layer norm and a skip connection."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, F) to tokens (N, T, F)."""
        qkv = self.qkv(self.norm_1(x)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.projection(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norm_2(x))
        return y


class TokenNetwork(nn.Module):
    """A small vision transformer: patches of 8 px, a class token, two blocks; takes pictures of 32 px only."""

    def __init__(self, width: int = 24, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(TransformerBlock(width), TransformerBlock(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1) + self.positions
        y: Tensor = self.head(self.blocks(tokens)[:, 0])
        return y


class ChannelsLastNetwork(nn.Module):
    """Maps in the order (N, H, W, C), as in Swin, and a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(3, 12, 4, stride=4)
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU())
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return logits (N, classes)."""
        return {"logits": self.head(self.mlp(self.embedding(x).permute(0, 2, 3, 1)).mean((1, 2)))}


class DeadNetwork(nn.Module):
    """A ReLU that is 0 for every picture near grey: without redirected gradients, no step changes the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 5), nn.ReLU()
        nn.init.constant_(self.conv.bias, -0.3)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, 4, H, W)."""
        y: Tensor = self.relu(self.conv(x - 0.5))
        return y


class Classifier(LightningModule):
    """A small classifier, for callbacks that work during its training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNetwork(classes=4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 4)."""
        y: Tensor = self.net(x)
        return y

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        return functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """Build a module with random weights that are equal in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def conv_network(channels: int = 3) -> fv.FrozenNetwork:
    """Return a `ConvNetwork` that takes standardized pictures."""
    return fv.FrozenNetwork(module=seeded(partial(ConvNetwork, channels)), mean=0.5, std=0.25, name="conv")


def token_network() -> fv.FrozenNetwork:
    """Return a `TokenNetwork` that takes standardized pictures."""
    return fv.FrozenNetwork(module=seeded(TokenNetwork), mean=0.5, std=0.25, size=32, name="tokens")


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return normal random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photo(size: int = 32, seed: int = 0, count: int | None = None) -> Tensor:
    """Return a smooth random picture (3, H, W) in [0.05, 0.95], or a batch of `count`."""
    coarse = torch.rand(count or 1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False).mul(0.9).add(0.05)
    return smooth if count else smooth[0]


# Runs


class LastImages(Callback):
    """Keep the pictures at the end of a run, before they are rounded to the levels of a file."""

    images: Tensor

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the pictures."""
        assert isinstance(pl_module, fv.FeatureVisualization)
        self.images = pl_module.images.detach().cpu().clone()


class StopAt(Callback):
    """Save a checkpoint after a step, and end the run there."""

    def __init__(self, step: int, path: Path) -> None:
        super().__init__()
        self.step, self.path = step, path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop."""
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def constant_rate(optimizer: torch.optim.Optimizer) -> LambdaLR:
    """Keep the learning rate, whatever schedule is the default."""
    return LambdaLR(optimizer, lambda _: 1.0)


def optimized(
    objective: Any = CHANNEL,
    image: Any = None,
    *,
    network: Any = "embedded",
    steps: int = 6,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    lr: float = 0.05,
    scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] = constant_rate,
    transforms: Any = "lucid",
    views: int = 2,
    schedule: Any = None,
    size: int | None = None,
    callbacks: Sequence[Callback] = (),
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> Tensor:
    """Fit a `FeatureVisualization` with explicit arguments and return its pictures; `transforms=None` uses no views."""
    model = fv.FeatureVisualization(
        network=network,
        objective=objective,
        image=fv.images.FourierImage(size=32, decay=1.0) if image is None else image,
        steps=steps,
        seed=0,
        optimizer=partial(torch.optim.Adam, lr=lr) if optimizer is None else optimizer,
        lr=lr,
        scheduler=scheduler,
    )
    augmentation: list[Callback] = []
    if transforms is not None:
        callback = fv.callbacks.Augmentation(transforms=transforms, views=views, schedule=schedule, size=size)
        augmentation.append(callback)
    arguments = {**QUIET, "precision": "32-true", "max_steps": steps, **trainer}
    Trainer(callbacks=[*augmentation, *callbacks], **arguments).fit(model, ckpt_path=ckpt_path, weights_only=True)
    return model.images


def optimized_image(make_image: Callable[[], Any], **arguments: Any) -> Tensor:
    """Return `optimized` pictures of a parameterization that is built inside the row."""
    return optimized(image=make_image(), **arguments)


def optimized_objective(make_objective: Callable[[], Any], make_image: Callable[[], Any] | None = None) -> Tensor:
    """Return pictures `optimized` for an objective that is built inside the row."""
    return optimized(make_objective(), None if make_image is None else make_image())


def optimized_views(make_transforms: Callable[[], Any]) -> Tensor:
    """Return pictures `optimized` through transforms that are built inside the row."""
    return optimized(transforms=make_transforms())


def rendered(target: Any = CHANNEL, **arguments: Any) -> Tensor:
    """Call `fv.render` and return its pictures before they are rounded."""
    callback = LastImages()
    defaults = {
        "network": "embedded",
        "preset": "lucid",
        "size": 40,
        "steps": 6,
        "seed": 0,
        "accelerator": "cpu",
        "devices": 1,
    }
    fv.render(target=target, callbacks=[callback], **{**defaults, **arguments})
    return callback.images


def read_png(path: Path) -> Tensor:
    """Read a picture file (C, H, W) in [0, 1]."""
    with Pillow.open(path) as picture:
        levels = torch.from_numpy(np.array(picture))
    return (levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1)).float() / 255


# Rows


def with_prefix(prefix: str, rows: dict[str, Row]) -> dict[str, Row]:
    """Put the name of the family before the names of its rows."""
    return {f"{prefix}: {name}": row for name, row in rows.items()}


def preset_rows() -> dict[str, Row]:
    """Every preset through `render`; recipes of many views with two."""
    rows: dict[str, Row] = {}
    for name in ("featviz", "fast", "lucid", "article", "lucent", "captum"):
        rows[name] = partial(rendered, preset=name)
    for name in ("xplique", "maco", "horama", "vit", "direct_ascent"):
        rows[name] = partial(rendered, preset=name, size=64, views=2)
    rows["plug_in_inversion"] = partial(rendered, preset="plug_in_inversion", size=64, views=2, steps=14)
    rows["accentuation"] = lambda: rendered(preset="accentuation", size=64, views=2, start=photo(64))
    rows["featviz, class"] = partial(rendered, "output:3", preset="featviz")
    rows["vit, tokens"] = lambda: rendered("blocks.1:3", network=token_network(), preset="vit", size=32, views=2)
    return with_prefix("preset", rows)


def render_rows() -> dict[str, Row]:
    """Arguments of `render`, and what it returns."""

    @cache
    def result() -> Any:
        arguments: dict[str, Any] = {"size": 40, "steps": 6, "seed": 0, "accelerator": "cpu", "devices": 1}
        return fv.render(network="embedded", target="output:2,7", preset="featviz", **arguments)

    def long_render(resume: bool) -> Tensor:
        arguments: dict[str, Any] = {"network": conv_network(), "size": 32, "steps": 53}
        if not resume:
            return rendered("features.6:2", **arguments)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder, "render.ckpt")
            rendered("features.6:2", resume=checkpoint, **arguments)  # keeps the checkpoint of step 50
            return rendered("features.6:2", resume=checkpoint, **arguments)

    rows: dict[str, Row] = {
        "result.images": lambda: result().images,
        "result.scores": lambda: torch.tensor(result().scores),
        "several units": partial(rendered, "blocks.1:0-2", size=32),
        "layer": partial(rendered, "blocks.1", size=32),
        "neuron": partial(rendered, "blocks.1:3@2,5", size=32),
        "class by name": partial(rendered, "output:church", size=32),
        "seed 1": partial(rendered, seed=1),
        "size (24, 40), lr": partial(rendered, size=(24, 40), lr=0.1),
        "image by name": partial(rendered, image="pixel", size=32),
        "start": lambda: rendered(start=photo(), size=32),
        "bf16-mixed": partial(rendered, precision="bf16-mixed"),
        "53 steps": partial(long_render, resume=False),
        "53 steps, resumed at 50": partial(long_render, resume=True),
    }
    return with_prefix("render", rows)


def image_rows() -> dict[str, Row]:
    """Every parameterization."""
    several = "blocks.2:5,9,17"
    nadam = partial(torch.optim.NAdam, lr=1.0)

    def subclass() -> Tensor:
        class Doubled(fv.images.LatentImage):
            """Repeat every pixel twice along both axes."""

            def weight_shape(self) -> tuple[int, ...]:
                return (self.channels, self.size[0] // 2, self.size[1] // 2)

            def decode_latent(self, weight: Tensor) -> Tensor:
                return weight.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

            def encode_latent(self, latent: Tensor) -> Tensor:
                return latent[:, :, ::2, ::2]

        return optimized(image=Doubled(size=32))

    def generator() -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 3 * 8 * 8), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)), nn.Upsample(scale_factor=4)
        )

    def masked(start: str) -> Tensor:
        mask = torch.zeros(32, 32)
        mask[6:24, 8:28] = 1
        arguments: dict[str, Any] = {"picture": photo(), "mask": mask, "start": start}
        return optimized(image=fv.images.MaskedImage(image=fv.images.FourierImage(size=32, decay=1.0), **arguments))

    def shared(groups: Any) -> Tensor:
        image = fv.images.FourierImage(size=32, count=3, decay=1.0)
        arguments: dict[str, Any] = {"shared": [(1, 4), (3, 8)], "groups": groups, "own_weight": 0.7}
        return optimized(several, fv.images.SharedImage(image=image, **arguments))

    def stack() -> Tensor:
        images = [
            fv.images.FixedImage(picture=photo()),
            fv.images.FourierImage(size=32, count=1, decay=1.0),
            fv.images.PixelImage(size=32, count=1),
        ]
        objective = fv.objectives.parse_target(several) + fv.objectives.Diversity(layer="blocks.1")
        return optimized(objective, fv.images.StackImage(images=images))

    def basis() -> Tensor:
        image = fv.images.InterpolationBasisImage(objectives=2, steps=3, size=32)
        return optimized(fv.objectives.Channel(layer="blocks.1", units=list(range(12))), image, steps=4)

    images: dict[str, Callable[[], Any]] = {
        "FourierImage": lambda: fv.images.FourierImage(size=32, decay=1.0),
        "FourierImage, size (33, 25)": lambda: fv.images.FourierImage(size=(33, 25), decay=1.0),
        "FourierImage, decay 1.3": lambda: fv.images.FourierImage(size=32, decay=1.3, deviation=0.05),
        "FourierImage, color i1i2i3": lambda: fv.images.FourierImage(size=32, color="i1i2i3", decay=1.0),
        "FourierImage, color none, clip": lambda: fv.images.FourierImage(
            size=32, color="none", squash="clip", decay=1.0
        ),
        "FourierImage, from an image": lambda: fv.images.FourierImage.from_image(photo(), decay=1.0),
        "PixelImage": lambda: fv.images.PixelImage(size=32),
        "LaplacianPyramidImage": lambda: fv.images.LaplacianPyramidImage(size=32, levels=3),
        "MultiResolutionImage": lambda: fv.images.MultiResolutionImage(size=32, deviation=0.1),
        "GeneratorImage": lambda: fv.images.GeneratorImage(generator=seeded(generator), latent_shape=6),
        "BallImage, l2": lambda: fv.images.BallImage(picture=photo(), radius=2.0, norm="l2", deviation=0.5),
        "BallImage, linf": lambda: fv.images.BallImage(picture=photo(), radius=0.05, norm="linf", deviation=0.9),
        "AlphaImage": lambda: fv.images.AlphaImage(image=fv.images.FourierImage(size=32, decay=1.0), opacity=0.4),
        "AlphaImage, of an image": lambda: fv.images.AlphaImage(image=fv.images.PixelImage(size=32)),
        "GrowingImage": lambda: fv.images.GrowingImage(
            size=32, sizes=[12, 32], starts=[0.0, 0.5], zoom=0.5, arguments={"decay": 1.0}
        ),
    }
    rows: dict[str, Row] = {name: partial(optimized_image, make) for name, make in images.items()}
    rows["FourierImage, several pictures"] = partial(optimized_image, images["FourierImage"], objective=several)
    rows["CPPNImage"] = partial(optimized_image, lambda: fv.images.CPPNImage(size=32, width=12, depth=4), lr=0.005)
    rows["CPPNImage, unbiased, tiled"] = partial(
        optimized_image,
        lambda: fv.images.CPPNImage(size=32, width=12, depth=4, activation="unbiased", tile=True),
        lr=0.005,
    )
    rows["MacoImage"] = partial(optimized_image, lambda: fv.images.MacoImage(size=32), optimizer=nadam, lr=1.0)
    rows["MaskedImage, from its picture"] = partial(masked, "picture")
    rows["MaskedImage, from a random start"] = partial(masked, "drawn")
    rows["SharedImage"] = partial(shared, None)
    rows["SharedImage, groups"] = partial(shared, [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    rows["StackImage, FixedImage"] = stack
    rows["InterpolationBasisImage"] = basis
    rows["LatentImage, a subclass"] = subclass
    return with_prefix("image", rows)


def objective_rows() -> dict[str, Row]:
    """Every objective, on pictures of 32 px."""
    encoder = {"W_enc": normal(128, 16), "b_enc": normal(16, seed=1), "b_dec": normal(128, seed=2)}

    def channel(units: Any = 5) -> fv.objectives.Objective:
        return fv.objectives.Channel(layer="blocks.2", units=units)

    def across() -> fv.objectives.Objective:
        return fv.objectives.Across(objectives=["output:3", "features.6:3"], networks=[None, conv_network()])

    def facet() -> fv.objectives.Objective:
        neuron = fv.objectives.Neuron(layer="blocks.3", unit=5)
        return neuron + fv.objectives.Facet(objective=neuron, layers={"blocks.1": normal(64)}, strength=2.0)

    def style(**arguments: Any) -> fv.objectives.Objective:
        return fv.objectives.Style(
            layers=["stem", "blocks.1"], image=photo(40, seed=3), weights=[1.0, 0.5], **arguments
        )

    def near() -> fv.objectives.Objective:
        return channel() + fv.objectives.StayNear(image=photo(), layer="blocks.1", balance=channel())

    def algebra() -> fv.objectives.Objective:
        return 2 * channel(3) ** 2 / (1 + fv.objectives.L2(center=0.5)) - channel(4) * 0.5 + 3.0

    def attributed() -> fv.objectives.Objective:
        arguments: dict[str, Any] = {"power": 1.0, "attribution": channel(), "through_views": False}
        return fv.objectives.Caricature(layer="blocks.1", image=photo(), **arguments)

    def direction(**arguments: Any) -> fv.objectives.Objective:
        return fv.objectives.Direction(layer="blocks.2", **{"vectors": normal(128), **arguments})

    def latent(dictionary: Any, units: Any) -> fv.objectives.Objective:
        return fv.objectives.Latent(layer="blocks.2", dictionary=dictionary, units=units)

    def weighted(weights: Any, patch: Any = None) -> fv.objectives.Objective:
        return fv.objectives.WeightedChannels(layer="blocks.1", weights=weights, patch=patch)

    def inverted(images: Tensor, **arguments: Any) -> fv.objectives.Objective:
        return fv.objectives.Inversion(layer="blocks.2", image=images, **arguments)

    def encoder_module() -> nn.Module:
        return nn.Sequential(nn.Linear(128, 16), nn.Tanh())

    single: dict[str, Callable[[], Any]] = {
        "Channel": channel,
        "Channel, several": lambda: channel([1, 5, 9]),
        "Neuron, center": lambda: fv.objectives.Neuron(layer="blocks.1", unit=5),
        "Neuron, position": lambda: fv.objectives.Neuron(layer="blocks.1", unit=[5, 6], position=(2, 6)),
        "Layer": lambda: fv.objectives.Layer(layer="blocks.1"),
        "DeepDream": lambda: fv.objectives.DeepDream(layer="blocks.1"),
        "ClassLogit": lambda: fv.objectives.ClassLogit(classes=["church", 7]),
        "ClassProbability": lambda: fv.objectives.ClassProbability(classes=3),
        "WeightedChannels, by unit": lambda: weighted({1: 1.0, 7: -0.5}),
        "WeightedChannels, patch": lambda: weighted(normal(64), patch=(1, 1, 4, 4)),
        "Direction": direction,
        "Direction, cosine": lambda: direction(vectors=normal(2, 128), compare="cosine"),
        "Direction, power, whitening": lambda: direction(power=2.0, whitening=normal(128, 128, seed=1)),
        "NeuronDirection": lambda: fv.objectives.NeuronDirection(
            layer="blocks.2", vectors=normal(128), position=(1, 2), power=1.0
        ),
        "TensorDirection": lambda: fv.objectives.TensorDirection(layer="blocks.2", tensor=normal(128, 2, 3), power=1.0),
        "Similarity": lambda: fv.objectives.Similarity(layer="blocks.4", vectors=normal(192)),
        "Latent, dictionary": lambda: latent(encoder, [3, 9]),
        "Latent, module": lambda: latent(seeded(encoder_module), 3),
        "Facet": facet,
        "Interpolation": lambda: fv.objectives.Interpolation(first="blocks.2:3", second="output:4", count=3),
        "Caricature": lambda: fv.objectives.Caricature(layer="blocks.1", image=photo()),
        "Caricature, attribution": attributed,
        "Inversion": lambda: inverted(photo()),
        "Inversion, norm 1": lambda: inverted(photo(count=2), norm=1, through_views=False),
        "Content": lambda: fv.objectives.Content(layer="blocks.2", image=photo()),
        "Style": style,
        "Style, running average": lambda: style(average=0.9) + fv.objectives.Content(layer="blocks.2", image=photo()),
        "SortMatching": lambda: fv.objectives.SortMatching(layers=["stem", "blocks.2"], images=photo(count=3)),
        "StayNear, pixels": lambda: channel() + 10 * fv.objectives.StayNear(image=photo(), norm=1),
        "StayNear, balanced": near,
        "Across": across,
        "Logged": lambda: channel() + fv.objectives.Logged(objective="output:3"),
        "algebra": algebra,
        "parse_target": lambda: fv.objectives.parse_target("blocks.2:0-2"),
        "TotalVariation": lambda: channel() - 1e-3 * fv.objectives.TotalVariation(),
        "TotalVariation, power 2": lambda: channel() - 1e-2 * fv.objectives.TotalVariation(power=2.0),
        "L1": lambda: channel() - 1e-3 * fv.objectives.L1(center=0.5),
        "L2": lambda: channel() - 1e-2 * fv.objectives.L2(),
        "LInfinity": lambda: channel() - fv.objectives.LInfinity(center=0.5),
        "Blur": lambda: channel() - 1e-1 * fv.objectives.BlurDistance(),
        "BoundaryComplexity": lambda: channel() - 1e-2 * fv.objectives.BoundaryComplexity(width=4),
        "HighFrequency": lambda: channel() - 10 * fv.objectives.HighFrequency(),
    }
    several: dict[str, Callable[[], Any]] = {
        "Diversity": lambda: channel() + 10 * fv.objectives.Diversity(layer="blocks.1"),
        "Alignment": lambda: (
            channel([1, 5, 9]) + 0.1 * fv.objectives.Alignment(layers=["stem", "blocks.1"], distance=2)
        ),
        "Interpolation, any number": lambda: fv.objectives.Interpolation(first="blocks.2:3", second="blocks.2:8"),
    }
    transparent: dict[str, Callable[[], Any]] = {
        "AlphaMean": lambda: channel() * (1 - fv.objectives.AlphaMean()),
        "AlphaBlur": lambda: (
            channel() - 0.1 * fv.objectives.AlphaBlurDistance() - fv.objectives.AlphaMean(of_views=False)
        ),
    }

    def three() -> Any:
        return fv.images.FourierImage(size=32, count=3, decay=1.0)

    def alpha() -> Any:
        return fv.images.AlphaImage(size=32)

    rows: dict[str, Row] = {name: partial(optimized_objective, make) for name, make in single.items()}
    rows |= {name: partial(optimized_objective, make, three) for name, make in several.items()}
    rows |= {name: partial(optimized_objective, make, alpha) for name, make in transparent.items()}
    return with_prefix("objective", rows)


def view_rows() -> dict[str, Row]:
    """Every preset of views, transforms whose arguments keep their meaning, and schedules of their strength."""
    names = (
        "featviz", "whole_objects", "lucid", "article", "lucent", "captum", "robustness", "xplique", "maco", "horama",
        "accentuation", "plug_in_inversion", "vit", "direct_ascent", "atlas", "tutorial",
    )  # fmt: skip
    transforms: dict[str, Callable[[], Any]] = {
        "Jitter": lambda: fv.transforms.Jitter(pixels=3),
        "Jitter, distribution": lambda: fv.transforms.Jitter(pixels=Normal(0.0, 2.0)),
        "Rotate, distribution": lambda: fv.transforms.Rotate(degrees=Uniform(-15.0, 15.0)),
        "Scale, distribution": lambda: fv.transforms.Scale(factors=Uniform(0.7, 1.2)),
        "Flip": lambda: fv.transforms.Flip(probability=0.5),
        "Pad, reflect": lambda: [fv.transforms.Pad(pixels=4, mode="reflect"), fv.transforms.Jitter(pixels=6)],
        "Pad, constant": lambda: [
            fv.transforms.Pad(pixels=4, mode="constant", value=0.2),
            fv.transforms.Jitter(pixels=6),
        ],
        "Pad, grey": lambda: [fv.transforms.Pad(pixels=4, mode="grey"), fv.transforms.Jitter(pixels=6)],
        "Crop": lambda: fv.transforms.Crop(),
        "Crop, distributions": lambda: fv.transforms.Crop(
            center=Normal(0.5, 0.1), side=Uniform(0.4, 0.6), end=Uniform(0.2, 0.3)
        ),
        "Crop, anywhere": lambda: fv.transforms.Crop(center="anywhere", side=Uniform(0.4, 0.6)),
        "CropOrPad": lambda: fv.transforms.CropOrPad(size=(24, 40), value=0.3),
        "Roll": lambda: fv.transforms.Roll(pixels=8),
        "Blur, distribution": lambda: fv.transforms.Blur(sigma=Uniform(0.5, 1.5)),
        "Noise": lambda: fv.transforms.Noise(deviation=0.1, uniform=0.05, end=0.02, decay="logarithmic"),
        "Noise, channelwise": lambda: fv.transforms.Noise(deviation=0.1, channelwise=True),
        "ColorShift": lambda: fv.transforms.ColorShift(mean=0.5, scale=0.5, end=0.1),
        "NormalizeGradient": lambda: [fv.transforms.Jitter(pixels=3), fv.transforms.NormalizeGradient()],
        "MeshView, sphere": lambda: fv.transforms.MeshView(mesh="sphere", size=32),
        "MeshView, cube": lambda: fv.transforms.MeshView(mesh="cube", size=32, distance=Uniform(11.0, 13.0)),
        "Compose": lambda: fv.transforms.Compose(
            transforms=[fv.transforms.Jitter(pixels=3), fv.transforms.Noise(deviation=0.1), fv.transforms.Flip()],
            size=24,
        ),
    }
    schedules: dict[str, Callable[[], Any]] = {
        "linear": lambda: "linear",
        "cosine": lambda: "cosine",
        "warmup": lambda: "warmup",
        "Linear": lambda: fv.transforms.Linear(start=1.0, end=0.2),
        "Cosine": lambda: fv.transforms.Cosine(start=1.0, end=0.2),
        "WarmUp": lambda: fv.transforms.WarmUp(share=0.5),
    }

    def torchvision() -> Tensor:
        from torchvision.transforms import v2

        perspective = v2.RandomPerspective(distortion_scale=0.3, p=1.0, fill=None)
        return optimized(transforms=fv.transforms.Torchvision(transform=perspective))

    def background(kind: Any) -> Tensor:
        transforms = [fv.transforms.Jitter(pixels=2), fv.transforms.Background(kind=kind, color=0.3)]
        return optimized(image=fv.images.AlphaImage(size=32), transforms=transforms)

    def scheduled(make_schedule: Callable[[], Any]) -> Tensor:
        return optimized(transforms="article", schedule=make_schedule())

    views: dict[str, Row] = {name: partial(optimized, transforms=name) for name in names}
    views["none"] = partial(optimized, transforms=None)
    views["lucid, size 48"] = partial(optimized, transforms="lucid", size=48)
    views["article, 5 views"] = partial(optimized, transforms="article", views=5)
    rows: dict[str, Row] = {name: partial(optimized_views, make) for name, make in transforms.items()}
    rows["Torchvision"] = torchvision
    rows |= {f"Background, {kind}": partial(background, kind) for kind in ("noise", "random", "constant")}
    return {
        **with_prefix("views", views),
        **with_prefix("transform", rows),
        **with_prefix("schedule", {name: partial(scheduled, make) for name, make in schedules.items()}),
    }


def changed_rows() -> dict[str, Row]:
    """Choices of listed numbers, under the names of what meant the same until 0.1.0."""
    choice = fv.transforms.Choice
    transforms: dict[str, Callable[[], Any]] = {
        "Rotate(10.0)": lambda: fv.transforms.Rotate(choice([10.0])),
        "Rotate([-10.0, 10.0])": lambda: fv.transforms.Rotate(choice([-10.0, 10.0])),
        "Rotate([-10.0, 0.0, 10.0])": lambda: fv.transforms.Rotate(choice([-10.0, 0.0, 10.0])),
        "Scale(1.1)": lambda: fv.transforms.Scale(choice([1.1])),
        "Scale([0.9, 1.0, 1.1])": lambda: fv.transforms.Scale(choice([0.9, 1.0, 1.1])),
        "Blur(1.0)": lambda: fv.transforms.Blur(1.0),
        "Blur([0.5, 1.5])": lambda: fv.transforms.Blur(choice([0.5, 1.5])),
        "Crop(center=0.5, side=0.5)": lambda: fv.transforms.Crop(center=0.5, side=0.5),
        "Crop(side=[0.3, 0.6])": lambda: fv.transforms.Crop(side=choice([0.3, 0.6])),
        "MeshView(distance=12.0)": lambda: fv.transforms.MeshView(mesh="sphere", size=32, distance=12.0),
    }
    return with_prefix("changes", {name: partial(optimized_views, make) for name, make in transforms.items()})


def network_rows() -> dict[str, Row]:
    """Networks of all kinds, gradient rules and activations."""

    def dead_relu(preset: str) -> Tensor:
        return rendered("relu:0", network=seeded(DeadNetwork), size=32, steps=20, preset=preset)

    def squeezenet() -> Tensor:
        import torchvision

        module = seeded(partial(torchvision.models.squeezenet1_0, weights=None))
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        network = fv.FrozenNetwork(module=module, mean=mean, std=std, name="squeezenet")
        return optimized("features.9:33", fv.images.FourierImage(size=64, decay=1.0), network=network, steps=4)

    def convolutional(channels: int) -> Tensor:
        image = fv.images.FourierImage(size=32, channels=channels, decay=1.0)
        return optimized("features.6:3", image, network=conv_network(channels))

    def convolutional_render(channels: int) -> Tensor:
        return rendered("features.6:3", network=conv_network(channels), size=32)

    def tokens(make_objective: Callable[[], Any], size: int = 32) -> Tensor:
        return optimized(make_objective(), fv.images.FourierImage(size=size, decay=1.0), network=token_network())

    def patches() -> Any:
        return fv.objectives.Channel(layer="blocks.1", units=3, tokens="patches")

    def channels_last(target: str) -> Tensor:
        return optimized(target, network=seeded(ChannelsLastNetwork))

    def gradient(rule: Callable[[], Any]) -> Tensor:
        picture = photo(count=1).requires_grad_()
        network = seeded(ConvNetwork).eval()
        with rule():
            (result,) = torch.autograd.grad(network.features(picture)[:, 2].mean(), picture)
        return torch.as_tensor(result)

    def dead_gradient() -> Tensor:
        picture = photo(count=1).requires_grad_()
        network = seeded(DeadNetwork)
        with fv.networks.redirected_relu():
            (result,) = torch.autograd.grad(-network(picture).mean(), picture)
        return torch.as_tensor(result)

    def within_rule() -> Tensor:
        with fv.networks.relaxed_max_pool():
            return optimized("features.6:3", network=conv_network())

    def activations() -> Tensor:
        network = fv.networks.load_network("embedded")
        layers = network.activations(photo(count=2), ["stem", "blocks.2", "output"])
        return torch.cat([activation.flatten() for activation in layers.values()])

    token_objectives: dict[str, Callable[[], Any]] = {
        "all": lambda: fv.objectives.Channel(layer="blocks.1", units=[3, 4]),
        "patches": patches,
        "class token": lambda: fv.objectives.Channel(layer="blocks.0", units=3, tokens="class"),
        "position": lambda: fv.objectives.Neuron(layer="blocks.0.mlp.1", unit=7, position=(1, 2), tokens="patches"),
        "direction": lambda: fv.objectives.Direction(layer="blocks.1", vectors=normal(24), tokens=1),
    }
    rows: dict[str, Row] = {f"tokens, {name}": partial(tokens, make) for name, make in token_objectives.items()}
    rows |= {
        "tokens, size 48": partial(tokens, patches, 48),
        "embedded, activations": activations,
        "squeezenet1_0, random weights": squeezenet,
        "channels last": partial(channels_last, "mlp.1:3"),
        "channels last, output in a dictionary": partial(channels_last, "output:3"),
        "dead ReLU, lucid": partial(dead_relu, "lucid"),
        "dead ReLU, featviz": partial(dead_relu, "featviz"),
        "gradient, redirected_relu": dead_gradient,
        "gradient, relaxed_max_pool": lambda: gradient(fv.networks.relaxed_max_pool),
        "relaxed_max_pool": within_rule,
    }
    for channels in (1, 3, 7):
        rows[f"convolutional, {channels} channels"] = partial(convolutional, channels)
        rows[f"convolutional, {channels} channels, render"] = partial(convolutional_render, channels)
    return with_prefix("network", rows)


def trainer_rows() -> dict[str, Row]:
    """Precisions, accumulation, clipping and another optimizer."""
    rows: dict[str, Row] = {
        "bf16-mixed": partial(optimized, precision="bf16-mixed"),
        "bf16-mixed, tokens": lambda: optimized("blocks.1:3", network=token_network(), precision="bf16-mixed"),
        "bf16-true": partial(optimized, precision="bf16-true"),
        "64-true": partial(optimized, precision="64-true"),
        "accumulate_grad_batches, gradient_clip_val": partial(
            optimized, accumulate_grad_batches=2, gradient_clip_val=0.01
        ),
        "SGD": partial(optimized, optimizer=partial(torch.optim.SGD, lr=2.0, momentum=0.9), lr=2.0),
    }
    return with_prefix("trainer", rows)


def resume_rows() -> dict[str, Row]:
    """Runs that stop at a step and resume from its checkpoint: their hashes equal those of runs that do not stop."""

    def arguments(image: Any) -> dict[str, Any]:
        scheduler = partial(CosineAnnealingLR, T_max=12)
        views = {"transforms": "article", "schedule": "warmup"}
        return {"image": image, "steps": 12, "scheduler": scheduler, **views}

    def run(make_image: Callable[[], Any], stop: int | None = None) -> Tensor:
        if stop is None:
            return optimized(**arguments(make_image()))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "stopped.ckpt")
            optimized(**arguments(make_image()), callbacks=[StopAt(stop, path)])
            return optimized(**arguments(make_image()), ckpt_path=path)

    def growing() -> Any:
        return fv.images.GrowingImage(size=32, sizes=[12, 32], starts=[0.0, 0.5], arguments={"decay": 1.0})

    def fourier() -> Any:
        return fv.images.FourierImage(size=32, decay=1.0)

    rows: dict[str, Row] = {
        "FourierImage, 12 steps": partial(run, fourier),
        "FourierImage, stopped at 5": partial(run, fourier, 5),
        "GrowingImage, 12 steps": partial(run, growing),
        "GrowingImage, stopped at 8": partial(run, growing, 8),
    }
    return with_prefix("resume", rows)


def sweep_rows() -> dict[str, Row]:
    """Sweeps: pixels of the files, returned pictures and scores, and contact sheets."""

    @cache
    def sweep(preset: str, precision: str = "32-true", batch_size: int = 2) -> dict[str, Tensor]:
        targets = ["stem:0-2", "blocks.2:5,9", "output:1"]
        module = fv.FeatureSweep(network="embedded", preset=preset, size=32, views=2, seed=0, steps=6)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            trainer = Trainer(
                callbacks=[fv.callbacks.FeatureWriter(folder=folder)], **{**QUIET, "precision": precision}
            )
            batches: Any = trainer.predict(module, fv.FeatureTargets(targets=targets, batch_size=batch_size))
            return {
                "files": torch.stack([read_png(path) for path in sorted(folder.glob("*/*.png"))]),
                "sheets": torch.cat([read_png(path).flatten() for path in sorted(folder.glob("*.png"))]),
                "images": torch.cat([batch.images for batch in batches]),
                "scores": torch.tensor([score for batch in batches for score in batch.scores]),
            }

    def row(result: str, preset: str, **arguments: Any) -> Tensor:
        return sweep(preset, **arguments)[result]

    rows: dict[str, Row] = {
        "featviz, files": partial(row, "files", "featviz"),
        "featviz, sheets": partial(row, "sheets", "featviz"),
        "featviz, images": partial(row, "images", "featviz"),
        "featviz, scores": partial(row, "scores", "featviz"),
        "featviz, batch_size 4, files": partial(row, "files", "featviz", batch_size=4),
        "lucid, files": partial(row, "files", "lucid"),
        "fast, files": partial(row, "files", "fast"),
        "lucid, bf16-mixed, files": partial(row, "files", "lucid", precision="bf16-mixed"),
    }
    return with_prefix("sweep", rows)


def callback_rows() -> dict[str, Row]:
    """Pictures that callbacks make: of a network during its training, and snapshots of a run."""

    @cache
    def training(preset: str, warm_start: bool = True, precision: str = "32-true") -> dict[str, Tensor]:
        module = seeded(Classifier)
        data = TensorDataset(photo(24, count=16), torch.arange(16) % 4)
        targets = ["net.features.6:0-1", "net.features.4", "output:2", "net.features.2:3@4,5"]
        settings: dict[str, Any] = {"preset": preset, "steps": 8, "size": 24, "views": 2, "seed": 0}
        with tempfile.TemporaryDirectory() as folder:
            monitor = fv.callbacks.FeatureMonitor(
                targets=targets, folder=folder, on_error="raise", mean=0.5, std=0.25, warm_start=warm_start, **settings
            )
            arguments = {**QUIET, "max_epochs": 2, "default_root_dir": folder, "precision": precision}
            Trainer(callbacks=[monitor], **arguments).fit(module, DataLoader(data, batch_size=8))
        return {
            "images": torch.stack(list(monitor.images.values())),
            "scores": torch.tensor(list(monitor.scores.values())),
            "weights": torch.cat([parameter.detach().flatten() for parameter in module.parameters()]),
        }

    def row(result: str, preset: str, **arguments: Any) -> Tensor:
        return training(preset, **arguments)[result]

    def snapshots() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            snapshot = fv.callbacks.ImageSnapshot(folder=folder, every=3, animate=False)
            optimized("blocks.2:3,4", callbacks=[snapshot])
            return torch.cat([read_png(path).flatten() for path in sorted(Path(folder).glob("*.png"))])

    rows: dict[str, Row] = {
        "FeatureMonitor, featviz": partial(row, "images", "featviz"),
        "FeatureMonitor, featviz, scores": partial(row, "scores", "featviz"),
        "FeatureMonitor, featviz, weights of the training": partial(row, "weights", "featviz"),
        "FeatureMonitor, lucid, cold start": partial(row, "images", "lucid", warm_start=False),
        "FeatureMonitor, lucid, bf16-mixed": partial(row, "images", "lucid", precision="bf16-mixed"),
        "ImageSnapshot": snapshots,
    }
    return with_prefix("callback", rows)


def all_rows() -> dict[str, Row]:
    """Return every row by its name."""
    families = (
        preset_rows,
        render_rows,
        image_rows,
        objective_rows,
        view_rows,
        changed_rows,
        network_rows,
        trainer_rows,
        resume_rows,
        sweep_rows,
        callback_rows,
    )
    return {name: row for family in families for name, row in family().items()}


# The table


def digest(values: Tensor) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a tensor's values in float32."""
    return hashlib.sha256(values.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()[:16]


def make_entry(row: Row) -> Entry:
    """Run a row: its hash and shape and, of pictures, the hash in 256 levels; or its error."""
    torch.manual_seed(0)  # a row that begins to use the global generator still does not depend on the rows before it
    try:
        values = row()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    entry: Entry = {"sha256": digest(values), "shape": list(values.shape)}
    if values.ndim == 4:  # pictures
        entry["levels"] = digest((values.detach().float() * 255).round())
    return entry


def format_entry(entry: Entry | None) -> str:
    """Return a row as text."""
    if entry is None:
        return "absent"
    return f"ERROR {entry['error']}" if "error" in entry else f"{entry['sha256']} {'x'.join(map(str, entry['shape']))}"


def environment() -> dict[str, str]:
    """Return what hashes depend on besides the code."""
    return {
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }


def same(old: Entry | None, new: Entry | None, key: str) -> bool:
    """Say whether two rows have equal hashes; errors equal nothing."""
    return old is not None and new is not None and key in old and key in new and old[key] == new[key]


def differences(old: dict[str, Entry], new: dict[str, Entry]) -> dict[str, str]:
    """Return how rows differ, by name."""
    result = {}
    for name in dict.fromkeys([*new, *old]):
        before, after = old.get(name), new.get(name)
        if same(before, after, "sha256") and same(before, after, "shape"):
            continue
        rounded = " (equal in 256 levels)" if same(before, after, "levels") else ""
        result[name] = f"{format_entry(before)} -> {format_entry(after)}{rounded}"
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Make the table; return 1 where it differs from another one or, without a comparison, where a row failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table to this JSON file")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="print rows that differ from this table; exit with 1"
    )
    parser.add_argument("--ignore", action="append", default=[], metavar="PREFIX", help="rows that may differ")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows with this in their name")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "lightning.fabric", "featviz_pl"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    reference = None if options.compare is None else json.loads(options.compare.read_text())

    def selected(name: str) -> bool:
        return not options.only or any(text in name for text in options.only)

    start = time.perf_counter()
    rows = {name: row for name, row in all_rows().items() if selected(name)}
    table: dict[str, Entry] = {}
    width = max(map(len, rows), default=0)
    for name, row in rows.items():
        table[name] = make_entry(row)
        print(f"{name:{width}}  {format_entry(table[name])}", flush=True)
    errors = sum("error" in entry for entry in table.values())
    print(f"{len(table)} rows, {errors} errors, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if options.out is not None:
        options.out.write_text(json.dumps({"environment": environment(), "rows": table}, indent=1) + "\n")
    if reference is None:
        return int(errors > 0)
    if reference["environment"] != environment():
        print(f"environments differ: {reference['environment']} -> {environment()}", file=sys.stderr)
    result = differences({name: entry for name, entry in reference["rows"].items() if selected(name)}, table)
    counted = [name for name in result if not name.startswith(tuple(options.ignore))]
    print(f"\n{len(result)} rows differ, {len(result) - len(counted)} of them ignored")
    for name, change in result.items():
        print(f"{'differs' if name in counted else 'ignored'}: {name}: {change}")
    return int(bool(counted))


if __name__ == "__main__":
    sys.exit(main())
