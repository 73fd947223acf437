"""The named recipes, with the constants of their sources."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Adam, AdamW, NAdam
from torch.optim.lr_scheduler import CosineAnnealingLR

from featviz_pl import images
from featviz_pl.images import FourierImage, MacoImage, MultiResolutionImage, PixelImage
from featviz_pl.numerics.checks import unknown
from featviz_pl.presets.base import Recipe
from featviz_pl.presets.components import (
    constant_then_linear,
    cosine_per_stage,
    plug_in_inversion_image,
    read_patches,
    stay_near_start,
)
from featviz_pl.transforms import view_preset


def featviz() -> Recipe:
    """Return the default recipe: a smoother spectrum than Lucid's, weight decay, and views that zoom in.

    ``weight <- (1 - lr * 0.1) * weight + lr * Adam's step`` in a basis whose amplitude falls with the frequency as
    ``f ** -1.3``. Long steps with a short memory, annealed by a cosine, climb as far in 256 steps as Lucid's do; the
    decay keeps colors from saturating. Pictures of the network's output, such as classes, are seen in crops of all
    sizes, so that whole objects form, and decay twice as much. Chosen by the metrics of this library:
    ``benchmarks/QUALITY.md``.

    Example:
        >>> featviz().optimizer.__name__, featviz().lr, featviz().steps
        ('AdamW', 0.2, 256)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017; Loshchilov, Hutter, "Decoupled Weight Decay
        Regularization", 2019
    """
    output_overrides = {
        "transforms": view_preset("whole_objects")[0],
        "optimizer_arguments": {**_SHORT_MEMORY, "weight_decay": 0.2},
    }
    return Recipe(
        "featviz", "this library, benchmarks/QUALITY.md", FourierImage, *view_preset("featviz"), AdamW, lr=0.2,
        steps=256,
        optimizer_arguments={**_SHORT_MEMORY, "weight_decay": 0.1}, scheduler=CosineAnnealingLR,
        output_overrides=output_overrides,
    )  # fmt: skip


def fast() -> Recipe:
    """Return a recipe for many pictures in little time: Lucid's image and views, and long steps with a short memory.

    AdamW at 0.4 with betas (0.5, 0.95), the rate constant and then falling to zero, reaches in 160 steps the score
    through held-out views that Lucid's recipe reaches in 512; ``weight <- (1 - lr * 0.03) * weight`` limits the
    amplitude. How it was found: ``benchmarks/SPEED.md``.

    Example:
        >>> fast().lr, fast().steps
        (0.4, 160)

    Reference:
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019
    """
    return Recipe(
        "fast", "this library, benchmarks/SPEED.md", _LUCID_IMAGE, *view_preset("lucid"), AdamW, lr=0.4, steps=160,
        optimizer_arguments={"betas": (0.5, 0.95), "weight_decay": 0.03}, scheduler=constant_then_linear,
    )  # fmt: skip


def lucid() -> Recipe:
    """Return the recipe of Lucid: Fourier basis, decorrelated color, standard transforms, Adam for 512 steps.

    Example:
        >>> lucid().lr, lucid().steps, lucid().image(size=8).decay
        (0.05, 512, 1.0)

    Reference:
        Olah, Mordvintsev, Schubert, "Feature Visualization", Distill, 2017
    """
    source = "Lucid 6dcc927, optvis/render.py and transform.py"
    return Recipe("lucid", source, _LUCID_IMAGE, *view_preset("lucid"), Adam, lr=0.05, steps=512)


def article() -> Recipe:
    """Return the recipe of the article this library starts from: as `lucid`, with the article's four views.

    Example:
        >>> article().views
        4
    """
    source = "the article's views on Lucid's image"
    return Recipe("article", source, _LUCID_IMAGE, *view_preset("article"), Adam, lr=0.05, steps=512)


def lucent() -> Recipe:
    """Return the recipe of Lucent: Lucid's numbers on a picture of 128 px, enlarged to the input size.

    Lucent enlarges after normalising and pads shrunk views with black; here views are sampled once, with a grey border.

    Example:
        >>> lucent().size, lucent().size_of_views
        (128, 'network')
    """
    return Recipe(
        "lucent", "Lucent 6123386 (0.1.8)", _LUCID_IMAGE, *view_preset("lucent"), Adam, lr=0.05, steps=512,
        size=128, size_of_views="network",
    )  # fmt: skip


def captum() -> Recipe:
    """Return the recipe of Captum's unreleased optim module: a louder start, larger steps, few and small transforms.

    Captum does not divide its decoded spectrum by 4, as Lucid and `FourierImage` do: its Adam at 0.025 and its start of
    deviation 0.02 are 0.1 and 0.08 here.

    Example:
        >>> captum().lr, captum().image(size=8).deviation
        (0.1, 0.08)
    """
    image = partial(_LUCID_IMAGE, deviation=0.08)
    return Recipe("captum", "Captum optim-wip 39e6ab1", image, *view_preset("captum"), Adam, lr=0.1, steps=512)


def xplique() -> Recipe:
    """Return the recipe of Xplique's ``optimize``: a whiter spectrum at 512 px, many jitters, a blur and a flip.

    Xplique stretches the picture to its least and largest value in every step; here the sigmoid bounds it.

    Example:
        >>> xplique().image(size=8).decay, xplique().steps
        (0.85, 256)
    """
    return Recipe(
        "xplique", "Xplique 0c90fa4, optimize", partial(FourierImage, decay=0.85), *view_preset("xplique"), Adam,
        lr=0.05, steps=256, size=512, size_of_views="network", optimizer_arguments=_KERAS,
    )  # fmt: skip


def maco() -> Recipe:
    """Return the recipe of MACO as in Xplique: only the phase is optimized, under 32 crops.

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
        "maco", "Xplique 0c90fa4, maco", MacoImage, *view_preset("maco"), NAdam, lr=1.0, steps=256,
        size=512, size_of_views="network", optimizer_arguments=_KERAS,
    )  # fmt: skip


def horama() -> Recipe:
    """Return the recipe of Horama's MACO: 1,280 px, six crops of a quarter of the side, 1,000 steps.

    Example:
        >>> horama().size, horama().views, horama().steps
        (1280, 6, 1000)
    """
    return Recipe(
        "horama", "Horama 0608628 (0.3.0), maco", MacoImage, *view_preset("horama"), NAdam, lr=1.0, steps=1000,
        size=1280, size_of_views="network",
    )  # fmt: skip


def plug_in_inversion() -> Recipe:
    """Return the recipe of Plug-In Inversion: 32 rolled and color-shifted views of a growing picture.

    Seven stages of 400 steps, from two eighths of the size to all of it, each with its own cosine. The authors' code,
    which the learning rate and the stages are from, starts at uniform noise; here at grey with a little normal noise.

    Example:
        >>> plug_in_inversion().steps, plug_in_inversion().views
        (2800, 32)

    Reference:
        Ghiasi, Kazemi, Reich, Zhu, Goldblum, Goldstein, "Plug-In Inversion: Model-Agnostic Inversion for Vision with
        Data Augmentations", ICML, 2022
    """
    return Recipe(
        "plug_in_inversion", "arXiv 2201.12961 and the authors' code", plug_in_inversion_image,
        *view_preset("plug_in_inversion"), Adam, lr=0.01, steps=2800, optimizer_arguments=_SHORT_MEMORY,
        scheduler=cosine_per_stage,
    )  # fmt: skip


def vit() -> Recipe:
    """Return the recipe for vision transformers: clipped pixels, eight color-shifted and noisy views.

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
    return Recipe(
        "vit", "arXiv 2212.06727", partial(PixelImage, color="none", squash="clip"), *view_preset("vit"), Adam, lr=0.1,
        steps=400, optimizer_arguments=_SHORT_MEMORY, scheduler=CosineAnnealingLR, make_objective=read_patches,
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
    return Recipe(
        "direct_ascent", "arXiv 2502.07753", MultiResolutionImage, *view_preset("direct_ascent"), Adam, lr=0.1,
        steps=400, optimizer_arguments=_SHORT_MEMORY, scheduler=CosineAnnealingLR,
    )  # fmt: skip


def accentuation() -> Recipe:
    """Return the recipe of feature accentuation: the picture stays near a start photo in a middle layer.

    The layer is the middle one of those that run before the target's. Needs a start; 512 px, 16 crops, 100 steps.
    Faccent divides its decoded spectrum by 5 where `FourierImage` divides by 4: its Adam at 0.05 is 0.04 here.

    Example:
        >>> accentuation().lr, accentuation().steps
        (0.04, 100)

    Reference:
        Hamblin, Fel, Saha, Konkle, Alvarez, "Feature Accentuation: Revealing 'What' Features Respond to in Natural
        Images", 2024
    """
    return Recipe(
        "accentuation", "faccent f309798", _LUCID_IMAGE, *view_preset("accentuation"), Adam, lr=0.04, steps=100,
        size=512, size_of_views="network", make_objective=stay_near_start,
    )  # fmt: skip


_LUCID_IMAGE = partial(FourierImage, decay=1.0)
_SHORT_MEMORY = {"betas": (0.5, 0.99)}
_KERAS = {"eps": 1e-7}

_RECIPES = (
    *(featviz, fast, lucid, article, lucent, captum, xplique, maco, horama, plug_in_inversion, vit, direct_ascent),
    accentuation,
)
PRESETS: dict[str, Callable[[], Recipe]] = {make.__name__: make for make in _RECIPES}
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
    """Return a parameterization that needs only a size by its short name, such as ``"fourier"``, or class name.

    Raises:
        ValueError: when there is no such parameterization, or it is made of more, such as pictures.

    Example:
        >>> image_class("pixel").__name__, image_class("laplacian-pyramid").__name__
        ('PixelImage', 'LaplacianPyramidImage')
    """
    classes = {_short(export): getattr(images, export) for export in images.__all__}
    classes = {key: value for key, value in classes.items() if not inspect.isabstract(value)}
    del classes["interpolationbasis"]  # its pictures are of several objectives, and one name of a target gives one
    if _short(name) not in classes:
        raise unknown("image", "parameterization", name, classes)
    image: Callable[..., Any] = classes[_short(name)]
    parameters = inspect.signature(image).parameters.values()
    missing = [each.name for each in parameters if each.default is each.empty and each.name != "size"]
    if missing:
        raise ValueError(
            f"image: {name!r} is made of {', '.join(missing)} too; build it in Python or in a configuration"
        )
    return image


def _short(name: str) -> str:
    return name.removesuffix("Image").lower().replace("-", "").replace("_", "")
