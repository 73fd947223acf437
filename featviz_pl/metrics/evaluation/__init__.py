"""A table of metrics, one row for each picture; the other names check the inputs of an evaluation before it runs."""

from featviz_pl.metrics.evaluation.evaluation import Evaluation, check_table_path, evaluate
from featviz_pl.metrics.evaluation.photos import check_photos
from featviz_pl.metrics.evaluation.pictures import EvaluatedPicture, file_provenance, is_sheet, picture_files
from featviz_pl.metrics.evaluation.targets import class_of, is_unit, target_of

__all__ = [
    "EvaluatedPicture",
    "Evaluation",
    "check_photos",
    "check_table_path",
    "class_of",
    "evaluate",
    "file_provenance",
    "is_sheet",
    "is_unit",
    "picture_files",
    "target_of",
]
