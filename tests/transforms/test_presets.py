"""The published ranges, number by number, and what they do to pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from featviz_pl import transforms as room
from featviz_pl.transforms import (
    PRESETS,
    Compose,
    Crop,
    Jitter,
    Noise,
    Pad,
    Rotate,
    Scale,
    Views,
    article,
    lucid,
    view_preset,
    xplique,
)

# lucid/optvis/transform.py: pad(12, mode="constant", constant_value=.5), jitter(8), random_scale([1 + (i - 5) / 50.]),
# random_rotate(list(range(-10, 11)) + 5 * [0]), jitter(4). A jitter of d is a random crop that leaves d + 1 places on
# each axis.
LUCID_SCALES = [0.90, 0.92, 0.94, 0.96, 0.98, 1.00, 1.02, 1.04, 1.06, 1.08, 1.10]
LUCID_ANGLES = [*range(-10, 11), 0, 0, 0, 0, 0]
ARTICLE_ANGLES = [-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def listed(values: Any) -> tuple[float, ...]:
    assert isinstance(values, tuple)
    return values


def test_lucid_s_standard_transforms_in_order() -> None:
    pad, wide, scale, rotate, narrow = lucid().transforms
    assert isinstance(pad, Pad)
    assert (pad.pixels, pad.mode, pad.value) == (12, "constant", 0.5)
    assert isinstance(wide, Jitter)
    assert isinstance(narrow, Jitter)
    assert (wide.pixels, narrow.pixels) == (8 // 2, 4 // 2)
    assert isinstance(scale, Scale)
    assert sorted(listed(scale.factors)) == LUCID_SCALES
    assert isinstance(rotate, Rotate)
    assert Counter(listed(rotate.degrees)) == Counter(float(angle) for angle in LUCID_ANGLES)


def test_the_article_s_transforms_in_order() -> None:
    transforms, views = view_preset("article")
    assert views == 4
    assert [type(part).__name__ for part in transforms.transforms] == ["Pad", "Jitter", "Rotate", "Scale"]
    pad, jitter, rotate, scale = transforms.transforms
    assert isinstance(pad, Pad)
    assert pad.mode == "reflect"
    assert isinstance(jitter, Jitter)
    assert jitter.pixels == 8
    assert pad.pixels == 8 + 1  # ReflectionPad2d(tau + 1)
    assert isinstance(rotate, Rotate)
    assert sorted(listed(rotate.degrees)) == ARTICLE_ANGLES
    assert isinstance(scale, Scale)
    assert sorted(listed(scale.factors)) == [0.95, 0.975, 1.0, 1.025, 1.05]


def test_the_presets_by_name() -> None:
    assert {name: views for name, (_, views) in PRESETS.items()} == {
        "featviz": 1,
        "whole_objects": 1,
        "lucid": 1,
        "article": 4,
        "lucent": 1,
        "captum": 1,
        "robustness": 1,
        "xplique": 1,
        "maco": 32,
        "horama": 6,
        "accentuation": 16,
        "plug_in_inversion": 32,
        "vit": 8,
        "direct_ascent": 8,
        "atlas": 1,
        "tutorial": 1,
    }
    for name, (make, _) in PRESETS.items():
        assert getattr(room, name) is make
    transforms, views = view_preset("lucid")
    assert views == 1
    assert repr(transforms) == repr(lucid())
    assert lucid() is not lucid(), "nobody can change the preset of another"


def test_an_unknown_preset_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match="transforms: unknown preset 'artcle'; did you mean 'article'"):
        view_preset("artcle")


@pytest.mark.parametrize("make", [lucid, article])
def test_the_ranges_move_nothing_on_average(make: Callable[[], Compose]) -> None:
    for part in make().transforms:
        if isinstance(part, Rotate):
            assert Counter(listed(part.degrees)) == Counter(-angle for angle in listed(part.degrees))
        if isinstance(part, Scale):
            assert sum(listed(part.factors)) / len(listed(part.factors)) == pytest.approx(1.0)


def test_no_view_of_the_article_has_a_bar() -> None:
    for value in (0.0, 1.0):
        image = torch.full((64, 3, 20, 24), value)
        torch.testing.assert_close(article()(image, generator()), image)


def test_lucid_s_border_is_grey_not_black() -> None:
    white, black = torch.ones(64, 3, 20, 24), torch.zeros(64, 3, 20, 24)
    light, dark = lucid()(white, generator()), lucid()(black, generator())
    assert float(light.min()) == pytest.approx(0.5, abs=1e-5)
    assert float(dark.max()) == pytest.approx(0.5, abs=1e-5)
    torch.testing.assert_close(light - 0.5, 0.5 - dark)


@pytest.mark.parametrize("make", [lucid, article])
def test_the_average_view_of_a_spot_is_centred_on_it(make: Callable[[], Compose]) -> None:
    # A broad spot in the middle; 400 draws of shifts with a deviation of at most 5 pixels: the mean deviates by 0.25.
    rows, columns = torch.meshgrid(torch.arange(61.0), torch.arange(61.0), indexing="ij")
    spot = torch.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / 18)
    average = make()(spot.expand(400, 1, -1, -1), generator()).mean(0)[0]
    if make is lucid:
        average = average - average[0, 0]  # the grey that enters at the border
        average = average[8:-8, 8:-8].clamp_min(0)
        rows, columns = rows[8:-8, 8:-8], columns[8:-8, 8:-8]
    for places in (rows, columns):
        assert float((average * places).sum() / average.sum()) == pytest.approx(30.0, abs=1.0)


def one(kind: type, name: str) -> Any:
    """Return the only transform of a kind in a preset."""
    (found,) = [part for part in view_preset(name)[0].transforms if isinstance(part, kind)]
    return found


def shifts(name: str) -> list[int]:
    """Return how many places each jitter has on an axis, less one: the field's "jitter d"."""
    return [
        2 * int(part.pixels)
        for part in view_preset(name)[0].listed()
        if isinstance(part, Jitter) and isinstance(part.pixels, int)
    ]


# Written out from the sources: OpenAI's CLIP-featurevis and Lucid's activation atlas share the angles.
WIDE_ANGLES = [*range(-20, 20), *range(-10, 10), *range(-5, 5), 0, 0, 0, 0, 0]


def test_lucent_s_numbers_are_lucid_s() -> None:
    assert repr(view_preset("lucent")[0]) == repr(lucid())
    assert one(Scale, "lucent").factors == one(Scale, "lucid").factors


def test_captum_s_transforms() -> None:
    scale, jitter = view_preset("captum")[0].transforms
    assert isinstance(scale, Scale)
    assert scale.factors == (1.0, 0.975, 1.025, 0.95, 1.05)
    assert isinstance(jitter, Jitter)
    assert jitter.pixels == 16  # ReflectionPad2d(16), then a crop that removes 32


def test_the_robustness_transforms_of_clip_and_captum() -> None:
    kinds = [type(part).__name__ for part in view_preset("robustness")[0].transforms]
    assert kinds == ["Pad", *["Jitter"] * 10, "Scale", "Rotate", "Jitter"]
    pad = one(Pad, "robustness")
    assert (pad.pixels, pad.mode, pad.value) == (2, "constant", 0.5)
    assert shifts("robustness") == [4] * 10 + [2]
    factors = sorted([0.995**n for n in range(-5, 80)] + 2 * [0.998**n for n in range(20, 40)])
    np.testing.assert_allclose(sorted(one(Scale, "robustness").factors), factors, rtol=1e-12)
    assert len(factors) == 125
    assert Counter(one(Rotate, "robustness").degrees) == Counter(map(float, WIDE_ANGLES))


def test_the_transforms_of_the_activation_atlas() -> None:
    assert [type(part).__name__ for part in view_preset("atlas")[0].transforms] == [
        "Pad",
        *["Jitter"] * 5,
        "Scale",
        "Rotate",
        "Jitter",
    ]
    assert (one(Pad, "atlas").pixels, one(Pad, "atlas").mode) == (16, "constant")
    assert shifts("atlas") == [4, 4, 8, 8, 8, 2]
    np.testing.assert_allclose(one(Scale, "atlas").factors, [0.998**n for n in range(20, 40)], rtol=1e-12)
    assert Counter(one(Rotate, "atlas").degrees) == Counter(map(float, WIDE_ANGLES))


def test_all_the_stops_of_the_tutorial() -> None:
    assert [type(part).__name__ for part in view_preset("tutorial")[0].transforms] == [
        "Pad",
        "Jitter",
        "Scale",
        "Rotate",
        "Jitter",
    ]
    assert (one(Pad, "tutorial").pixels, one(Pad, "tutorial").mode) == (16, "reflect")
    assert shifts("tutorial") == [8, 2]
    np.testing.assert_allclose(one(Scale, "tutorial").factors, np.arange(80, 120) / 100)
    assert Counter(one(Rotate, "tutorial").degrees) == Counter(
        map(float, [*range(-10, 10), *range(-5, 5), *range(-2, 2), *range(-2, 2)] + [*range(-2, 2)] * 8)
    )


@pytest.mark.parametrize("size", [512, 224])
def test_xplique_s_transforms_in_units_of_a_sixteenth(size: int) -> None:
    unit = size // 16
    parts = list(xplique(size).transforms)
    kinds = ["Pad", *["Jitter"] * 5, "Scale", "Blur", "Jitter", "Jitter", "Crop", "Flip"]
    assert [type(part).__name__ for part in parts] == kinds
    pad = parts[0]
    assert isinstance(pad, Pad)
    assert (pad.pixels, pad.mode, pad.value) == (4 * unit, "constant", 0.0)
    jitters = [part.pixels for part in parts if isinstance(part, Jitter)]
    assert [2 * int(pixels) / unit for pixels in jitters] == [2, 2, 4, 4, 4, 1, 1]  # type: ignore[arg-type]
    assert repr(parts[6]) == "Scale(Uniform(low=0.92, high=0.96))"
    assert repr(parts[7]) == "Blur(Uniform(low=1, high=1.1), kernel=11)"
    assert repr(parts[11]) == "Flip(0.5)"
    # Of 24 units with the border, 16 are cut away, the rest is scaled, and 2 more are cut away.
    crop = parts[10]
    assert isinstance(crop, Crop)
    assert listed(crop.side) == pytest.approx((((24 - 16) * 0.94 - 2) / 16,))
    assert repr(view_preset("xplique")[0]) == repr(xplique(512))


def test_maco_s_crops_shrink_through_the_run() -> None:
    crop, noise = one(Crop, "maco"), one(Noise, "maco")
    drawn = crop.sample(generator(), 4000)
    assert drawn[:, :2].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert drawn[:, :2].std(0).tolist() == pytest.approx([0.15, 0.15], rel=0.05)
    for progress, mean in [(0.0, 0.5), (0.5, 0.275), (1.0, 0.05)]:
        sides = crop.at(drawn, progress)[:, 2]
        assert float(sides.mean()) == pytest.approx(mean, abs=0.004)
        assert float(sides.std()) == pytest.approx(0.05, rel=0.05)
        assert float(crop.matrix(crop.at(drawn, progress), (8, 8))[:, 0, 0].min()) >= 0.05 - 1e-7
    # 0.08 and 0.04 on pictures from -1 to 1.
    assert (noise.deviation, noise.uniform, noise.end) == (0.04, 0.02, None)


def test_horama_s_crops_are_those_of_its_code() -> None:
    crop, noise = one(Crop, "horama"), one(Noise, "horama")
    sides = crop.sample(generator(), 4000)[:, 2]
    assert float(sides.min()) == pytest.approx(0.25, abs=1e-3)
    assert float(sides.max()) == pytest.approx(0.30, abs=1e-3)
    # 0.05 and 0.025 on pictures from -2.5 to 2.5.
    assert (noise.deviation, noise.uniform) == (pytest.approx(0.01), pytest.approx(0.005))


def test_the_crops_of_feature_accentuation() -> None:
    assert repr(view_preset("accentuation")[0]) == (
        "Compose([Crop(center='anywhere', side=Uniform(low=0.05, high=0.99)), Noise(0.02, uniform=0.01)])"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plug_in_inversion", "Compose([Roll(32), ColorShift(mean=1, scale=1)])"),
        ("vit", "Compose([ColorShift(mean=1, scale=1), Noise(0.5, end=0, channelwise=True), Roll(32)])"),
        ("direct_ascent", "Compose([ColorShift(mean=1, scale=1, end=0.1), Noise(0.5, end=0.05), Roll(64)])"),
    ],
)
def test_augmentations_that_move_no_points(name: str, text: str) -> None:
    assert repr(view_preset(name)[0]) == text


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_every_preset_shows_pictures_of_any_shape_at_any_size(name: str, progress: float) -> None:
    composed, _ = view_preset(name)
    for channels, size in [(3, None), (1, (20, 30))]:
        views = Views(Compose(composed.listed(), size), 2)
        images = torch.rand(2, channels, 48, 40, generator=generator(), requires_grad=True)
        shown = views.apply(images, views.sample(0, 0, [1, 2]), progress)
        assert shown.shape == (2, 2, channels, *(size or (48, 40)))
        assert torch.isfinite(shown).all()
        shown.sum().backward()
        assert images.grad is not None
        assert torch.isfinite(images.grad).all()
