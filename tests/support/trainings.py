"""Short trainings of every method, and checkpoints that interrupt them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transferbench.base import registry
from transferbench.methods import Network
from transferbench.models.features import Layers
from transferbench.store.checkpoint_file import CheckpointFile

LAYERS = Layers(("stage1", "stage2", "stage3", "stage4"), "head")


SHORT: dict[str, Any] = {"steps": 8, "batch_size": 32, "seed": 3}


EXTRA: dict[str, dict[str, Any]] = {
    "eat": {"at_iter": 2, "l_eps": "0.1,1.5"},
    "madry": {"k": 2, "eps": "0.1"},
    "renofeation": {"swa_snapshots": 2},
    "apgd-at": {"at_iter": 2, "l_eps": "0.1"},
    **{id: {"at_iter": 2, "l_eps": "0.1,0.4,1.5"} for id in ("sat", "avg", "max", "msd")},
    "ramp": {"at_iter": 2, "l_eps": "0.1,1.5"},
    **{id: {"k": 2, "eps": "0.1"} for id in ("twins", "alf", "aff", "fft-5-trades", "fft-50-trades", "lp-50-trades")},
    **{id: {"at_iter": 2, "l_eps": "0.1"} for id in ("fft-5", "fft-50", "lp-50")},
    "roli": {"k": 2, "eps": "0.1"},
    "fare": {"k": 2, "eps": "0.1", "lr": 1e-3},
    "trades": {"k": 2, "eps": "0.1"},
    "free": {"m": 2, "eps": "0.1"},
    "igam": {
        "match_share": 0.5,
        "teacher_steps": 3,
        "teacher_batch_size": 40,
        "disc_layers": 2,
        "disc_update_steps": 2,
        "gamma": 1.0,
    },
}


def method_ids() -> list[Any]:
    """Every method and preset, as parameters of a test; a preset whose method is there in the same form is slow."""
    alike = ("fft-50", "fft-5-trades", "fft-50-trades", "lp-50", "lp-50-trades")
    ids = registry.entries("methods")
    return [pytest.param(id, marks=pytest.mark.slow) if id in alike else pytest.param(id) for id in ids]


def settings(id: str) -> dict[str, Any]:
    return {**SHORT, **EXTRA.get(id, {})}


def state_of(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class StoppedError(Exception):
    pass


class StopsAfter(CheckpointFile):
    """Saves after every step, and is killed after as many."""

    def __init__(self, path: Path, steps: int) -> None:
        super().__init__(path, every=0)
        self.left = steps

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        self.save(state())
        self.left -= 1
        if self.left == 0:
            raise StoppedError
