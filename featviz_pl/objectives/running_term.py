"""Terms with a state that changes from step to step: it is saved in checkpoints, and a new run resets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from featviz_pl.objectives.base import Term


class RunningTerm(Term):
    """Keep running states: buffers whose first axis counts pictures, empty before the first step.

    They are saved and moved with the term; a new term loads those of a checkpoint whatever their shape.
    """

    def add_state(self, name: str) -> None:
        """Register an empty running state."""
        with torch.inference_mode(False):  # a term that is made during a validation must also serve a training
            self.register_buffer(name, torch.empty(0, dtype=torch.float32))
        self._states = (*getattr(self, "_states", ()), name)

    def state(self, name: str, step: int | None, count: int) -> Tensor | None:
        """Return a running state of `count` pictures, None where there is none yet or at step 0 of a new run."""
        state: Tensor = self.get_buffer(name)
        return None if step == 0 or len(state) != count else state

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Give the states the shapes of the checkpoint."""
        for name in getattr(self, "_states", ()):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor):
                device = self.get_buffer(name).device
                setattr(self, name, torch.empty(saved.shape, dtype=saved.dtype, device=device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
