"""Recipes hold the constants of their sources, and each one renders."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from toys import toy

from featviz_pl import presets
from featviz_pl.cli.main import main, parser
from featviz_pl.images import FourierImage, GrowingImage, MacoImage, MultiResolutionImage, PixelImage
from featviz_pl.networks import FrozenNetwork
from featviz_pl.objectives import Channel, parse_target
from featviz_pl.presets import PRESETS, Recipe, image_class, recipe
from featviz_pl.rendering import render
from featviz_pl.sweep import FeatureSweep

# Optimizer, learning rate, steps, size of the picture, views: field.md, sections 2.1 and 5.
PUBLISHED: dict[str, tuple[str, float, int, int | None, int]] = {
    "featviz": ("AdamW", 0.2, 256, None, 1),  # this library's own: benchmarks/QUALITY.md
    "fast": ("AdamW", 0.4, 160, None, 1),  # this library's own: benchmarks/SPEED.md
    "lucid": ("Adam", 0.05, 512, None, 1),
    "article": ("Adam", 0.05, 512, None, 4),
    "lucent": ("Adam", 0.05, 512, 128, 1),
    "captum": ("Adam", 4 * 0.025, 512, None, 1),  # its decoded spectrum is not divided by 4
    "xplique": ("Adam", 0.05, 256, 512, 1),
    "maco": ("NAdam", 1.0, 256, 512, 32),
    "horama": ("NAdam", 1.0, 1000, 1280, 6),
    "plug_in_inversion": ("Adam", 0.01, 7 * 400, None, 32),
    "vit": ("Adam", 0.1, 400, None, 8),
    "direct_ascent": ("Adam", 0.1, 400, None, 8),
    "accentuation": ("Adam", 0.05 * 4 / 5, 100, 512, 16),  # its decoded spectrum is divided by 5, ours by 4
}


def test_every_preset_is_in_the_table_and_public() -> None:
    assert list(PRESETS) == list(PUBLISHED)
    assert set(PRESETS) <= set(presets.__all__)
    assert all(getattr(presets, name) is make for name, make in PRESETS.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants(name: str) -> None:
    found = recipe(name)
    assert found.name == name
    assert found.source
    optimizer, lr, steps, size, views = PUBLISHED[name]
    assert (found.optimizer.__name__, found.steps, found.size, found.views) == (optimizer, steps, size, views)
    assert found.lr == pytest.approx(lr)


def test_the_default_is_the_same_everywhere() -> None:
    assert presets.DEFAULT_PRESET == "featviz" == next(iter(PRESETS))
    for door in (render, FeatureSweep.__init__):
        assert inspect.signature(door).parameters["preset"].default == "featviz"
    for command in (["render"], ["sweep", "embedded", "stem:all", "-o", "x"]):
        assert parser().parse_args(command).preset == "featviz"


def test_the_own_recipe_sees_outputs_in_crops_and_holds_them_more() -> None:
    own = recipe("featviz")
    of_classes = own.for_layers(["output"])
    assert own.for_layers(["features.5"]) is own.for_layers(["output", "features.5"]) is own.for_layers([]) is own
    assert replace(own, steps=7).for_layers(["output"]).steps == 7, "what a user changes holds for outputs too"
    with pytest.raises(ValueError, match="output_overrides: cannot hold steps"):
        replace(own, output_overrides={"steps": 3})
    assert (own.optimizer_arguments, of_classes.optimizer_arguments) == tuple(
        {"betas": (0.5, 0.99), "weight_decay": decay} for decay in (0.1, 0.2)
    )
    assert [type(step).__name__ for step in of_classes.transforms.listed()] == ["Crop", "Rotate"]
    assert [type(step).__name__ for step in own.transforms.listed()] == ["Pad", "Jitter", "Scale", "Rotate"]
    same = ("name", "optimizer", "lr", "steps", "size", "views", "image", "scheduler")
    assert all(getattr(own, name) == getattr(of_classes, name) for name in same)
    assert repr(own.image(size=8)) == repr(FourierImage(8)), "an image without arguments is the default recipe's"
    assert FourierImage(8).decay == 1.3


@pytest.mark.parametrize(("target", "decay"), [("features.5:1", 0.1), ("output:1", 0.2)])
def test_a_render_takes_the_recipe_that_suits_its_target(target: str, decay: float) -> None:
    seen: list[float] = []

    class Look(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["weight_decay"])

    render(toy(), target, size=16, steps=2, callbacks=[Look()], accelerator="cpu")
    assert seen == [decay]


def test_the_images_of_the_presets() -> None:
    made: dict[str, Any] = {name: recipe(name).image(size=16) for name in PRESETS}
    assert {
        type(made[name])
        for name in ("featviz", "fast", "lucid", "article", "lucent", "captum", "xplique", "accentuation")
    } == {FourierImage}
    assert type(made["maco"]) is type(made["horama"]) is MacoImage
    assert type(made["direct_ascent"]) is MultiResolutionImage
    assert type(made["plug_in_inversion"]) is GrowingImage
    assert list(made["plug_in_inversion"].sizes) == [4, 6, 8, 10, 12, 14, 16]
    assert type(made["vit"]) is PixelImage
    assert made["vit"].squash == "clip"
    assert (made["lucid"].deviation, made["lucid"].decay) == (0.01, 1.0)
    assert made["captum"].deviation == pytest.approx(4 * 0.02)
    assert made["xplique"].decay == 0.85
    assert {made[name].decay for name in ("fast", "lucid", "article", "lucent", "captum", "accentuation")} == {1.0}


def test_the_fast_recipe_is_lucids_with_other_steps() -> None:
    own, theirs = recipe("fast"), recipe("lucid")
    assert repr(own.image(size=16)) == repr(theirs.image(size=16))
    assert repr(own.transforms) == repr(theirs.transforms)
    assert own.optimizer_arguments == {"betas": (0.5, 0.95), "weight_decay": 0.03}
    optimizer = own.make_optimizer([nn.Parameter(torch.zeros(1))])
    assert own.scheduler is not None
    scheduler = own.scheduler(optimizer, 20)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"] / 0.4)
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, [1.0] * 12 + [1 - step / 8 for step in range(8)], atol=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_preset_renders(name: str) -> None:
    start = torch.full((3, 20, 20), 0.5) if name == "accentuation" else None
    network = FrozenNetwork(toy(), size=16)
    result = render(network, "features.5:1,2", preset=name, size=20, views=2, steps=3, start=start, accelerator="cpu")
    assert result.images.shape == (2, 3, 20, 20)
    assert result.targets == ["features.5:1", "features.5:2"], "what a preset adds is not what is looked for"
    assert result.provenance[0]["preset"] == name
    assert result.provenance[0]["optimizer"] == PUBLISHED[name][0]
    assert result.provenance[0]["lr"] == pytest.approx(PUBLISHED[name][1])
    assert "0x" not in str(result.provenance)


@pytest.mark.parametrize("name", ["lucid", "captum", "vit", "plug_in_inversion"])
@pytest.mark.parametrize("channels", [1, 7])
def test_presets_for_any_number_of_channels(name: str, channels: int) -> None:
    result = render(toy(channels), "features.5:1", preset=name, size=20, views=2, steps=2, accelerator="cpu")
    assert result.images.shape == (1, channels, 20, 20)


@pytest.mark.parametrize("name", ["maco", "horama"])
def test_presets_with_the_spectrum_of_photos_refuse_other_channels(name: str) -> None:
    with pytest.raises(ValueError, match="spectrum: measured on 3 channels, which do not fit pictures of 7"):
        render(toy(7), "features.5:1", preset=name, size=20, views=2, steps=2, accelerator="cpu")


def test_accentuation_needs_a_photo() -> None:
    with pytest.raises(ValueError, match=r"preset: accentuation changes a photo and needs one: .*--start PICTURE"):
        render(toy(), "features.5:1", preset="accentuation", size=20, views=2, steps=2, accelerator="cpu")


def test_accentuation_stays_near_in_the_middle_of_the_way() -> None:
    network = FrozenNetwork(toy(), size=16)
    wrap = recipe("accentuation").make_objective
    assert wrap is not None
    wrapped = wrap(Channel("features.5", 1), network, (16, 16), torch.full((1, 3, 16, 16), 0.5))
    order = [layer.name for layer in network.layers()]
    assert order == [
        "features.0",
        "features.1",
        "features.2",
        "features.3",
        "features.4",
        "features.5",
        "features",
        "head",
        "output",
    ]
    assert {source.layer for source in wrapped.sources()} == {"features.5", "features.2"}


class Tokens(nn.Module):
    """Turn a picture into tokens with features."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.mix = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.mix(self.patch(x).flatten(2).movedim(1, 2))
        return mixed.mean(1)


def test_the_preset_for_transformers_reads_patches_and_holds_down_the_variation() -> None:
    wrap = recipe("vit").make_objective
    assert wrap is not None
    own = parse_target("mix:2")
    wrapped = wrap(own, FrozenNetwork(Tokens()), (16, 16), None)
    assert repr(wrapped) == "Channel('mix', 2, tokens='patches') - 5e-05 * TotalVariation(power=2)"
    assert repr(own) == "Channel('mix', 2)", "the caller's objective stays as it is"
    assert "tokens" not in repr(wrap(Channel("patch", 1), FrozenNetwork(Tokens()), (16, 16), None))
    assert "tokens" not in repr(wrap(parse_target("mix:2@3"), FrozenNetwork(Tokens()), (16, 16), None)), (
        "a token is counted among all"
    )


def test_views_are_of_the_network_s_size_where_the_source_resizes() -> None:
    sizes: list[tuple[int, int]] = []
    network = toy()
    network.features[0].register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    for name, at_network_size in (("lucent", True), ("lucid", False)):
        sizes.clear()
        render(FrozenNetwork(network, size=16), "features.5:1", preset=name, size=40, steps=2, accelerator="cpu")
        assert ((16, 16) in sizes) == at_network_size
        assert (40, 40) in sizes, "the score is of the picture as it is"


def test_a_scheduler_of_a_recipe_ends_with_the_run() -> None:
    rates: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    own = Recipe("own", "here", PixelImage, recipe("lucid").transforms, 1, Watched, 1.0, 4, scheduler=cosine)
    render(toy(), "features.5:1", preset=own, size=12, accelerator="cpu")
    assert rates == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-5)  # (1 + cos(pi k / 4)) / 2
    rates.clear()
    render(toy(), "features.5:1", preset=own, size=12, steps=2, lr=0.5, accelerator="cpu")
    assert rates == pytest.approx([0.5, 0.25])


def test_images_by_name() -> None:
    assert image_class("multi_resolution") is image_class("MultiResolutionImage") is MultiResolutionImage
    with pytest.raises(ValueError, match="image: unknown parameterization 'fourrier'; did you mean 'fourier'"):
        image_class("fourrier")
    with pytest.raises(
        ValueError,
        match="image: 'masked' is made of image, picture, mask too; build it in Python or in a configuration",
    ):
        image_class("masked")


def test_the_command_lists_every_preset_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["preset", *PRESETS]
    assert all(recipe(line.split()[0]).source in line for line in shown[1:])
    assert main(["presets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(PRESETS)
    assert set(listed[0]) == {"name", "source", "views", "lr", "steps", "optimizer"}
