"""Terms that remember something from step to step: it travels in checkpoints, and a run that starts anew forgets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from featviz_pl.objectives.base import Term


class RunningTerm(Term):
    """Keep running states: tensors whose first axis counts pictures, empty before the first step.

    They are buffers, so they are saved and moved with the term; a new term takes those of a checkpoint whatever their
    shape.
    """

    def add_state(self, name: str) -> None:
        """Make an empty running state."""
        with torch.inference_mode(False):  # a term made during a validation must also serve a training
            self.register_buffer(name, torch.empty(0, dtype=torch.float32))
        self._states = (*getattr(self, "_states", ()), name)

    def state(self, name: str, step: int | None, count: int) -> Tensor | None:
        """Return a running state of `count` pictures, None where there is none yet: the first step of a run forgets the last run."""
        held: Tensor = self.get_buffer(name)
        return None if step == 0 or len(held) != count else held

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for what the checkpoint holds."""
        for name in getattr(self, "_states", ()):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor):
                held = self.get_buffer(name)
                setattr(self, name, torch.empty(saved.shape, dtype=saved.dtype, device=held.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
