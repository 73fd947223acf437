"""How another gradient reaches any network: inside a context, functions of torch are answered by rules of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Rules = Mapping[Any, Callable[..., Any]]


class GradientRules(TorchFunctionMode):
    """Answer the calls of some functions of torch by rules with the same arguments, as long as the context lasts.

    Contexts nest: a call that the inner one has no rule for reaches the outer one. Inside a rule its own context is off.

    Args:
        rules: for each function of torch, what is called instead.
    """

    opened = 0  #: contexts of all rules that are open: rectifiers and pools then keep the order that the network gives them

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules

    def __enter__(self) -> GradientRules:
        """Begin the context."""
        GradientRules.opened += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """End the context."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        GradientRules.opened -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the rule for a function where there is one."""
        rule = self.rules.get(func)
        # A graph that is traced shows the forward pass, which no rule changes, and functions of ours would be opaque in it.
        called = func if rule is None or torch.jit.is_tracing() else rule  # type: ignore[attr-defined, no-untyped-call]
        return called(*args, **(kwargs or {}))
