"""The architectures of the installed robustbench, which is imported here only, on first use and without warnings.

PyPI's robustbench imports `autoattack`, which is not on PyPI; `pyautoattack` is the same code under another name.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from transferbench.models.catalogue.robustbench import RobustBenchEntry
from transferbench.models.networks.normalised import Normalised


def model_dicts() -> Any:
    """{data set: {threat: {id: {"model": constructor, ...}}}} with robustbench's own enums as keys."""
    if "autoattack" not in sys.modules and find_spec("autoattack") is None:
        for name in ("", ".state"):
            sys.modules[f"autoattack{name}"] = importlib.import_module(f"pyautoattack{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("robustbench.model_zoo.models").model_dicts


def timm_name(dataset: str, threat: str, id: str) -> str:
    """The name under which robustbench registers a model with timm (not every model is)."""
    return f"{id.lower().replace('-', '_')}_{dataset.lower()}_{threat.lower()}"


def construct(entry: RobustBenchEntry) -> nn.Module:
    """The architecture with random weights, on the CPU.

    Nothing is downloaded: constructors of robustbench that would download (timm's and torchvision's weights) are
    replaced by the same architecture without weights. No GPU is needed: some constructors move constants to one, and
    their forward passes move them to the images' device in any case.
    """
    zoo = model_dicts()
    if entry.elsewhere == "timm":
        import timm

        classes = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[entry.dataset]
        name = timm_name(entry.dataset, entry.threat, entry.id)
        model: nn.Module = timm.create_model(name, num_classes=classes, pretrained=False)
        return model
    if entry.elsewhere == "torchvision":
        from torchvision.models import resnet50

        return Normalised(resnet50())
    models = {data.value: {threat.value: ids for threat, ids in threats.items()} for data, threats in zoo.items()}
    # Some constructors print what they count.
    with warnings.catch_warnings(), _OnCpu(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        built: nn.Module = models[entry.dataset][entry.threat][entry.id]["model"]()
        return built


class _OnCpu(TorchFunctionMode):
    """Within the block, `tensor.cuda()` is the tensor itself."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func is torch.Tensor.cuda else func(*args, **(kwargs or {}))
