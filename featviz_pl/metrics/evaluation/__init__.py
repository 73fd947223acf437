"""A table of metrics, one row for each picture; the other names check the inputs of an evaluation before it runs."""

from featviz_pl.metrics.evaluation.evaluation import Evaluation, check_table_path, evaluate
from featviz_pl.metrics.evaluation.photos import check_folder, read_activations
from featviz_pl.metrics.evaluation.pictures import EvaluatedPicture, is_sheet, own_origin, picture_files
from featviz_pl.metrics.evaluation.table import class_of, is_unit, recorded_photos, target_of

__all__ = [
    "EvaluatedPicture",
    "Evaluation",
    "check_folder",
    "check_table_path",
    "class_of",
    "evaluate",
    "is_sheet",
    "is_unit",
    "own_origin",
    "picture_files",
    "read_activations",
    "recorded_photos",
    "target_of",
]
