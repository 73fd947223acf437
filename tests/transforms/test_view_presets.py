"""The published ranges, number by number, and what they do to pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from featviz_pl.presets import PRESETS
from featviz_pl.transforms import VIEW_PRESETS, Choice, Compose, Crop, Rotate, Scale, Views, view_preset

# The sources' numbers, written out. A jitter of d is a random crop that leaves d + 1 places on each axis: Jitter(d // 2).
# lucid/optvis/transform.py: pad(12, mode="constant", constant_value=.5), jitter(8), random_scale([1 + (i - 5) / 50.]),
# random_rotate(list(range(-10, 11)) + 5 * [0]), jitter(4).
LUCID_FACTORS, LUCID_ANGLES = (
    [0.90, 0.92, 0.94, 0.96, 0.98, 1.00, 1.02, 1.04, 1.06, 1.08, 1.10],
    [*range(-10, 11)] + [0] * 5,
)
LUCID = f"Pad(12, 'constant', value=0.5), Jitter(4), Scale({Choice(LUCID_FACTORS)}), Rotate({Choice(LUCID_ANGLES)}), Jitter(2)"
WIDE = [*range(-20, 20), *range(-10, 10), *range(-5, 5), 0, 0, 0, 0, 0]  # of CLIP and of the activation atlas
CLIP_FACTORS = [0.995**n for n in range(-5, 80)] + 2 * [0.998**n for n in range(20, 40)]
# Of 24 units with the border, 16 are cut away, the rest is scaled, and 2 more are cut away; of 16.
XPLIQUE_SIDE = ((24 - 16) * 0.94 - 2) / 16
PUBLISHED: dict[str, tuple[int, str]] = {
    "featviz": (
        1,
        "Pad(12, 'reflect'), Jitter(12), Scale(Uniform(low=0.9, high=1.4)), Rotate(Uniform(low=-10, high=10))",
    ),
    "whole_objects": (1, "Crop(center='anywhere', side=Uniform(low=0.35, high=1)), Rotate(Uniform(low=-10, high=10))"),
    "lucid": (1, LUCID),
    # ReflectionPad2d(tau + 1), half-degrees
    "article": (
        4,
        "Pad(9, 'reflect'), Jitter(8), Rotate(Choice([-4, -3.5, -3, 3, 3.5, 4; 17 values])), "
        "Scale(Choice([0.95, 0.975, 1, 1.025, 1.05]))",
    ),
    "lucent": (1, LUCID),
    # ReflectionPad2d(16), then a crop that removes 32
    "captum": (1, "Scale(Choice([1, 0.975, 1.025, 0.95, 1.05])), Jitter(16)"),
    "robustness": (
        1,
        f"Pad(2, 'constant', value=0.5), {'Jitter(2), ' * 10}Scale({Choice(CLIP_FACTORS)}), Rotate({Choice(WIDE)}), "
        "Jitter(1)",
    ),
    "xplique": (
        1,
        "Pad(128, 'constant', value=0), Jitter(32), Jitter(32), Jitter(64), Jitter(64), Jitter(64), "
        "Scale(Uniform(low=0.92, high=0.96)), Blur(Uniform(low=1, high=1.1), kernel=11), Jitter(16), Jitter(16), "
        f"Crop(center=Choice([0.5]), side=Choice([{XPLIQUE_SIDE:g}])), Flip(0.5)",
    ),
    # 0.08 and 0.04 on pictures from -1 to 1
    "maco": (
        32,
        "Crop(center=Normal(loc=0.5, scale=0.15), side=Normal(loc=0.5, scale=0.05), end=Normal(loc=0.05, scale=0.05)), "
        "Noise(0.04, uniform=0.02)",
    ),
    # 0.05 and 0.025 on pictures from -2.5 to 2.5
    "horama": (
        6,
        "Crop(center=Normal(loc=0.5, scale=0.15), side=Uniform(low=0.25, high=0.3)), Noise(0.01, uniform=0.005)",
    ),
    "accentuation": (16, "Crop(center='anywhere', side=Uniform(low=0.05, high=0.99)), Noise(0.02, uniform=0.01)"),
    "plug_in_inversion": (32, "Roll(32), ColorShift(mean=1, scale=1)"),
    "vit": (8, "ColorShift(mean=1, scale=1), Noise(0.5, end=0, channelwise=True), Roll(32)"),
    "direct_ascent": (8, "ColorShift(mean=1, scale=1, end=0.1), Noise(0.5, end=0.05), Roll(64)"),
    "atlas": (
        1,
        "Pad(16, 'constant', value=0.5), Jitter(2), Jitter(2), Jitter(4), Jitter(4), Jitter(4), "
        f"Scale({Choice([0.998**n for n in range(20, 40)])}), Rotate({Choice(WIDE)}), Jitter(1)",
    ),
    "tutorial": (
        1,
        "Pad(16, 'reflect'), Jitter(4), Scale(Choice([0.8, 0.81, 0.82, 1.17, 1.18, 1.19; 40 values])), "
        f"Rotate({Choice([*range(-10, 10), *range(-5, 5), *[*range(-2, 2)] * 10])}), Jitter(1)",
    ),
}
# What the texts above shorten.
LISTS: dict[tuple[str, type], list[Any]] = {
    ("lucid", Rotate): LUCID_ANGLES,
    ("lucid", Scale): LUCID_FACTORS,
    ("article", Rotate): [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4],
    ("robustness", Scale): CLIP_FACTORS,
    ("robustness", Rotate): WIDE,
    ("atlas", Scale): [0.998**n for n in range(20, 40)],
    ("atlas", Rotate): WIDE,
    ("tutorial", Scale): [percent / 100 for percent in range(80, 120)],
    ("tutorial", Rotate): [*range(-10, 10), *range(-5, 5), *[*range(-2, 2)] * 10],
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_presets_are_those_of_the_table_and_of_the_recipes() -> None:
    assert list(PUBLISHED) == list(VIEW_PRESETS)
    assert set(PRESETS) - {"fast"} <= set(VIEW_PRESETS)
    with pytest.raises(ValueError, match="transforms: unknown preset 'artcle'; did you mean 'article'"):
        view_preset("artcle")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_ranges(name: str) -> None:
    transforms, count = view_preset(name)
    assert (count, repr(transforms)) == (PUBLISHED[name][0], f"Compose([{PUBLISHED[name][1]}])")
    assert view_preset(name)[0] is not transforms, "nobody can change the preset of another"


@pytest.mark.parametrize(("name", "kind"), LISTS)
def test_every_number_of_a_list(name: str, kind: type) -> None:
    transform: Any
    (transform,) = [step for step in view_preset(name)[0].listed() if isinstance(step, kind)]
    values: Any = transform.factors if isinstance(transform, Scale) else transform.degrees
    assert sorted(values.values) == pytest.approx(sorted(LISTS[name, kind]), rel=1e-12)


def test_no_view_of_the_article_has_a_bar() -> None:
    for value in (0.0, 1.0):
        image = torch.full((64, 3, 20, 24), value)
        torch.testing.assert_close(view_preset("article")[0](image, generator()), image)


def test_lucid_s_border_is_grey_not_black() -> None:
    lucid = view_preset("lucid")[0]
    white, black = torch.ones(64, 3, 20, 24), torch.zeros(64, 3, 20, 24)
    light, dark = lucid(white, generator()), lucid(black, generator())
    assert float(light.min()) == pytest.approx(0.5, abs=1e-5)
    assert float(dark.max()) == pytest.approx(0.5, abs=1e-5)
    torch.testing.assert_close(light - 0.5, 0.5 - dark)


@pytest.mark.parametrize("name", ["lucid", "article"])
def test_the_average_view_of_a_spot_is_centred_on_it(name: str) -> None:
    # A broad spot in the middle; 400 draws of shifts with a deviation of at most 5 pixels: the mean deviates by 0.25.
    rows, columns = torch.meshgrid(torch.arange(61.0), torch.arange(61.0), indexing="ij")
    spot = torch.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / 18)
    average = view_preset(name)[0](spot.expand(400, 1, -1, -1), generator()).mean(0)[0]
    if name == "lucid":
        average = average - average[0, 0]  # the grey that enters at the border
        average = average[8:-8, 8:-8].clamp_min(0)
        rows, columns = rows[8:-8, 8:-8], columns[8:-8, 8:-8]
    for coordinates in (rows, columns):
        assert float((average * coordinates).sum() / average.sum()) == pytest.approx(30.0, abs=1.0)


def test_maco_s_crops_shrink_through_the_run() -> None:
    crop = view_preset("maco")[0].listed()[0]
    assert isinstance(crop, Crop)
    parameters = crop.sample(generator(), 4000)
    for progress, mean in [(0.0, 0.5), (0.5, 0.275), (1.0, 0.05)]:
        sides = crop.at(parameters, progress)[:, 2]
        assert float(sides.mean()) == pytest.approx(mean, abs=0.004)
        assert float(sides.std()) == pytest.approx(0.05, rel=0.05)
        assert float(crop.matrix(crop.at(parameters, progress), (8, 8))[:, 0, 0].min()) >= 0.05 - 1e-7


@pytest.mark.parametrize("name", VIEW_PRESETS)
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_every_preset_shows_pictures_of_any_shape_at_any_size(name: str, progress: float) -> None:
    transforms, _ = view_preset(name)
    for channels, size in [(3, None), (1, (20, 30))]:
        views = Views(Compose(transforms.listed(), size), 2)
        images = torch.rand(2, channels, 48, 40, generator=generator(), requires_grad=True)
        result = views.apply(images, views.sample(0, 0, [1, 2]), progress)
        assert result.shape == (2, 2, channels, *(size or (48, 40)))
        assert torch.isfinite(result).all()
        result.sum().backward()
        assert images.grad is not None
        assert torch.isfinite(images.grad).all()
