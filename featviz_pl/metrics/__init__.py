"""Metrics of single pictures and of sets, as ``torchmetrics.Metric``, and a table of them."""

from featviz_pl.metrics.activation import Activation, ActivationPercentile, HeldOutActivation
from featviz_pl.metrics.base import PictureMetric
from featviz_pl.metrics.embedding import Embedding
from featviz_pl.metrics.evaluation import Evaluation, evaluate
from featviz_pl.metrics.forced_choice import ForcedChoice
from featviz_pl.metrics.nearest_photos import NearestPhotos
from featviz_pl.metrics.path_similarity import PathSimilarity
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations, measure_activations
from featviz_pl.metrics.photo_embeddings import PhotoEmbeddings, embed_photos, load_embeddings
from featviz_pl.metrics.photos import read_photos
from featviz_pl.metrics.pixel_statistics import ClippedShare, ColorDistance, VariationPerPixel
from featviz_pl.metrics.sets import Agreement, PairwiseDistance, VendiScore
from featviz_pl.metrics.spectrum import HighFrequencyShare, SpectrumSlope, natural_slope
from featviz_pl.metrics.transfer import TransferProbability, TransferRank, judge_classes

__all__ = [
    "Activation",
    "ActivationPercentile",
    "Agreement",
    "ClippedShare",
    "ColorDistance",
    "Embedding",
    "Evaluation",
    "ForcedChoice",
    "HeldOutActivation",
    "HighFrequencyShare",
    "NearestPhotos",
    "PairwiseDistance",
    "PathSimilarity",
    "PhotoActivations",
    "PhotoEmbeddings",
    "PictureMetric",
    "SpectrumSlope",
    "TransferProbability",
    "TransferRank",
    "VariationPerPixel",
    "VendiScore",
    "embed_photos",
    "evaluate",
    "judge_classes",
    "load_activations",
    "load_embeddings",
    "measure_activations",
    "natural_slope",
    "read_photos",
]
