"""What an attack says that it reads of the source is all that it asks for: else it fails in the middle of a run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from support.nets import Small
from torch import Tensor

from transferbench import attacks
from transferbench.attacks import Keys, source_attack
from transferbench.attacks.source_attack import Change
from transferbench.base import keyed_random, registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.source_model import SourceModel
from transferbench.models.features import find_layers

LINF = ThreatModel.parse("Linf", "0.1")
SHORT = {"n_iter": 1, "k": 1, "copies": 1, "rounds": 1, "steps": 1, "batch": 2, "queries": 3}


def built() -> dict[str, tuple[AttackSpec, object]]:
    found = {}
    for id in registry.entries("attacks"):
        known = registry.parameters(registry.entries("attacks")[id])
        short = {name: value for name, value in SHORT.items() if name in known}
        for more in [{"mode": mode} for mode in ("base", "fuse", "ugs")] if id == "l4a" else [{}]:
            spec = AttackSpec.of(id, **short, **more)
            try:
                attack = attacks.build(spec, LINF, 10)
            except InputError:
                continue
            if attack.sees == "source":
                found[" ".join([id, *more.values()])] = spec, attack
    return found


ATTACKS = built()


class Recording:
    """A source that notes which layers it was asked for."""

    def __init__(self, source: SourceModel) -> None:
        self.source, self.asked = source, set[str]()

    def __call__(self, x: Tensor, *names: str, changes: Mapping[str, Change] = {}) -> dict[str, Tensor]:
        self.asked |= set(self.source.layers(*names, *changes))
        return self.source(x, *names, changes=changes)

    def layers(self, *names: str) -> tuple[str, ...]:
        return self.source.layers(*names)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_asks_for_what_it_reads(name: str, small: Small) -> None:
    attack = ATTACKS[name][1]
    source = Recording(SourceModel(small.model, find_layers(small.model)))
    x, keys = small.x[:4], keyed_random.row_keys(1, small.ids[:4])
    if attack.scope == "universal":
        state = attack.start(tuple(x.shape[1:]), 5)
        attack.loss(state["delta"], x, source, state)
    elif attack.scope == "query":
        state = attack.start(x, small.y[:4], source, Keys(keys, torch.zeros_like(keys)), x)
        for _ in range(2):
            attack.learn(state, attack.propose(state, source), torch.zeros(4))
    else:
        source_attack.run_to_end(attack, source, attack.start(x, source, Keys(keys, torch.zeros_like(keys))))
    assert source.asked <= set(source.layers(*attack.reads))
