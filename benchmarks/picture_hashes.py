"""Print a table of hashes of small pictures, to check that a change of the code changes no picture.

    python benchmarks/picture_hashes.py --out table.json                          # before the change
    python benchmarks/picture_hashes.py --compare table.json                      # after it; exits with 1 on differences
    python benchmarks/picture_hashes.py --compare table.json --ignore schedule:   # rows whose names start so may differ
    python benchmarks/picture_hashes.py --only preset: --only resume:             # some of the rows

A row is a name, the first 16 hexadecimal digits of the SHA-256 of a tensor's float32 values, and its shape. Nearly all
tensors are pictures (N, C, H, W) after a few optimization steps, before they are rounded to 256 levels; for these, the
file also has the hash after rounding ("levels"). Everything runs on the CPU, in one thread, from seed 0. Hashes can be
compared on one machine with one version of PyTorch: the file records both, and a comparison across different ones
prints a note.

Rows call public names of the library only: a row that fails prints its error, and the others go on. They set optimizer,
learning rate, scheduler, views and steps, so they do not depend on the defaults of constructors.
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
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image as Pillow
from torch import Tensor, nn
from torch.distributions import Uniform
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import featviz_pl as fv
from featviz_pl import callbacks, images, objectives, transforms

Row = Callable[[], Tensor]
Entry = dict[str, Any]

UNIT = "blocks.2:5"  # of the embedded network
THREE = "blocks.2:5,9,17"
QUIET: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
QUIET |= {"enable_progress_bar": False, "enable_model_summary": False}


# Networks and tensors


def conv_module(channels: int = 3, classes: int = 10) -> nn.Module:
    """Return convolutions with ReLU, batch norm and max pooling, and a linear classifier."""
    first = [nn.Conv2d(channels, 8, 5, stride=2, padding=2), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3, padding=1)]
    second = [nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3, padding=1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)]
    return nn.Sequential(OrderedDict(features=nn.Sequential(*first, *second), head=nn.Sequential(*head)))


class TokenModule(nn.Module):
    """A small vision transformer: patches of 8 px, a class token, two blocks; takes pictures of 32 px only."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 24, 8, stride=8), nn.Linear(24, 10)
        self.class_token, self.positions = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
        block = partial(nn.TransformerEncoderLayer, 24, 2, 48, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.Sequential(block(), block())

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1) + self.positions
        y: Tensor = self.head(self.blocks(tokens)[:, 0])
        return y


class Classifier(LightningModule):
    """A small classifier, for callbacks that work during its training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_module(classes=4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def seeded(make: Callable[[], Any]) -> Any:
    """Build a module with random weights that are equal in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def dead_module() -> nn.Module:
    """Return a ReLU that is 0 near grey: without redirected gradients, no step changes the picture."""
    conv = nn.Conv2d(3, 4, 5)
    nn.init.constant_(conv.bias, -2.0)  # type: ignore[arg-type]
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))


def conv_network(channels: int = 3) -> fv.FrozenNetwork:
    return fv.FrozenNetwork(module=seeded(partial(conv_module, channels)), mean=0.5, std=0.25, name="conv")


def token_network() -> fv.FrozenNetwork:
    return fv.FrozenNetwork(module=seeded(TokenModule), mean=0.5, std=0.25, size=32, name="tokens")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photo(size: int = 32, seed: int = 0, count: int | None = None) -> Tensor:
    """Return a smooth random picture (3, H, W) in [0.05, 0.95], or a batch of `count`."""
    coarse = torch.rand(count or 1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False).mul(0.9).add(0.05)
    return smooth if count else smooth[0]


# Runs


class LastImages(Callback):
    """Copy the pictures at the end of a run, before they are rounded to the levels of a file."""

    images: Tensor

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.images = pl_module.images.detach().cpu().clone()  # type: ignore[operator]


class StopAt(Callback):
    """Save a checkpoint after a step, and end the run there."""

    def __init__(self, step: int, path: Path) -> None:
        super().__init__()
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def constant_rate(optimizer: torch.optim.Optimizer) -> LambdaLR:
    return LambdaLR(optimizer, lambda _: 1.0)


def fourier(size: Any = 32, **arguments: Any) -> images.FourierImage:
    return images.FourierImage(size=size, **{"decay": 1.0, **arguments})


def fit(
    objective: Any = UNIT,
    image: Any = None,
    *,
    network: Any = "embedded",
    steps: int = 6,
    optimizer: Any = None,
    lr: float = 0.05,
    scheduler: Any = constant_rate,
    views: Any = "lucid",
    count: int = 2,
    schedule: Any = None,
    size: int | None = None,
    extra: Sequence[Callback] = (),
    ckpt_path: Path | None = None,
    **trainer: Any,
) -> Tensor:
    """Fit a `FeatureVisualization` through `count` views and return its pictures; ``views=None`` uses none."""
    model = fv.FeatureVisualization(
        network=network,
        objective=objective,
        image=fourier() if image is None else image,
        steps=steps,
        seed=0,
        optimizer=optimizer or partial(torch.optim.Adam, lr=lr),
        lr=lr,
        scheduler=scheduler,
    )
    augmentation = (
        [callbacks.Augmentation(transforms=views, views=count, schedule=schedule, size=size)] if views else []
    )
    arguments = {**QUIET, "precision": "32-true", "max_steps": steps, **trainer}
    Trainer(callbacks=[*augmentation, *extra], **arguments).fit(model, ckpt_path=ckpt_path, weights_only=True)
    return model.images


def render(target: Any = UNIT, **arguments: Any) -> Tensor:
    """Call `fv.render` and return its pictures before they are rounded."""
    last = LastImages()
    defaults = {"network": "embedded", "preset": "lucid", "size": 40, "steps": 6, "seed": 0}
    fv.render(target=target, callbacks=[last], **{**defaults, "accelerator": "cpu", "devices": 1, **arguments})
    return last.images


def read_png(path: Path) -> Tensor:
    with Pillow.open(path) as picture:
        levels = torch.from_numpy(np.array(picture))
    return (levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1)).float() / 255


def resumed(make_image: Callable[[], Any], stop: int | None = None) -> Tensor:
    """Fit for 12 steps; with `stop` in two runs, the second from the checkpoint of the first."""

    def run(**arguments: Any) -> Tensor:
        scheduler = partial(CosineAnnealingLR, T_max=12)
        return fit(image=make_image(), steps=12, scheduler=scheduler, views="article", schedule="warmup", **arguments)

    if stop is None:
        return run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stopped.ckpt")
        run(extra=[StopAt(stop, path)])
        return run(ckpt_path=path)


@cache
def sweep(preset: str, precision: str = "32-true", batch_size: int = 2) -> dict[str, Tensor]:
    """Return pixels of the files of a sweep, of its contact sheets, its pictures and their scores."""
    module = fv.FeatureSweep(network="embedded", preset=preset, size=32, views=2, seed=0, steps=6)
    targets = fv.FeatureTargets(targets=["stem:0-2", "blocks.2:5,9", "output:1"], batch_size=batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer = Trainer(callbacks=[callbacks.FeatureWriter(folder=folder)], **{**QUIET, "precision": precision})
        batches: Any = trainer.predict(module, targets)
        return {
            "files": torch.stack([read_png(path) for path in sorted(folder.glob("*/*.png"))]),
            "sheets": torch.cat([read_png(path).flatten() for path in sorted(folder.glob("*.png"))]),
            "images": torch.cat([batch.images for batch in batches]),
            "scores": torch.tensor([score for batch in batches for score in batch.scores]),
        }


@cache
def monitored(preset: str, warm_start: bool = True, precision: str = "32-true") -> dict[str, Tensor]:
    """Return pictures and scores of a `FeatureMonitor`, and the weights after the training."""
    module = seeded(Classifier)
    data = TensorDataset(photo(24, count=16), torch.arange(16) % 4)
    targets = ["net.features.6:0-1", "net.features.4", "output:2", "net.features.2:3@4,5"]
    settings: dict[str, Any] = {
        "preset": preset,
        "steps": 8,
        "size": 24,
        "views": 2,
        "seed": 0,
        "warm_start": warm_start,
    }
    with tempfile.TemporaryDirectory() as folder:
        settings |= {"folder": folder, "on_error": "raise", "mean": 0.5, "std": 0.25}
        monitor = callbacks.FeatureMonitor(targets=targets, **settings)
        arguments = {**QUIET, "max_epochs": 2, "default_root_dir": folder, "precision": precision}
        Trainer(callbacks=[monitor], **arguments).fit(module, DataLoader(data, batch_size=8))
    return {
        "images": torch.stack(list(monitor.images.values())),
        "scores": torch.tensor(list(monitor.scores.values())),
        "weights": torch.cat([parameter.detach().flatten() for parameter in module.parameters()]),
    }


# Rows, by families


def masked(start: Any) -> Any:
    mask = torch.zeros(32, 32)
    mask[6:24, 8:28] = 1
    return images.MaskedImage(image=fourier(), picture=photo(), mask=mask, start=start)


def growing(**arguments: Any) -> Any:
    return images.GrowingImage(size=32, sizes=[12, 32], starts=[0.0, 0.5], arguments={"decay": 1.0}, **arguments)


def channel(units: Any = 5) -> objectives.Objective:
    return objectives.Channel(layer="blocks.2", units=units)


VIEWS_2 = {"size": 64, "views": 2}
Make = dict[str, Callable[[], Any]]
RENDERS: dict[str, dict[str, Any]] = {
    **{f"preset: {name}": {"preset": name} for name in ("featviz", "fast", "lucid", "article", "lucent", "captum")},
    **{f"preset: {name}": {"preset": name, **VIEWS_2} for name in ("xplique", "maco", "horama", "vit")},
    "preset: direct_ascent": {"preset": "direct_ascent", **VIEWS_2},
    "preset: plug_in_inversion": {"preset": "plug_in_inversion", **VIEWS_2, "steps": 14},
    "preset: accentuation": {"preset": "accentuation", **VIEWS_2, "start": photo(64)},
    "preset: featviz, class": {"target": "output:3", "preset": "featviz"},
    "render: several units": {"target": "blocks.1:0-2", "size": 32},
    "render: class by name": {"target": "output:church", "size": 32},
    "render: seed 1": {"seed": 1},
    "render: size (24, 40), lr": {"size": (24, 40), "lr": 0.1},
    "render: image by name": {"image": "pixel", "size": 32},
    "render: start": {"start": photo(), "size": 32},
    "render: bf16-mixed": {"precision": "bf16-mixed"},
}
IMAGES: Make = {
    "FourierImage": fourier,
    "FourierImage, size (33, 25)": lambda: fourier((33, 25)),
    "FourierImage, color none, clip": lambda: fourier(color="none", squash="clip"),
    "FourierImage, from an image": lambda: images.FourierImage.from_image(photo(), decay=1.0),
    "PixelImage": lambda: images.PixelImage(size=32),
    "LaplacianPyramidImage": lambda: images.LaplacianPyramidImage(size=32, levels=3),
    "MultiResolutionImage": lambda: images.MultiResolutionImage(size=32, deviation=0.1),
    "BallImage, l2": lambda: images.BallImage(picture=photo(), radius=2.0, norm="l2", deviation=0.5),
    "BallImage, linf": lambda: images.BallImage(picture=photo(), radius=0.05, norm="linf", deviation=0.9),
    "AlphaImage": lambda: images.AlphaImage(image=fourier(), opacity=0.4),
    "GrowingImage": lambda: growing(zoom=0.5),
    "MaskedImage, from its picture": lambda: masked("picture"),
    "MaskedImage, from a random start": lambda: masked("drawn"),
}
OBJECTIVES: Make = {
    "Channel": channel,
    "Neuron, position": lambda: objectives.Neuron(layer="blocks.1", unit=[5, 6], position=(2, 6)),
    "DeepDream": lambda: objectives.DeepDream(layer="blocks.1"),
    "ClassLogit": lambda: objectives.ClassLogit(classes=["church", 7]),
    "ClassProbability": lambda: objectives.ClassProbability(classes=3),
    "WeightedChannels, by unit": lambda: objectives.WeightedChannels(layer="blocks.1", weights={1: 1.0, 7: -0.5}),
    "Direction, cosine": lambda: objectives.Direction(layer="blocks.2", vectors=normal(2, 128), compare="cosine"),
    "NeuronDirection": lambda: objectives.NeuronDirection("blocks.2", normal(128), position=(1, 2), power=1.0),
    "TensorDirection": lambda: objectives.TensorDirection("blocks.2", tensor=normal(128, 2, 3), power=1.0),
    "Similarity": lambda: objectives.Similarity(layer="blocks.4", vectors=normal(192)),
    "Interpolation": lambda: objectives.Interpolation(first="blocks.2:3", second="output:4", count=3),
    "Caricature": lambda: objectives.Caricature(layer="blocks.1", image=photo()),
    "Inversion": lambda: objectives.Inversion(layer="blocks.2", image=photo()),
    "Content": lambda: objectives.Content(layer="blocks.2", image=photo()),
    "Style, running average": lambda: objectives.Style(layers=["stem", "blocks.1"], image=photo(40), average=0.9),
    "SortMatching": lambda: objectives.SortMatching(layers=["stem", "blocks.2"], images=photo(count=3)),
    "StayNear, pixels": lambda: channel() + 10 * objectives.StayNear(image=photo(), norm=1),
    "Across": lambda: objectives.Across(objectives=["output:3", "features.6:3"], networks=[None, conv_network()]),
    "Logged": lambda: channel() + objectives.Logged(objective="output:3"),
    "algebra": lambda: 2 * channel(3) ** 2 / (1 + objectives.L2(center=0.5)) - channel(4) * 0.5 + 3.0,
    "TotalVariation": lambda: channel() - 1e-3 * objectives.TotalVariation(),
    "L2": lambda: channel() - 1e-2 * objectives.L2(),
    "Blur": lambda: channel() - 1e-1 * objectives.BlurDistance(),
    "BoundaryComplexity": lambda: channel() - 1e-2 * objectives.BoundaryComplexity(width=4),
    "HighFrequency": lambda: channel() - 10 * objectives.HighFrequency(),
}
VIEW_PRESETS = (
    *("featviz", "whole_objects", "lucid", "article", "lucent", "captum", "robustness", "xplique", "maco", "horama"),
    *("accentuation", "plug_in_inversion", "vit", "direct_ascent", "atlas", "tutorial"),
)
TRANSFORMS: Make = {
    "Jitter": lambda: transforms.Jitter(pixels=3),
    "Rotate, distribution": lambda: transforms.Rotate(degrees=Uniform(-15.0, 15.0)),
    "Scale, distribution": lambda: transforms.Scale(factors=Uniform(0.7, 1.2)),
    "Flip": lambda: transforms.Flip(probability=0.5),
    "Pad, grey": lambda: [transforms.Pad(pixels=4, mode="grey"), transforms.Jitter(pixels=6)],
    "Crop, anywhere": lambda: transforms.Crop(center="anywhere", side=Uniform(0.4, 0.6)),
    "CropOrPad": lambda: transforms.CropOrPad(size=(24, 40), value=0.3),
    "Roll": lambda: transforms.Roll(pixels=8),
    "Blur, distribution": lambda: transforms.Blur(sigma=Uniform(0.5, 1.5)),
    "Noise": lambda: transforms.Noise(deviation=0.1, uniform=0.05, end=0.02, decay="logarithmic"),
    "ColorShift": lambda: transforms.ColorShift(mean=0.5, scale=0.5, end=0.1),
    "NormalizeGradient": lambda: [transforms.Jitter(pixels=3), transforms.NormalizeGradient()],
    "MeshView, sphere": lambda: transforms.MeshView(mesh="sphere", size=32),
    "Torchvision": lambda: transforms.Torchvision(transform=v2.RandomPerspective(0.3, p=1.0, fill=None)),
}
TOKENS: Make = {
    "tokens, patches": lambda: objectives.Channel(layer="blocks.1", units=3, tokens="patches"),
    "tokens, class token": lambda: objectives.Channel(layer="blocks.0", units=3, tokens="class"),
    "tokens, position": lambda: objectives.Neuron(layer="blocks.0.linear1", unit=7, position=(1, 2), tokens="patches"),
}
SINGLE: dict[str, Row] = {
    "image: FourierImage, several pictures": lambda: fit(THREE),
    "image: CPPNImage": lambda: fit(image=images.CPPNImage(size=32, width=12, depth=4), lr=0.005),
    "image: MacoImage": lambda: fit(image=images.MacoImage(size=32), optimizer=partial(torch.optim.NAdam, lr=1.0)),
    "image: SharedImage": lambda: fit(THREE, images.SharedImage(fourier(count=3), shared=[(1, 4), (3, 8)])),
    "objective: Diversity": lambda: fit(channel() + 10 * objectives.Diversity(layer="blocks.1"), fourier(count=3)),
    "objective: AlphaMean": lambda: fit(channel() * (1 - objectives.AlphaMean()), images.AlphaImage(image=fourier())),
    "views: none": partial(fit, views=None),
    "views: article, 5 views": partial(fit, views="article", count=5),
    "network: dead ReLU, lucid": lambda: render("relu:0", network=seeded(dead_module), size=32, steps=20),
    "trainer: bf16-mixed": partial(fit, precision="bf16-mixed"),
    "trainer: bf16-true": partial(fit, precision="bf16-true"),
    "trainer: 64-true": partial(fit, precision="64-true"),
    "trainer: accumulate_grad_batches, gradient_clip_val": partial(
        fit, accumulate_grad_batches=2, gradient_clip_val=0.01
    ),
    "trainer: SGD": partial(fit, optimizer=partial(torch.optim.SGD, lr=2.0, momentum=0.9)),
    "resume: FourierImage, 12 steps": partial(resumed, fourier),
    "resume: FourierImage, stopped at 5": partial(resumed, fourier, 5),
    "resume: GrowingImage, 12 steps": partial(resumed, growing),
    "resume: GrowingImage, stopped at 8": partial(resumed, growing, 8),
    "sweep: featviz, files": lambda: sweep("featviz")["files"],
    "sweep: featviz, sheets": lambda: sweep("featviz")["sheets"],
    "sweep: featviz, scores": lambda: sweep("featviz")["scores"],
    "sweep: lucid, bf16-mixed, files": lambda: sweep("lucid", precision="bf16-mixed")["files"],
    "callback: FeatureMonitor, featviz": lambda: monitored("featviz")["images"],
    "callback: FeatureMonitor, featviz, weights of the training": lambda: monitored("featviz")["weights"],
    "callback: FeatureMonitor, lucid, cold start": lambda: monitored("lucid", warm_start=False)["images"],
}


def all_rows() -> dict[str, Row]:
    """Return every row by its name."""

    def fits(family: str, parts: Make, run: Callable[[Any], Tensor]) -> dict[str, Row]:
        return {f"{family}: {name}": lambda make=make: run(make()) for name, make in parts.items()}  # type: ignore[misc]

    def conv(channels: int) -> Tensor:
        return fit("features.6:3", fourier(channels=channels), network=conv_network(channels))

    rows: dict[str, Row] = {name: partial(render, **arguments) for name, arguments in RENDERS.items()}
    rows |= fits("image", IMAGES, lambda image: fit(image=image)) | fits("objective", OBJECTIVES, fit)
    rows |= {f"views: {name}": partial(fit, views=name) for name in VIEW_PRESETS}
    rows |= fits("transform", TRANSFORMS, lambda views: fit(views=views))
    rows |= {
        f"schedule: {name}": partial(fit, views="article", schedule=name) for name in ("linear", "cosine", "warmup")
    }
    rows |= fits("network", TOKENS, lambda objective: fit(objective, network=token_network()))
    rows |= {f"network: convolutional, {count} channels": partial(conv, count) for count in (1, 3, 7)}
    return dict(sorted((rows | SINGLE).items()))


# The table


def digest(values: Tensor) -> str:
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


def format_entry(entry: Entry) -> str:
    """Return a row as text."""
    if "sha256" not in entry:
        return f"ERROR {entry['error']}" if entry else "absent"
    return f"{entry['sha256']} {'x'.join(map(str, entry['shape']))}"


def environment() -> dict[str, str]:
    """Return what hashes depend on besides the code."""
    cpu = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "lightning": lightning.__version__, "cpu": cpu}


def differences(old: dict[str, Entry], new: dict[str, Entry]) -> dict[str, str]:
    """Return how rows differ, by name; errors differ from everything."""
    result = {}
    for name in dict.fromkeys([*new, *old]):
        before, after = old.get(name, {}), new.get(name, {})
        if "sha256" not in before or "sha256" not in after or before != after:
            equal = "levels" in before and before["levels"] == after.get("levels")
            rounded = " (equal in 256 levels)" if equal else ""
            result[name] = f"{format_entry(before)} -> {format_entry(after)}{rounded}"
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Make the table; return 1 where it differs from another one or, without a comparison, where a row failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table to this JSON file")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="print rows that differ from this table")
    parser.add_argument("--ignore", action="append", default=[], metavar="PREFIX", help="rows that may differ")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows with this in their name")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "lightning.fabric", "featviz_pl"):
        logging.getLogger(logger).setLevel(logging.ERROR)

    def selected(rows: dict[str, Any]) -> dict[str, Any]:
        texts = options.only or [""]
        return {name: row for name, row in rows.items() if any(text in name for text in texts)}

    start, table = time.perf_counter(), {}
    rows: dict[str, Row] = selected(all_rows())
    width = max(map(len, rows), default=0)
    for name, row in rows.items():
        table[name] = make_entry(row)
        print(f"{name:{width}}  {format_entry(table[name])}", flush=True)
    errors = sum("error" in entry for entry in table.values())
    print(f"{len(table)} rows, {errors} errors, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if options.out is not None:
        options.out.write_text(json.dumps({"environment": environment(), "rows": table}, indent=1) + "\n")
    if options.compare is None:
        return int(errors > 0)
    reference = json.loads(options.compare.read_text())
    if reference["environment"] != environment():
        print(f"environments differ: {reference['environment']} -> {environment()}", file=sys.stderr)
    result = differences(selected(reference["rows"]), table)
    ignored = [name for name in result if name.startswith(tuple(options.ignore))]
    print(f"\n{len(result)} rows differ, {len(ignored)} of them ignored")
    for name, change in result.items():
        print(f"{'ignored' if name in ignored else 'differs'}: {name}: {change}")
    return int(len(result) > len(ignored))


if __name__ == "__main__":
    sys.exit(main())
