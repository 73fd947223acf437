"""What is wanted: objectives, their algebra, and the penalties of the picture itself. Everything is maximised."""

from featviz_pl.objectives.activation import Channel, ClassLogit, ClassProbability, DeepDream, Layer, Neuron
from featviz_pl.objectives.base import Constant, Objective, Product, Quotient, Sum, Term
from featviz_pl.objectives.needs import Observation, Reference, Setting, Source
from featviz_pl.objectives.penalty import L1, L2, TotalVariation
from featviz_pl.objectives.target import parse_target

__all__ = [
    "L1",
    "L2",
    "Channel",
    "ClassLogit",
    "ClassProbability",
    "Constant",
    "DeepDream",
    "Layer",
    "Neuron",
    "Objective",
    "Observation",
    "Product",
    "Quotient",
    "Reference",
    "Setting",
    "Source",
    "Sum",
    "Term",
    "TotalVariation",
    "parse_target",
]
