"""What is wanted: objectives, their algebra, and the penalties of the picture itself. Everything is maximised."""

from featviz_pl.objectives.across import Across
from featviz_pl.objectives.activation import Channel, DeepDream, Layer, Neuron
from featviz_pl.objectives.base import Constant, Objective, Power, Product, Quotient, Sum, Term
from featviz_pl.objectives.batch import Alignment, Diversity, Interpolation
from featviz_pl.objectives.classes import ClassLogit, ClassProbability
from featviz_pl.objectives.direction import Direction, NeuronDirection, Similarity, TensorDirection
from featviz_pl.objectives.facet import Facet
from featviz_pl.objectives.latent import Latent
from featviz_pl.objectives.logged import Logged
from featviz_pl.objectives.penalty import (
    L1,
    L2,
    AlphaBlurDistance,
    AlphaMean,
    BlurDistance,
    BoundaryComplexity,
    HighFrequency,
    LInfinity,
    TotalVariation,
)
from featviz_pl.objectives.per_picture import PerPicture
from featviz_pl.objectives.protocol import Observation, Reference, Setting, Source
from featviz_pl.objectives.reference import Caricature, Content, Inversion
from featviz_pl.objectives.sort_matching import SortMatching
from featviz_pl.objectives.stay_near import StayNear
from featviz_pl.objectives.style import Style
from featviz_pl.objectives.target_syntax import Target, parse_target
from featviz_pl.objectives.weighted_channels import WeightedChannels

__all__ = [
    "L1",
    "L2",
    "Across",
    "Alignment",
    "AlphaBlurDistance",
    "AlphaMean",
    "BlurDistance",
    "BoundaryComplexity",
    "Caricature",
    "Channel",
    "ClassLogit",
    "ClassProbability",
    "Constant",
    "Content",
    "DeepDream",
    "Direction",
    "Diversity",
    "Facet",
    "HighFrequency",
    "Interpolation",
    "Inversion",
    "LInfinity",
    "Latent",
    "Layer",
    "Logged",
    "Neuron",
    "NeuronDirection",
    "Objective",
    "Observation",
    "PerPicture",
    "Power",
    "Product",
    "Quotient",
    "Reference",
    "Setting",
    "Similarity",
    "SortMatching",
    "Source",
    "StayNear",
    "Style",
    "Sum",
    "Target",
    "TensorDirection",
    "Term",
    "TotalVariation",
    "WeightedChannels",
    "parse_target",
]
