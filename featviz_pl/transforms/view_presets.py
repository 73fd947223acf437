"""Named views, with the ranges of their sources.

The sources' jitters are random crops: "jitter 8" there is `Jitter(4)` here, a shift of up to 4 pixels either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from featviz_pl.numerics.checks import unknown
from featviz_pl.transforms.base import Transform
from featviz_pl.transforms.compose import Compose
from featviz_pl.transforms.crop import Crop
from featviz_pl.transforms.geometric import Flip, Jitter, Pad, Rotate, Scale
from featviz_pl.transforms.noise import ColorShift, Noise
from featviz_pl.transforms.pixels import Blur, Roll
from featviz_pl.transforms.ranges import Choice, normal


def _featviz() -> list[Transform]:
    # Lucid's views in kind, but zoomed further in than out: features hold at several sizes (benchmarks/QUALITY.md).
    return [Pad(12), Jitter(12), Scale((0.9, 1.4)), Rotate(10.0)]


def _whole_objects() -> list[Transform]:
    # For classes. A class is the same at every size, so that every part of the picture has to make sense as a whole:
    # one or few objects form instead of many fragments (benchmarks/QUALITY.md).
    return [Crop("anywhere", (0.35, 1.0)), Rotate(10.0)]


def _lucid() -> list[Transform]:
    # Lucid's standard transforms (lucid/optvis/transform.py).
    factors = [round(0.90 + 0.02 * step, 2) for step in range(11)]
    angles = [*range(-10, 11), 0, 0, 0, 0, 0]
    return [_grey_border(12), Jitter(4), Scale(Choice(factors)), Rotate(Choice(angles)), Jitter(2)]


def _article() -> list[Transform]:
    # The article this library starts from; it draws whole numbers of half-degrees.
    angles, factors = [half / 2 for half in range(-8, 9)], [0.95, 0.975, 1.0, 1.025, 1.05]
    return [Pad(9), Jitter(8), Rotate(Choice(angles)), Scale(Choice(factors))]


def _tutorial() -> list[Transform]:
    # "All the stops" of Lucid's tutorial.
    factors = [percent / 100 for percent in range(80, 120)]
    angles = [*range(-10, 10), *range(-5, 5), *[*range(-2, 2)] * 10]
    return [Pad(16), Jitter(4), Scale(Choice(factors)), Rotate(Choice(angles)), Jitter(1)]


def _atlas() -> list[Transform]:
    # The icons of the activation atlas (Carter et al., 2019); they crop or pad the result to the icon's size, views do
    # not.
    jitters = [Jitter(pixels // 2) for pixels in (4, 4, 8, 8, 8)]
    return [_grey_border(16), *jitters, Scale(Choice(_powers(0.998, 20, 40))), Rotate(_WIDE_ANGLES), Jitter(1)]


def _robustness() -> list[Transform]:
    # The visualizations of CLIP (Goh et al., 2021), and Captum's TransformationRobustness, whose jitters go twice as
    # far.
    factors = _powers(0.995, -5, 80) + _powers(0.998, 20, 40) * 2
    jitters = [Jitter(2) for _ in range(10)]
    return [_grey_border(2), *jitters, Scale(Choice(factors)), Rotate(_WIDE_ANGLES), Jitter(1)]


def _captum() -> list[Transform]:
    # Captum's optim module crops a picture that it has mirrored by as much: its jitter reaches 16 pixels either way.
    return [Scale(Choice([1.0, 0.975, 1.025, 0.95, 1.05])), Jitter(16)]


def _xplique() -> list[Transform]:
    # Lengths are in sixteenths of a picture of 512 pixels. The 5.5 units that are left fill the network's input. The
    # source's blur has 10 weights, which moves the picture by half a pixel.
    unit = 512 // 16
    jitters = [Jitter(pixels * unit // 2) for pixels in (2, 2, 4, 4, 4, 1, 1)]
    side = (0.94 * 8 - 2) / 16  # 24 units with the border, less 16, scaled, less 2; of the 16 of the picture
    border, blur = Pad(4 * unit, "constant", value=0.0), Blur((1.0, 1.1), kernel=11)
    return [border, *jitters[:5], Scale((0.92, 0.96)), blur, *jitters[5:], Crop(center=0.5, side=side), Flip()]


def _maco() -> list[Transform]:
    # MACO (Fel et al., 2023) as in Xplique, whose pictures are in [-1, 1]: half of its noise.
    crop = Crop(normal(0.5, 0.15), side=normal(0.5, 0.05), end=normal(0.05, 0.05))
    return [crop, Noise(0.08 / 2, uniform=0.04 / 2)]


def _horama() -> list[Transform]:
    # Horama's arguments say 0.20 to 0.25 of the side, its code makes 0.25 to 0.30. Its pictures are in [-2.5, 2.5]: a
    # fifth of its noise.
    return [Crop(normal(0.5, 0.15), side=(0.25, 0.30)), Noise(0.05 / 5, uniform=0.025 / 5)]


def _accentuation() -> list[Transform]:
    # Feature accentuation (Hamblin et al., 2024).
    return [Crop("anywhere", side=(0.05, 0.99)), Noise(0.02, uniform=0.01)]


def _plug_in_inversion() -> list[Transform]:
    # Plug-In Inversion (Ghiasi et al., 2022).
    return [Roll(32), ColorShift()]


def _vit() -> list[Transform]:
    # "What do Vision Transformers Learn?" (Ghiasi et al., 2022): the noise is a cast of colour that fades.
    return [ColorShift(), Noise(0.5, end=0.0, channelwise=True), Roll(32)]


def _direct_ascent() -> list[Transform]:
    # Direct ascent synthesis (Fort, Whitaker, 2025), with the numbers of a third party's code; the authors' differ.
    return [ColorShift(end=0.1), Noise(0.5, end=0.05), Roll(64)]


def _grey_border(pixels: int) -> Pad:
    return Pad(pixels, "constant", value=0.5)


def _powers(base: float, start: int, stop: int) -> list[float]:
    return [base**exponent for exponent in range(start, stop)]


_WIDE_ANGLES = Choice([*range(-20, 20), *range(-10, 10), *range(-5, 5), 0, 0, 0, 0, 0])

# Name: (maker of the transforms, number of views that the source uses). Lucent takes over Lucid's numbers; its jitters
# only move right and down, which is not repeated here.
VIEW_PRESETS: dict[str, tuple[Callable[[], Sequence[Transform]], int]] = {
    "featviz": (_featviz, 1),
    "whole_objects": (_whole_objects, 1),
    "lucid": (_lucid, 1),
    "article": (_article, 4),
    "lucent": (_lucid, 1),
    "captum": (_captum, 1),
    "robustness": (_robustness, 1),
    "xplique": (_xplique, 1),
    "maco": (_maco, 32),
    "horama": (_horama, 6),
    "accentuation": (_accentuation, 16),
    "plug_in_inversion": (_plug_in_inversion, 32),
    "vit": (_vit, 8),
    "direct_ascent": (_direct_ascent, 8),
    "atlas": (_atlas, 1),
    "tutorial": (_tutorial, 1),
}


def view_preset(name: str) -> tuple[Compose, int]:
    """Return the transforms and the number of views of a preset.

    Args:
        name: of a recipe (``featviz``, ``lucid``, ``article``, ``lucent``, ``captum``, ``xplique``, ``maco``,
            ``horama``, ``accentuation``, ``plug_in_inversion``, ``vit``, ``direct_ascent``), or ``whole_objects``,
            ``robustness``, ``atlas``, ``tutorial``.

    Raises:
        ValueError: when there is no such preset.

    Example:
        >>> transforms, views = view_preset("captum")
        >>> transforms, views
        (Compose([Scale(Choice([1, 0.975, 1.025, 0.95, 1.05])), Jitter(16)]), 1)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (``lucid``); the sources of the others are
        those of the recipes of the same names in `featviz_pl.presets`.
    """
    if name not in VIEW_PRESETS:
        raise unknown("transforms", "preset", name, VIEW_PRESETS)
    make, views = VIEW_PRESETS[name]
    return Compose(make()), views
