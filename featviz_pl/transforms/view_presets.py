"""Named ranges of views, as published."""

from __future__ import annotations

from collections.abc import Callable

from featviz_pl.numerics.checks import unknown, whole_number
from featviz_pl.transforms.compose import Compose
from featviz_pl.transforms.crop import Crop
from featviz_pl.transforms.geometric import Flip, Jitter, Pad, Rotate, Scale
from featviz_pl.transforms.noise import ColorShift, Noise
from featviz_pl.transforms.pixels import Blur, Roll
from featviz_pl.transforms.ranges import normal, uniform


def featviz() -> Compose:
    """Return this library's own views: those of Lucid in kind, but zoomed further in than out.

    Jitter by 12 pixels, scale by 0.9 to 1.4, rotate by up to 10 degrees, with 12 mirrored pixels around. The zoom makes
    features hold at several sizes, which tidies what is found; see ``benchmarks/QUALITY.md``.

    Example:
        >>> featviz()
        Compose([Pad(12, 'reflect'), Jitter(12), Scale(Uniform(low=0.9, high=1.4)), Rotate(Uniform(low=-10, high=10))])
    """
    return Compose([Pad(12), Jitter(12), Scale(uniform(0.9, 1.4)), Rotate(uniform(-10.0, 10.0))])


def whole_objects() -> Compose:
    """Return this library's own views of pictures of classes: crops of a third to all of the side, anywhere, turned.

    A class is the same at every size, so that every part of the picture has to make sense as a whole: one or few
    objects form in place of many fragments; see ``benchmarks/QUALITY.md``.

    Example:
        >>> whole_objects()
        Compose([Crop(center='anywhere', side=Uniform(low=0.35, high=1)), Rotate(Uniform(low=-10, high=10))])
    """
    return Compose([Crop("anywhere", uniform(0.35, 1.0)), Rotate(uniform(-10.0, 10.0))])


def lucid() -> Compose:
    """Return Lucid's standard transforms.

    Pad by 12 grey pixels, jitter by 8, scale by 0.90 to 1.10 in steps of 0.02, rotate by -10 to 10 degrees or, five
    chances more, not at all, jitter by 4. Lucid's jitters are random crops: here shifts of the same range.

    Example:
        >>> lucid().listed()[1]
        Jitter(4)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017 (lucid/optvis/transform.py)
    """
    factors = [round(0.90 + 0.02 * step, 2) for step in range(11)]
    return Compose(
        [Pad(12, "constant", value=0.5), Jitter(4), Scale(factors), Rotate(_angles((-10, 11)) + [0.0] * 5), Jitter(2)]
    )


def lucent() -> Compose:
    """Return Lucent's standard transforms: Lucid's numbers, which Lucent takes over.

    Lucent's jitters only move right and down, and leave black bars: a mistake that is not repeated here.

    Example:
        >>> repr(lucent()) == repr(lucid())
        True
    """
    return lucid()


def article() -> Compose:
    """Return the views of the article this library starts from.

    Shifts of up to 8 pixels after reflection padding, whole numbers of half-degrees from -8 to 8 (so up to 4 degrees),
    scales of 0.95, 0.975, 1, 1.025 and 1.05; four of them at a time.

    Example:
        >>> article().listed()[2]
        Rotate([-4, -3.5, -3, 3, 3.5, 4; 17 values])
    """
    degrees = [half / 2 for half in range(-8, 9)]
    return Compose([Pad(9, "reflect"), Jitter(8), Rotate(degrees), Scale([0.95, 0.975, 1.0, 1.025, 1.05])])


def tutorial() -> Compose:
    """Return "all the stops" of Lucid's tutorial.

    Pad by 16 mirrored pixels, jitter by 8, scale by 0.80 to 1.19, rotate by -10 to 9, -5 to 4 or, ten times as likely,
    -2 to 1 degrees, jitter by 2.

    Example:
        >>> tutorial().listed()[2]
        Scale([0.8, 0.81, 0.82, 1.17, 1.18, 1.19; 40 values])
    """
    degrees = _angles((-10, 10), (-5, 5)) + _angles((-2, 2)) * 10
    return Compose(
        [Pad(16), Jitter(4), Scale([percent / 100 for percent in range(80, 120)]), Rotate(degrees), Jitter(1)]
    )


def atlas() -> Compose:
    """Return the views of the icons of Lucid's activation atlas.

    Pad by 16 grey pixels, jitter by 4, 4, 8, 8 and 8, scale by 0.998 to the powers from 20 to 39, rotate by up to 20
    degrees, jitter by 2. Lucid crops or pads the result to the icon's size, which views keep here.

    Example:
        >>> atlas().listed()[6]
        Scale([0.960751, 0.958829, 0.956912, 0.928603, 0.926746, 0.924892; 20 values])

    Reference:
        Carter, Armstrong, Schubert, Johnson, Olah, "Activation Atlas", Distill, 2019
    """
    jitters = [Jitter(pixels // 2) for pixels in (4, 4, 8, 8, 8)]
    return Compose(
        [Pad(16, "constant", value=0.5), *jitters, Scale(_powers(0.998, 20, 40)), Rotate(_WIDE_ANGLES), Jitter(1)]
    )


def robustness() -> Compose:
    """Return the views of OpenAI's CLIP feature visualizations, which are Captum's ``TransformationRobustness`` too.

    Pad by 2 grey pixels, jitter by 4 ten times, scale by 0.995 to the powers from -5 to 79 or 0.998 to those from 20 to
    39 (these twice), rotate by up to 20 degrees, jitter by 2. Jitters are random crops, as in Lucid; Captum's go twice
    as far.

    Example:
        >>> len(robustness().listed())
        14

    Reference:
        Goh, Cammarata, Voss, Carter, Petrov, Schubert, Radford, Olah, "Multimodal Neurons in Artificial Neural
        Networks", Distill, 2021
    """
    factors = _powers(0.995, -5, 80) + _powers(0.998, 20, 40) * 2
    jitters = [Jitter(2) for _ in range(10)]
    return Compose([Pad(2, "constant", value=0.5), *jitters, Scale(factors), Rotate(_WIDE_ANGLES), Jitter(1)])


def captum() -> Compose:
    """Return the default transforms of Captum's optim module: scale by 0.95 to 1.05, then shift by up to 16 pixels.

    Captum's jitter crops a picture that it has padded by as much, mirrored: it reaches 16 pixels either way.

    Example:
        >>> captum()
        Compose([Scale([1, 0.975, 1.025, 0.95, 1.05]), Jitter(16)])
    """
    return Compose([Scale([1.0, 0.975, 1.025, 0.95, 1.05]), Jitter(16)])


def xplique(size: int = 512) -> Compose:
    """Return Xplique's standard transforms, with its unit of a sixteenth of the picture.

    Pad by 4 black units, jitter by 2, 2, 4, 4 and 4, scale by 0.92 to 0.96, blur, jitter by 1 and 1, flip. Its jitters
    are random crops, and the 5.5 units that are left of the picture fill the network's input: the crop shows so much.
    Its blur has 10 weights, which moves the picture by half a pixel; here 11.

    Args:
        size: of the picture, in pixels.

    Example:
        >>> xplique().listed()[1], xplique(224).listed()[1]
        (Jitter(32), Jitter(14))
    """
    unit = whole_number("size", size, least=16) // 16
    first = [Jitter(pixels * unit // 2) for pixels in (2, 2, 4, 4, 4)]
    second = [Jitter(unit // 2), Jitter(unit // 2)]
    left = (0.94 * 8 - 2) / 16  # 24 units with the border, less 16, scaled, less 2; of the 16 of the picture
    blur = Blur(uniform(1.0, 1.1), kernel=11)
    pad = Pad(4 * unit, "constant", value=0.0)
    return Compose([pad, *first, Scale(uniform(0.92, 0.96)), blur, *second, Crop(center=0.5, side=left), Flip()])


def maco() -> Compose:
    """Return the crops of MACO as Xplique has it: half of the side at first, a twentieth at the end, with noise; 32 at a time.

    Xplique adds normal noise of deviation 0.08 and uniform noise of 0.04 to pictures in [-1, 1]: half of that in [0,
    1].

    Example:
        >>> maco().listed()[1]
        Noise(0.04, uniform=0.02)

    Reference:
        Fel, Boissin, Boutin and others, "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
        Optimization", 2023
    """
    crop = Crop(normal(0.5, 0.15), side=normal(0.5, 0.05), end=normal(0.05, 0.05))
    return Compose([crop, Noise(0.08 / 2, uniform=0.04 / 2)])


def horama() -> Compose:
    """Return the crops of Horama: a quarter of the side and a little more, with noise; 6 at a time.

    Horama's arguments say 0.20 to 0.25 of the side; its code makes 0.25 to 0.30, and so does this. It adds normal noise
    of deviation 0.05 and uniform noise of 0.025 to pictures in [-2.5, 2.5]: a fifth of that in [0, 1].

    Example:
        >>> horama()
        Compose([Crop(center=Normal(loc=0.5, scale=0.15), side=Uniform(low=0.25, high=0.3)), Noise(0.01, uniform=0.005)])
    """
    return Compose([Crop(normal(0.5, 0.15), side=uniform(0.25, 0.30)), Noise(0.05 / 5, uniform=0.025 / 5)])


def accentuation() -> Compose:
    """Return the crops of feature accentuation: anywhere, of a twentieth to nearly all of the side, with noise; 16 at a time.

    Example:
        >>> accentuation()
        Compose([Crop(center='anywhere', side=Uniform(low=0.05, high=0.99)), Noise(0.02, uniform=0.01)])

    Reference:
        Hamblin, Fel, Saha, Konkle, Alvarez, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
        Images", 2024
    """
    return Compose([Crop("anywhere", side=uniform(0.05, 0.99)), Noise(0.02, uniform=0.01)])


def plug_in_inversion() -> Compose:
    """Return the augmentations of Plug-In Inversion: a circular shift of up to 32 pixels and shifted colors; 32 at a time.

    Example:
        >>> plug_in_inversion()
        Compose([Roll(32), ColorShift(mean=1, scale=1)])

    Reference:
        Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with
        Data Augmentations", 2022
    """
    return Compose([Roll(32), ColorShift()])


def vit() -> Compose:
    """Return the augmentations of vision-transformer visualizations: shifted colors, casts of color that fade, a roll; 8 at a time.

    Example:
        >>> vit().listed()[1]
        Noise(0.5, end=0, channelwise=True)

    Reference:
        Ghiasi, Kazemi, Borgnia, Reich, Shu, Goldblum, Wilson, Goldstein, "What do Vision Transformers Learn? A Visual
        Exploration", 2022
    """
    return Compose([ColorShift(), Noise(0.5, end=0.0, channelwise=True), Roll(32)])


def direct_ascent() -> Compose:
    """Return augmentations for direct ascent synthesis: colors and noise that calm down to a tenth, and a roll; 8 at a time.

    The numbers are those of a third party's code; the authors publish others.

    Example:
        >>> direct_ascent()
        Compose([ColorShift(mean=1, scale=1, end=0.1), Noise(0.5, end=0.05), Roll(64)])

    Reference:
        Fort, Whitaker, "Direct Ascent Synthesis: Revealing Hidden Generative Capabilities in Discriminative Models",
        2025
    """
    return Compose([ColorShift(end=0.1), Noise(0.5, end=0.05), Roll(64)])


def _angles(*spans: tuple[int, int]) -> list[float]:
    return [float(angle) for start, stop in spans for angle in range(start, stop)]


def _powers(base: float, start: int, stop: int) -> list[float]:
    return [base**exponent for exponent in range(start, stop)]


_WIDE_ANGLES = _angles((-20, 20), (-10, 10), (-5, 5)) + [0.0] * 5

# Name: (maker of the transforms, number of views the source uses).
PRESETS: dict[str, tuple[Callable[[], Compose], int]] = {
    "featviz": (featviz, 1),
    "whole_objects": (whole_objects, 1),
    "lucid": (lucid, 1),
    "article": (article, 4),
    "lucent": (lucent, 1),
    "captum": (captum, 1),
    "robustness": (robustness, 1),
    "xplique": (xplique, 1),
    "maco": (maco, 32),
    "horama": (horama, 6),
    "accentuation": (accentuation, 16),
    "plug_in_inversion": (plug_in_inversion, 32),
    "vit": (vit, 8),
    "direct_ascent": (direct_ascent, 8),
    "atlas": (atlas, 1),
    "tutorial": (tutorial, 1),
}


def view_preset(name: str) -> tuple[Compose, int]:
    """Return the transforms and the number of views of a preset.

    Raises:
        ValueError: when there is no such preset.

    Example:
        >>> view_preset("article")[1]
        4
    """
    if name not in PRESETS:
        raise unknown("transforms", "preset", name, PRESETS)
    make, views = PRESETS[name]
    return make(), views
