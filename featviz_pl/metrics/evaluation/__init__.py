"""A table of metrics, one row for each picture."""

from featviz_pl.metrics.evaluation.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
