"""How another gradient reaches any network: inside a context, functions of torch are answered by rules of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Rules = Mapping[Any, Callable[..., Any]]
_open = threading.local()  # how many contexts, as torch counts its modes


class GradientRules(TorchFunctionMode):
    """Answer the calls of some functions of torch by rules with the same arguments, as long as the context lasts.

    Contexts nest: a call that the inner one has no rule for reaches the outer one. Inside a rule its own context is
    off.

    Args:
        rules: for each function of torch, what is called instead.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules

    @staticmethod
    def are_open() -> bool:
        """Say whether a context is open in this thread."""
        return getattr(_open, "contexts", 0) > 0

    def __enter__(self) -> GradientRules:
        """Begin the context."""
        super().__enter__()  # type: ignore[no-untyped-call]
        _open.contexts = getattr(_open, "contexts", 0) + 1
        return self

    def __exit__(self, *error: Any) -> None:
        """End the context."""
        _open.contexts -= 1
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the rule for a function where there is one."""
        rule = self.rules.get(func)
        # A graph that is traced shows the forward pass, which no rule changes, and functions of ours would be opaque in
        # it.
        called = func if rule is None or torch.jit.is_tracing() else rule  # type: ignore[attr-defined, no-untyped-call]
        return called(*args, **(kwargs or {}))
