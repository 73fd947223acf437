"""Statistics of photos: the covariance of their colors and the magnitude of their spectrum."""

from featviz_pl.statistics.amplitude_spectrum import AmplitudeSpectrum
from featviz_pl.statistics.color_covariance import ColorCovariance, ColorStatistics
from featviz_pl.statistics.datasets import dataset_statistics
from featviz_pl.statistics.measuring import folder_statistics, measure
from featviz_pl.statistics.record import Statistics, load_statistics, natural_statistics
from featviz_pl.statistics.spectrum_statistics import SpectrumStatistics

__all__ = [
    "AmplitudeSpectrum",
    "ColorCovariance",
    "ColorStatistics",
    "SpectrumStatistics",
    "Statistics",
    "dataset_statistics",
    "folder_statistics",
    "load_statistics",
    "measure",
    "natural_statistics",
]
