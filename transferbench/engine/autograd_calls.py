"""Notices a forward pass that computes gradients itself (optimisation at test time)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def record_autograd_calls() -> Iterator[list[str]]:
    """Within the block calls of torch.autograd.grad and backward (also by Tensor.backward) are added to the list."""
    calls: list[str] = []
    originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def recording(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return originals[name](*args, **kwargs)

        return call

    try:
        for name in originals:
            setattr(torch.autograd, name, recording(name))
        yield calls
    finally:
        for name, function in originals.items():
            setattr(torch.autograd, name, function)
