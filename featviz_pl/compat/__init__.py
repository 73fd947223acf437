"""The same classes for the separate package ``pytorch_lightning``: import from here what goes into its Trainer.

``lightning.pytorch`` and ``pytorch_lightning`` are two packages with equal names and different classes. A Trainer of
the one refuses modules of the other: given `featviz_pl.FeatureVisualization`, that of ``pytorch_lightning`` raises
``TypeError: `model` must be a `LightningModule` or `torch._dynamo.OptimizedModule`, got `FeatureVisualization```. The
classes here belong to both packages, and are those of the same name in `featviz_pl` and `featviz_pl.callbacks`
otherwise: pictures are the same bit for bit, and checkpoints can be exchanged. Both packages are installed with this
library; works with ``pytorch_lightning`` 2.4 and newer.

Callbacks of `featviz_pl.callbacks` can be in a list of callbacks too, from ``pytorch_lightning`` 2.6 on. Those from
here are recognised everywhere: by older releases, alone (``callbacks=callback``), in YAML files, and progress bars in
place of Lightning's own. What is no class, such as `log_images`, works with the loggers of both packages.

Example:
    >>> import torch
    >>> from pytorch_lightning import Trainer
    >>> from featviz_pl.compat import Augmentation, FeatureVisualization
    >>> from featviz_pl.images import FourierImage
    >>> model = FeatureVisualization(torch.nn.Conv2d(3, 8, 3), "output:4", FourierImage(16))
    >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    >>> Trainer(max_steps=2, accelerator="cpu", callbacks=[Augmentation("lucid")], **quiet).fit(model)
    >>> model.images.shape
    torch.Size([1, 3, 16, 16])
"""

from featviz_pl.compat._classes import (
    _Augmentation as Augmentation,
)
from featviz_pl.compat._classes import (
    _DistributedViews as DistributedViews,
)
from featviz_pl.compat._classes import (
    _FeatureMonitor as FeatureMonitor,
)
from featviz_pl.compat._classes import (
    _FeatureSweep as FeatureSweep,
)
from featviz_pl.compat._classes import (
    _FeatureTargets as FeatureTargets,
)
from featviz_pl.compat._classes import (
    _FeatureVisualization as FeatureVisualization,
)
from featviz_pl.compat._classes import (
    _FeatureWriter as FeatureWriter,
)
from featviz_pl.compat._classes import (
    _ImageSnapshot as ImageSnapshot,
)
from featviz_pl.compat._classes import (
    _PictureEvaluation as PictureEvaluation,
)
from featviz_pl.compat._classes import (
    _StepProgressBar as StepProgressBar,
)
from featviz_pl.compat._classes import (
    _StopOnPlateau as StopOnPlateau,
)
from featviz_pl.compat._classes import (
    _SweepProgressBar as SweepProgressBar,
)
from featviz_pl.compat._classes import (
    _TopActivations as TopActivations,
)

__all__ = [
    "Augmentation",
    "DistributedViews",
    "FeatureMonitor",
    "FeatureSweep",
    "FeatureTargets",
    "FeatureVisualization",
    "FeatureWriter",
    "ImageSnapshot",
    "PictureEvaluation",
    "StepProgressBar",
    "StopOnPlateau",
    "SweepProgressBar",
    "TopActivations",
]
