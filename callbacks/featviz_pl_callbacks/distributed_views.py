"""Compare the pictures of all devices, and report scores and speed."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from featviz_pl.engine.distributed import mean_over_ranks
from featviz_pl.numerics.checks import whole_number
from featviz_pl.numerics.digest import digest
from featviz_pl.training import FeatureVisualization
from featviz_pl_callbacks._support import visualization


class DistributedViews(Callback):
    """Check that all devices have the same pictures, and report the speed and the scores of every term.

    The module divides the views over the devices, and their gradients are averaged. At an interval of steps, and at the
    last one, this callback compares a hash of the image's weights over all devices, averages the scores of each term
    over all views, and logs the speed. One device has nothing to compare, and reports.

    Args:
        every: optimizer steps between two checks (each waits for the device), 1 or more.

    Raises:
        RuntimeError: in every process, when pictures differ; it names the ranks and the step.

    Example:
        >>> DistributedViews(every=50).every
        50

    Logs: ``views_per_second_per_device``, views of all pictures (each is one picture for the network). Keeps
    ``scores``: for each term the scores of the pictures over the views of all devices at the latest check.
    """

    def __init__(self, every: int = 100) -> None:
        super().__init__()
        self.every = whole_number("every", every)
        self.scores: dict[str, list[float]] = {}
        self._last_step = self._views = 0
        self._started = 0.0

    @property
    def state_key(self) -> str:
        """Key in checkpoints, different for two instances."""
        return self._generate_state_key(every=self.every)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        visualization(self, pl_module)
        self.scores, self._last_step = {}, 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step, self._views, self._started = trainer.global_step, 0, time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module, step = visualization(self, pl_module), trainer.global_step
        self._views += len(module.targets) * len(module.views_of_this_rank)
        if step == self._last_step:  # an accumulated step ends several batches
            return
        self._last_step = step
        if step % self.every and step * trainer.accumulate_grad_batches != module.total_steps:
            return
        self._compare(trainer, module, step)
        assert module.last is not None
        terms = module.last.terms.items()
        self.scores = {name: module.over_ranks(scores.detach()).tolist() for name, scores in terms}
        seconds = time.perf_counter() - self._started
        # The devices wait for one another in each step: the mean of the views over the mean of the times.
        totals = torch.tensor([float(self._views), seconds], device=module.device)
        views, seconds = mean_over_ranks(totals, trainer.world_size).tolist()
        module.log("views_per_second_per_device", torch.tensor(views / max(seconds, 1e-9)))
        self._views, self._started = 0, time.perf_counter()

    def _compare(self, trainer: Trainer, module: FeatureVisualization, step: int) -> None:
        local = torch.tensor(_digest(module.image), device=module.device)  # waits for the device, as the speed must
        if trainer.world_size == 1:
            return
        gathered = [torch.empty_like(local) for _ in range(trainer.world_size)]
        torch.distributed.all_gather(gathered, local)
        digests = [tuple(value.tolist()) for value in gathered]
        majority = Counter(digests).most_common(1)[0][0]  # a tie goes to the lowest rank
        ranks = [str(rank) for rank, value in enumerate(digests) if value != majority]
        if ranks:
            subject = f"rank {ranks[0]} holds" if len(ranks) == 1 else f"ranks {', '.join(ranks)} hold"
            raise RuntimeError(
                f"step {step}: {subject} other pictures than rank {digests.index(majority)}. Something changes them in "
                "one process only, such as a callback that writes to the image; go on from an earlier checkpoint"
            )


def _digest(image: nn.Module) -> list[int]:
    """Return four integers that change with any bit of an image's state."""
    state = [(name, value) for name, value in sorted(image.state_dict().items()) if isinstance(value, Tensor)]
    text = digest((part for entry in state for part in entry), digits=60)
    return [int(text[start : start + 15], 16) for start in range(0, 60, 15)]
