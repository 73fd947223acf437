"""Log pictures to any logger, and register how further loggers take them."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from featviz_pl.io import save_png, to_pillow, to_uint8
from featviz_pl.io.pictures import displayable, encode_png
from featviz_pl.io.sheets import sheet
from featviz_pl.numerics.checks import whole_number

__all__ = ["ImageSink", "log_images", "logged_step", "register_image_sink"]

# Called with the logger, the name, the pictures (N, C, H, W) in [0, 1], float32 on the CPU, the step, and a caption for
# each picture or None.
ImageSink = Callable[[Any, str, Tensor, int, "list[str] | None"], None]

WANDB_LIMIT = 108  # pictures of one list that Weights & Biases shows; it drops the others
TAG_LIMIT = 64  # characters of a target in a tag

_REGISTERED: dict[type | str, ImageSink] = {}
_WARNED: set[str] = set()


def log_images(
    loggers: Any, name: str, images: Tensor, step: int | None = None, caption: str | Sequence[str] | None = None
) -> int:
    """Log pictures to every logger that takes images, and return the number of these loggers.

    Only the first process writes; the others return 0. A logger that takes no images is skipped with one warning for
    its class. All write the 256 levels of this library's PNG files. The packages come with the extras
    ``featviz_pl[tensorboard]``, ``[wandb]`` and ``[mlflow]``; MLflow 3 needs a database, such as
    ``MLFlowLogger(tracking_uri="sqlite:///mlflow.db")``.

    ====================================  ============================================  ==================
    logger                                several pictures                              captions
    ====================================  ============================================  ==================
    TensorBoard                           one contact sheet                             left out
    Weights & Biases                      a list; a contact sheet of more than 108      one for each
    MLflow                                one contact sheet                             left out
    CSV                                   one contact sheet, below the logger's folder  in the file
    others with a method ``log_image``    as Weights & Biases                           where accepted
    others with ``experiment.add_image``  as TensorBoard                                left out
    others                                see `register_image_sink`                     see there
    ====================================  ============================================  ==================

    Args:
        loggers: a Trainer, a logger, or several loggers.
        name: of the series of pictures; "/" groups. As a file name (all but TensorBoard), characters other than
            letters, digits, ``_-./`` and spaces become "-".
        images: pictures in [0, 1]; other values are clipped.
        step: on the axis of the loggers, 0 or more; a Trainer's `logged_step` unless given.
        caption: a text for each picture, or one for all.

    Shape:
        images: (C, H, W) or (N, C, H, W)

    Raises:
        ValueError: when the name has no letter or digit, the pictures have another shape, the step is below 0 or
            missing, or the numbers of captions and pictures differ.
        TypeError: when the pictures are not a floating-point tensor.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     taken = log_images(CSVLogger(folder), "features/conv1:3", torch.rand(3, 8, 8), step=63)
        ...     print(taken, [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png")])
        1 ['lightning_logs/version_0/images/features/conv1-3/step-000063.png']
    """
    if not re.search(r"[^\W_]", name):
        raise ValueError(
            f"name: {name!r} has no letter or digit; give the name of the pictures, such as 'features/conv1'"
        )
    pictures = _batch(images)
    captions = _captions(caption, len(pictures))
    trainer = loggers if isinstance(getattr(loggers, "loggers", None), list) else None
    if step is None and trainer is None:
        raise ValueError("step: loggers alone have no step; give the step, or the Trainer instead of its loggers")
    step = logged_step(trainer) if step is None else whole_number("step", step, 0)
    if getattr(rank_zero_only, "rank", 0) != 0 or not getattr(trainer, "is_global_zero", True):
        return 0
    pictures = pictures.detach().float().cpu()
    count = 0
    for logger in trainer.loggers if trainer is not None else loggers if isinstance(loggers, Sequence) else [loggers]:
        sink = _sink(logger)
        if sink is None:
            _warn_once(logger)
        else:
            sink(logger, name, pictures, step, captions)
            count += 1
    return count


def log_targets(
    trainer: Any,
    name: str,
    images: Tensor,
    targets: Sequence[str],
    scores: Sequence[float | None],
    step: int,
    sheet: Tensor,
) -> int:
    """Log the picture of each target as ``name/target``, the sheet of several as `name`, and the scores as numbers.

    Args:
        trainer: whose loggers take them.
        name: of the series of pictures.
        images: (N, C, H, W) in [0, 1].
        targets: of the pictures; one that is long, or of several pictures, is replaced by the picture's number.
        scores: logged as ``name/target/score``; None for a placeholder, which is in the sheet alone.
        step: on the axis of the loggers.
        sheet: (C, height, width), with all pictures.

    Returns:
        The number of loggers that take images.
    """
    counts, digits = Counter(targets), len(str(len(targets) - 1))
    tags = [
        f"{name}/{target if counts[target] == 1 and len(target) <= TAG_LIMIT else f'{index:0{digits}d}'}"
        for index, target in enumerate(targets)
    ]
    loggers = log_images(trainer, name, sheet, step) if len(images) > 1 else 0
    values: dict[str, float] = {}
    for tag, image, target, score in zip(tags, images, targets, scores):
        if score is not None:
            loggers = log_images(trainer, tag, image, step, caption=f"{target}  {score:.3g}")
            values[f"{tag}/score"] = score
    for logger in trainer.loggers if values else []:
        any_name = _sink(logger) in (_add_image, _save_beside_csv)
        logger.log_metrics(values if any_name else {_file_name(tag): value for tag, value in values.items()}, step=step)
    return loggers


def register_image_sink(logger: type | str, sink: ImageSink) -> None:
    """Register how loggers of a class and its subclasses take pictures; later and nearer classes take precedence.

    Args:
        logger: the class, or its path ``package.module.Class``, which need not be installed.
        sink: called with the logger, the name, the pictures (N, C, H, W) in [0, 1], float32 on the CPU, the step, and a
            list of one caption for each picture or None; on the first process only.

    Raises:
        TypeError: when the logger is neither a class nor a text, or the sink is not callable.
        ValueError: when the text is not a path with a module.

    Example:
        >>> import torch
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> class Shapes(CSVLogger):
        ...     pass
        >>> def sink(logger, name, images, step, captions):
        ...     print(name, tuple(images.shape), step, captions)
        >>> register_image_sink(Shapes, sink)
        >>> log_images(Shapes("unused"), "conv1", torch.rand(3, 8, 8), step=7, caption="unit 3")
        conv1 (1, 3, 8, 8) 7 ['unit 3']
        1
    """
    if not isinstance(logger, (type, str)):
        raise TypeError(f"logger: {logger!r} is neither a class nor the text 'package.module.Class'")
    if isinstance(logger, str) and not re.fullmatch(r"\w+(\.\w+)+", logger):
        raise ValueError(f"logger: {logger!r} names no class in a module; write 'package.module.Class'")
    if not callable(sink):
        raise TypeError(f"sink: {sink!r} cannot be called; give a function of logger, name, images, step and captions")
    _REGISTERED.pop(logger, None)
    _REGISTERED[logger] = sink


def logged_step(trainer: Any) -> int:
    """Return the step at which Lightning logs the numbers of the latest batch.

    This is the number of batches after which optimizers stepped, minus 1; `global_step` counts every optimizer.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> logged_step(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))
        0
    """
    loop = trainer.fit_loop.epoch_loop
    batches = loop.batch_progress.current
    # Lightning counts a batch after its last hook and after a validation that follows it, and uses the step before for
    # the numbers of the epoch.
    is_counted = batches.ready == batches.completed and not trainer.evaluating
    return max(0, int(loop._batches_that_stepped) - int(is_counted))


def _batch(images: Tensor) -> Tensor:
    """Return the pictures as a batch (N, C, H, W)."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a floating-point tensor with values in [0, 1], got {kind}")
    pictures = images[None] if images.ndim == 3 else images
    if pictures.ndim != 4 or 0 in pictures.shape:
        raise ValueError(
            f"images must be one picture (C, H, W) or several (N, C, H, W), got shape {tuple(images.shape)}"
        )
    return pictures


def _captions(caption: str | Sequence[str] | None, count: int) -> list[str] | None:
    """Return a caption for each picture."""
    if caption is None:
        return None
    captions = [caption] * count if isinstance(caption, str) else [str(text) for text in caption]
    if len(captions) != count:
        raise ValueError(
            f"caption: {len(captions)} captions for {count} pictures; give one for each, or one text for all"
        )
    return captions


def _sink(logger: Any) -> ImageSink | None:
    """Return the sink of a logger: registered, for its method `log_image`, built in, or for `experiment.add_image`."""
    kind = type(logger)
    if (sink := _of_class(kind, _REGISTERED)) is not None:
        return sink
    if _takes(getattr(kind, "log_image", None), logger, "name", [], step=0):
        return _log_image
    if (sink := _of_class(kind, _BUILT_IN)) is not None:
        return sink
    return _add_image if callable(getattr(getattr(logger, "experiment", None), "add_image", None)) else None


def _of_class(kind: type, sinks: dict[type | str, ImageSink]) -> ImageSink | None:
    """Return the sink of the class or of its nearest base that has one."""
    for base in kind.__mro__:
        for key in reversed(sinks):
            if key is base or (isinstance(key, str) and _has_path(base, key)):
                return sinks[key]
    return None


def _has_path(kind: type, path: str) -> bool:
    """Return whether a class is found at that path, without importing anything."""
    module, _, name = path.rpartition(".")
    return path == f"{kind.__module__}.{kind.__qualname__}" or getattr(sys.modules.get(module), name, None) is kind


def _takes(function: Any, *arguments: Any, **named: Any) -> bool:
    """Return whether a function can be called with these arguments."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*arguments, **named)
    except (TypeError, ValueError):
        return False
    return True


def _warn_once(logger: Any) -> None:
    name = type(logger).__name__
    if name not in _WARNED:
        _WARNED.add(name)
        rank_zero_warn(
            f"{name} takes no pictures, and gets none; register_image_sink({name}, function) tells how it takes them"
        )


def _file_name(name: str) -> str:
    """Return a name that is a valid relative path on every system, and a valid key of MLflow."""
    parts = (re.sub(r"[^A-Za-z0-9_. -]", "-", part).strip(" ").rstrip(".") for part in name.split("/"))
    return "/".join(part for part in parts if part) or "-"


def _log_image(logger: Any, name: str, images: Tensor, step: int, captions: list[str] | None) -> None:
    """Log a list of pictures as in Weights & Biases, on the axis `trainer/global_step` of Lightning's numbers."""
    as_list = len(images) <= WANDB_LIMIT
    pictures = [to_pillow(image) for image in images] if as_list else [to_pillow(sheet(images))]
    key = _file_name(name)
    if as_list and captions is not None and _takes(logger.log_image, key, pictures, step=step, caption=captions):
        logger.log_image(key, pictures, step=step, caption=captions)
    else:
        logger.log_image(key, pictures, step=step)


def _add_image(logger: Any, name: str, images: Tensor, step: int, captions: list[str] | None) -> None:
    """Log one picture as in TensorBoard: in levels, because it truncates fractions and this library rounds them."""
    logger.experiment.add_image(name, to_uint8(displayable(sheet(images))), step)


def _log_to_mlflow(logger: Any, name: str, images: Tensor, step: int, captions: list[str] | None) -> None:
    logger.experiment.log_image(logger.run_id, to_pillow(sheet(images)), key=_file_name(name), step=step)


def _save_beside_csv(logger: Any, name: str, images: Tensor, step: int, captions: list[str] | None) -> None:
    _ = logger.experiment  # creates its folder; later it would warn that the folder is not empty
    path = os.path.join(logger.log_dir, "images", *_file_name(name).split("/"), _step_name(step))
    provenance = {"step": step} if captions is None else {"step": step, "caption": captions}
    if "://" in path:  # remote storage, where Lightning writes its numbers too
        import fsspec  # type: ignore[import-untyped, unused-ignore]

        with fsspec.open(path, "wb") as file:
            encode_png(to_pillow(sheet(images)), file, provenance)
    else:
        save_png(sheet(images), path, provenance)


def _step_name(step: int) -> str:
    return f"step-{step:06d}.png"


def _take_nothing(logger: Any, name: str, images: Tensor, step: int, captions: list[str] | None) -> None:
    """Ignore pictures, as the loggers of a Trainer with `fast_dev_run` do."""


# By name, because both packages of Lightning have their own classes, and neither needs to be installed.
_BUILT_IN: dict[type | str, ImageSink] = {
    f"{package}.{name}": sink
    for packages, name, sink in (
        (("lightning.fabric", "lightning_fabric"), "loggers.csv_logs.CSVLogger", _save_beside_csv),
        (("lightning.fabric", "lightning_fabric"), "loggers.tensorboard.TensorBoardLogger", _add_image),
        (("lightning.pytorch", "pytorch_lightning"), "loggers.mlflow.MLFlowLogger", _log_to_mlflow),
        (("lightning.pytorch", "pytorch_lightning"), "loggers.logger.DummyLogger", _take_nothing),
    )
    for package in packages
}
