"""What a long run on several devices needs to know."""

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
    """Check that all devices hold the same pictures, and report how fast they go and what they found.

    The module divides the views over the devices by itself, and their gradients are averaged; this callback watches.
    Every so many steps, and at the last one, it compares a hash of the image's weights over all devices, takes each
    term's scores over the views of all of them, and reports the speed. On one device there is nothing to compare, and
    it reports.

    Args:
        every: optimizer steps between two checks (each waits for the device), 1 or more.

    Raises:
        RuntimeError: in every process, when pictures differ; it names the ranks and the step.

    Example:
        >>> DistributedViews(every=50).every
        50

    Logs: ``views_per_second_per_device``, views of all pictures (each is one picture for the network). Keeps
        ``scores``: for each
    term the scores of the pictures over the views of all devices at the latest check.
    """

    def __init__(self, every: int = 100) -> None:
        super().__init__()
        self.every = whole_number("every", every)
        self.scores: dict[str, list[float]] = {}
        self._latest = self._shown = 0
        self._since = 0.0

    @property
    def state_key(self) -> str:
        """Tell two instances apart in a checkpoint."""
        return self._generate_state_key(every=self.every)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        visualization(self, pl_module)
        self.scores, self._latest = {}, 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._latest, self._shown, self._since = trainer.global_step, 0, time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = visualization(self, pl_module)
        self._shown += len(module.targets) * len(module.own_views)
        step = trainer.global_step
        if step == self._latest:  # an accumulated step ends several batches
            return
        self._latest = step
        if step % self.every and step * trainer.accumulate_grad_batches != module.total_steps:
            return
        self._compare(trainer, module, step)
        last = module.last
        assert last is not None
        self.scores = {name: module.over_ranks(scores.detach()).tolist() for name, scores in last.terms.items()}
        seconds = time.perf_counter() - self._since
        # Over the mean of the times and the shares: the devices wait for one another in each step.
        both = torch.tensor([float(self._shown), seconds], device=module.device)
        shown, seconds = mean_over_ranks(both, trainer.world_size).tolist()
        module.log("views_per_second_per_device", torch.tensor(shown / max(seconds, 1e-9)))
        self._shown, self._since = 0, time.perf_counter()

    def _compare(self, trainer: Trainer, module: FeatureVisualization, step: int) -> None:
        own = torch.tensor(_digest(module.image), device=module.device)  # waits for the device, as the speed must
        if trainer.world_size == 1:
            return
        gathered = [torch.empty_like(own) for _ in range(trainer.world_size)]
        torch.distributed.all_gather(gathered, own)
        found = [tuple(digest.tolist()) for digest in gathered]
        usual = Counter(found).most_common(1)[0][0]  # of equally many, that of the lowest rank
        others = [str(rank) for rank, digest in enumerate(found) if digest != usual]
        if others:
            named = f"rank {others[0]} holds" if len(others) == 1 else f"ranks {', '.join(others)} hold"
            raise RuntimeError(
                f"step {step}: {named} other pictures than rank {found.index(usual)}. Something changes them in one process only, such as "
                "a callback that writes to the image; go on from a checkpoint before this step"
            )


def _digest(image: nn.Module) -> list[int]:
    """Return four whole numbers that change with any bit of what an image keeps."""
    tensors = ((name, value) for name, value in sorted(image.state_dict().items()) if isinstance(value, Tensor))
    sha = bytes.fromhex(digest((part for pair in tensors for part in pair), digits=64))
    return [int.from_bytes(sha[start : start + 8], "big", signed=True) for start in range(0, 32, 8)]
