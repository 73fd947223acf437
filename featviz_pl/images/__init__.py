"""What is trained: parameterizations of pictures."""

from featviz_pl.images.base import Image
from featviz_pl.images.fourier import FourierImage
from featviz_pl.images.pixel import PixelImage

__all__ = ["FourierImage", "Image", "PixelImage"]
