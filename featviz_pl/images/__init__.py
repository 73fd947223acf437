"""Parameterizations of pictures."""

from featviz_pl.images.alpha import AlphaImage
from featviz_pl.images.ball import BallImage
from featviz_pl.images.base import Image
from featviz_pl.images.cppn import CPPNImage
from featviz_pl.images.fixed import FixedImage
from featviz_pl.images.fourier import FourierImage
from featviz_pl.images.generator import GeneratorImage
from featviz_pl.images.growing import GrowingImage
from featviz_pl.images.interpolation_basis import InterpolationBasisImage
from featviz_pl.images.laplacian import LaplacianPyramidImage
from featviz_pl.images.latent import LatentImage
from featviz_pl.images.maco import MacoImage
from featviz_pl.images.masked import MaskedImage
from featviz_pl.images.multi_resolution import MultiResolutionImage
from featviz_pl.images.pixel import PixelImage
from featviz_pl.images.shared import SharedImage
from featviz_pl.images.stack import StackImage

__all__ = [
    "AlphaImage",
    "BallImage",
    "CPPNImage",
    "FixedImage",
    "FourierImage",
    "GeneratorImage",
    "GrowingImage",
    "Image",
    "InterpolationBasisImage",
    "LaplacianPyramidImage",
    "LatentImage",
    "MacoImage",
    "MaskedImage",
    "MultiResolutionImage",
    "PixelImage",
    "SharedImage",
    "StackImage",
]
