"""The state of the process around an evaluation: what a caller has switched on changes nothing, and is restored."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from transferbench.base.full_precision import full_precision


@contextmanager
def plain_process() -> Iterator[None]:
    """Within the block torch has plain settings: no autocast, no inference mode, float32, no TF32, tensors on the CPU.

    Afterwards the caller's settings, the global random states and the tracer are as before: the reference
    implementation seeds globally and calls sys.settrace(None).
    """
    tracer, python, numpy = sys.gettrace(), random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    dtype, place = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision())
        try:
            torch.set_default_dtype(torch.float32)
            if place.type != "cpu":
                torch.set_default_device("cpu")
            yield
        finally:
            torch.set_default_dtype(dtype)
            if place.type != "cpu":
                torch.set_default_device(place)
            sys.settrace(tracer)
            random.setstate(python)
            np.random.set_state(numpy)
