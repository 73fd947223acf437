"""Pictures and photos on disk: whole or absent, with their provenance, alone, in sheets and in motion."""

from featviz_pl.io.animation import save_animation
from featviz_pl.io.pictures import as_saved, save_png, to_pillow, to_uint8
from featviz_pl.io.provenance import read_provenance
from featviz_pl.io.reading import read_picture
from featviz_pl.io.sheets import contact_sheet

__all__ = [
    "as_saved",
    "contact_sheet",
    "read_picture",
    "read_provenance",
    "save_animation",
    "save_png",
    "to_pillow",
    "to_uint8",
]
