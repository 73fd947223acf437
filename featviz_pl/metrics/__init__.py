"""What a picture is worth: metrics of single pictures and of sets, as ``torchmetrics.Metric``."""

from featviz_pl.metrics.activation import Activation, ActivationPercentile, HeldOutActivation
from featviz_pl.metrics.base import PictureMetric
from featviz_pl.metrics.embedding import Embedding, PhotoEmbeddings, embed_photos, load_embeddings
from featviz_pl.metrics.evaluation import Evaluation, evaluate
from featviz_pl.metrics.forced_choice import ForcedChoice
from featviz_pl.metrics.natural import ClippedShare, ColorDistance, VariationPerPixel
from featviz_pl.metrics.path import PathSimilarity
from featviz_pl.metrics.photo_activations import PhotoActivations, load_activations, measure_activations, read_photos
from featviz_pl.metrics.plausibility import NearestPhotos
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
