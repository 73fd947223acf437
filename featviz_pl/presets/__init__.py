"""Named recipes: image, views, optimizer and steps that belong together, with the constants of their sources."""

from featviz_pl.presets.base import Recipe
from featviz_pl.presets.recipes import (
    DEFAULT_PRESET,
    PRESETS,
    accentuation,
    article,
    captum,
    direct_ascent,
    fast,
    featviz,
    horama,
    image_class,
    lucent,
    lucid,
    maco,
    plug_in_inversion,
    recipe,
    vit,
    xplique,
)

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "Recipe",
    "accentuation",
    "article",
    "captum",
    "direct_ascent",
    "fast",
    "featviz",
    "horama",
    "image_class",
    "lucent",
    "lucid",
    "maco",
    "plug_in_inversion",
    "recipe",
    "vit",
    "xplique",
]
