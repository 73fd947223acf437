"""Named recipes: image, views, optimizer and steps that belong together, with the constants of their sources."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.optim import NAdam
from torch.optim.lr_scheduler import CosineAnnealingLR

from featviz_pl import images
from featviz_pl.images import FourierImage, MacoImage, MultiResolutionImage, PixelImage
from featviz_pl.numerics.checks import unknown
from featviz_pl.presets.base import Recipe
from featviz_pl.presets.components import (
    cosine_in_every_stage,
    growing_by_eighths,
    held_then_falling,
    near_the_start,
    of_patches,
)
from featviz_pl.transforms import view_preset


def featviz() -> Recipe:
    """Return this library's own recipe: a smoother spectrum than Lucid's, whose amplitude weight decay holds, and views of its own.

    ``weight <- (1 - lr * 0.1) * weight + lr * Adam's step`` in a basis whose amplitude falls with the frequency as
    ``f ** -1.3``. Long steps with a short memory, calmed down by a cosine, climb as far in 256 steps as Lucid's do; the
    decay keeps colors from burning. Pictures of the network's output, such as classes, are seen in crops of all sizes,
    so that whole objects form, and decay twice as much. Chosen by the metrics of this library:
    ``benchmarks/QUALITY.md``.

    Example:
        >>> featviz().optimizer.__name__, featviz().lr, featviz().steps
        ('AdamW', 0.2, 256)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017; Loshchilov, Hutter, "Decoupled Weight Decay
        Regularization", 2019
    """
    made = Recipe(
        "featviz", "this library, benchmarks/QUALITY.md", partial(FourierImage, decay=1.3), *view_preset("featviz"), torch.optim.AdamW, 0.2,
        256, None, None, {**_SHORT_MEMORY, "weight_decay": 0.1}, CosineAnnealingLR,
    )  # fmt: skip
    of_classes = {
        "transforms": view_preset("whole_objects")[0],
        "optimizer_arguments": {**_SHORT_MEMORY, "weight_decay": 0.2},
    }
    return replace(made, output_overrides=of_classes)


def fast() -> Recipe:
    """Return a recipe for many pictures in little time: Lucid's image and views, and long steps with a short memory.

    AdamW at 0.4 with betas (0.5, 0.95), the rate held and then falling to zero, reaches in 160 steps the score through
    held-out views that Lucid's recipe reaches in 512; ``weight <- (1 - lr * 0.03) * weight`` holds the amplitude. How
    it was found: ``benchmarks/SPEED.md``.

    Example:
        >>> fast().lr, fast().steps
        (0.4, 160)

    Reference:
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    """
    return Recipe(
        "fast", "this library, benchmarks/SPEED.md", FourierImage, *view_preset("lucid"), torch.optim.AdamW, 0.4, 160, None, None,
        {"betas": (0.5, 0.95), "weight_decay": 0.03}, held_then_falling,
    )  # fmt: skip


def lucid() -> Recipe:
    """Return the recipe of Lucid: Fourier basis, decorrelated color, its standard transforms, Adam at 0.05 for 512 steps.

    Example:
        >>> lucid().lr, lucid().steps
        (0.05, 512)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    return Recipe(
        "lucid",
        "Lucid 6dcc927, optvis/render.py and transform.py",
        FourierImage,
        *view_preset("lucid"),
        torch.optim.Adam,
        0.05,
        512,
    )


def article() -> Recipe:
    """Return the recipe of the article this library starts from: as `lucid`, with four views of its own ranges.

    Example:
        >>> article().views
        4
    """
    return Recipe(
        "article",
        "the article's views on Lucid's image",
        FourierImage,
        *view_preset("article"),
        torch.optim.Adam,
        0.05,
        512,
    )


def lucent() -> Recipe:
    """Return the recipe of Lucent: Lucid's numbers on a picture of 128 px that the network sees enlarged to its own size.

    Lucent enlarges after normalising and pads shrunk views with black; here views are sampled once, with a grey border.

    Example:
        >>> lucent().size, lucent().size_of_views
        (128, 'network')
    """
    return Recipe(
        "lucent",
        "Lucent 6123386 (0.1.8)",
        FourierImage,
        *view_preset("lucent"),
        torch.optim.Adam,
        0.05,
        512,
        128,
        "network",
    )


def captum() -> Recipe:
    """Return the recipe of Captum's unreleased optim module: a louder start, larger steps, few and small transforms.

    Captum does not divide its decoded spectrum by 4, as Lucid and `FourierImage` do: its Adam at 0.025 and its start of
    deviation 0.02 are 0.1 and 0.08 here.

    Example:
        >>> captum().lr, captum().image(size=8).deviation
        (0.1, 0.08)
    """
    image = partial(FourierImage, deviation=0.08)
    return Recipe("captum", "Captum optim-wip 39e6ab1", image, *view_preset("captum"), torch.optim.Adam, 0.1, 512)


def xplique() -> Recipe:
    """Return the recipe of Xplique's ``optimize``: a whiter spectrum at 512 px, many jitters, a blur and a flip.

    Xplique stretches the picture to its least and largest value in every step; here the sigmoid bounds it.

    Example:
        >>> xplique().image(size=8).decay, xplique().steps
        (0.85, 256)
    """
    image = partial(FourierImage, decay=0.85)
    views = view_preset("xplique")
    return Recipe(
        "xplique",
        "Xplique 0c90fa4, optimize",
        image,
        *views,
        torch.optim.Adam,
        0.05,
        256,
        512,
        "network",
        {"eps": 1e-7},
    )


def maco() -> Recipe:
    """Return the recipe of MACO as Xplique has it: only the phase is optimised, under 32 crops from half to a twentieth of the side.

    Xplique also standardises each decoded picture; here its mean and contrast are those of the statistics, as
    `MacoImage` says.

    Example:
        >>> maco().optimizer.__name__, maco().lr, maco().views
        ('NAdam', 1.0, 32)

    Reference:
        Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization",
        NeurIPS, 2023
    """
    return Recipe(
        "maco", "Xplique 0c90fa4, maco", MacoImage, *view_preset("maco"), NAdam, 1.0, 256, 512, "network", _KERAS_NADAM
    )


def horama() -> Recipe:
    """Return the recipe of Horama's MACO: 1,280 px, six crops of a quarter of the side, 1,000 steps.

    Example:
        >>> horama().size, horama().views, horama().steps
        (1280, 6, 1000)
    """
    return Recipe(
        "horama", "Horama 0608628 (0.3.0), maco", MacoImage, *view_preset("horama"), NAdam, 1.0, 1000, 1280, "network"
    )


def plug_in_inversion() -> Recipe:
    """Return the recipe of Plug-In Inversion: no regulariser but 32 rolled and color-shifted copies of a picture that grows.

    Seven stages of 400 steps, from two eighths of the size to all of it, each with a cosine of its own. The authors'
    code, which the learning rate and the stages are from, starts at uniform noise; here at grey with a little normal
    noise.

    Example:
        >>> plug_in_inversion().steps, plug_in_inversion().views
        (2800, 32)

    Reference:
        Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with
        Data Augmentations", ICML, 2022
    """
    views = view_preset("plug_in_inversion")
    return Recipe(
        "plug_in_inversion", "arXiv 2201.12961 and the authors' code", growing_by_eighths, *views, torch.optim.Adam, 0.01, 2800,
        None, None, _SHORT_MEMORY, cosine_in_every_stage,
    )  # fmt: skip


def vit() -> Recipe:
    """Return the recipe for vision transformers: free pixels, clipped, eight color-shifted and noisy copies, little variation.

    A channel of a token layer is read at the patch tokens, without the class token. The source's variation has the
    diagonals too; ours is of rows and columns. Hidden units of the MLP blocks
    (``encoder.layers.encoder_layer_3.mlp.1:5`` in torchvision) show more than those of queries, keys and values.

    Example:
        >>> vit().optimizer_arguments["betas"], vit().steps
        ((0.5, 0.99), 400)

    Reference:
        Ghiasi, Kazemi, Borgnia, Reich, Shu, Goldblum, Wilson, Goldstein, "What do Vision Transformers Learn? A Visual
        Exploration", 2022
    """
    image = partial(PixelImage, color="none", squash="clip")
    views = view_preset("vit")
    return Recipe(
        "vit", "arXiv 2212.06727", image, *views, torch.optim.Adam, 0.1, 400, None, None, _SHORT_MEMORY, CosineAnnealingLR,
        make_objective=of_patches,
    )  # fmt: skip


def direct_ascent() -> Recipe:
    """Return the recipe of direct ascent synthesis: the sum of all resolutions, eight shifted, shaded and noisy copies.

    Constants of a third party's code, as far as known; the number of steps is ours.

    Example:
        >>> direct_ascent().views
        8

    Reference:
        Fort, Whitaker, "Direct Ascent Synthesis: Revealing Hidden Generative Capabilities in Discriminative Models",
        2025
    """
    views = view_preset("direct_ascent")
    return Recipe(
        "direct_ascent", "arXiv 2502.07753", MultiResolutionImage, *views, torch.optim.Adam, 0.1, 400, None, None, _SHORT_MEMORY,
        CosineAnnealingLR,
    )  # fmt: skip


def accentuation() -> Recipe:
    """Return the recipe of feature accentuation: a photo to start from, to which the picture stays near in a middle layer.

    The layer is the middle one of those that run before the target's. Needs a start; 512 px, 16 crops, 100 steps.

    Faccent divides its decoded spectrum by 5 where `FourierImage` divides by 4: its Adam at 0.05 is 0.04 here.

    Example:
        >>> accentuation().lr, accentuation().steps
        (0.04, 100)

    Reference:
        Hamblin, Fel, Saha, Konkle, Alvarez, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
        Images", 2024
    """
    views = view_preset("accentuation")
    return Recipe(
        "accentuation",
        "faccent f309798",
        FourierImage,
        *views,
        torch.optim.Adam,
        0.04,
        100,
        512,
        "network",
        make_objective=near_the_start,
    )


_SHORT_MEMORY = {"betas": (0.5, 0.99)}
_KERAS_NADAM = {"eps": 1e-7}


PRESETS: dict[str, Callable[[], Recipe]] = {
    made.__name__: made
    for made in (
        featviz,
        fast,
        lucid,
        article,
        lucent,
        captum,
        xplique,
        maco,
        horama,
        plug_in_inversion,
        vit,
        direct_ascent,
        accentuation,
    )
}


DEFAULT_PRESET = "featviz"


def recipe(preset: str | Recipe) -> Recipe:
    """Return a recipe by name, or as it is.

    Raises:
        ValueError: when there is no such preset.
    """
    if isinstance(preset, Recipe):
        return preset
    if preset not in PRESETS:
        raise unknown("preset", "preset", str(preset), PRESETS)
    return PRESETS[preset]()


def image_class(name: str) -> Callable[..., Any]:
    """Return a parameterization that needs no more than a size by its short name, such as ``"fourier"``, or its class name.

    Raises:
        ValueError: when there is no such parameterization, or it is made of more, such as pictures.

    Example:
        >>> image_class("pixel").__name__, image_class("laplacian-pyramid").__name__
        ('PixelImage', 'LaplacianPyramidImage')
    """
    known = {
        _short(listed): getattr(images, listed)
        for listed in images.__all__
        if not inspect.isabstract(getattr(images, listed))
    }
    del known["interpolationbasis"]  # its pictures are of several objectives, and one name of a target gives one
    chosen = known.get(_short(name))
    if chosen is None:
        raise unknown("image", "parameterization", name, known)
    parameters = inspect.signature(chosen).parameters.values()
    missing = [one.name for one in parameters if one.default is one.empty and one.name != "size"]
    if missing:
        raise ValueError(
            f"image: {name!r} is made of {', '.join(missing)} too; build it in Python or in a configuration"
        )
    made: Callable[..., Any] = chosen
    return made


def _short(name: str) -> str:
    return name.removesuffix("Image").lower().replace("-", "").replace("_", "")
