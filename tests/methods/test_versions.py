"""A change that alters results must raise the version of its attack or method: stored work is found by it.

`pinned.json` holds what each version computed on a problem that any machine solves alike but for its last bits. After
raising a VERSION, or adding a method or an attack, `make pins` writes the new numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainings import EXTRA
from torch import Tensor, nn

from transferbench import attacks, data, methods
from transferbench.attacks import lockstep
from transferbench.base import attack_parameters, registry
from transferbench.base.checkpoint import NO_CHECKPOINT
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.data import Dataset
from transferbench.engine.crafting import Crafting
from transferbench.engine.judge import Judge
from transferbench.engine.memory import Rows
from transferbench.engine.querying import Querying
from transferbench.engine.source_model import SourceModel
from transferbench.engine.universal import UniversalCrafting
from transferbench.engine.verdicts import Examples
from transferbench.methods import Network
from transferbench.models import networks
from transferbench.training import loop

PINNED = Path(__file__).with_name("pinned.json")
THREATS = (("Linf", "0.05"), ("L2", "0.4"), ("L1", "1.5"))
SHORT: dict[str, Any] = {"steps": 6, "batch_size": 32, "seed": 3, "lr": "1e-3"}


class Curved(nn.Module):
    """A network of sines with weights that are written down, not drawn."""

    def __init__(self) -> None:
        super().__init__()
        grid = torch.arange(64 * 12, dtype=torch.float64).view(12, 64)
        self.first = torch.sin(0.37 * grid + 0.1 * grid.square() % 7).float()
        self.second = torch.cos(0.71 * torch.arange(120, dtype=torch.float64).view(10, 12)).float()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.first.T) @ self.second.T


def attack_numbers(id: str) -> dict[str, list[float]]:
    """By norm: the mean and the mean square of every row's end point and strongest point after a short try."""
    digits, network, found = data.load("digits", "test").first(4), Curved(), {}
    labels = network(digits.pixels).argmax(1)
    for norm, eps in THREATS:
        threat = ThreatModel.parse(norm, eps)
        try:
            attack = attacks.build(AttackSpec.of(id), threat, 10)
        except InputError:
            continue
        if attack.sees == "source":
            found[norm] = source_numbers(id, threat, digits, labels)
            continue
        if attack.passes > 101:
            attack = attacks.build(AttackSpec.of(id, n_iter=20), threat, 10)
        noise = lockstep.try_keys(0, norm, eps, 0, digits.ids)
        done = lockstep.maximise(attack, network, digits.pixels, labels, noise, network(digits.pixels))
        points = torch.cat([done.last, done.best]).double().flatten(1)
        found[norm] = [round(float(value), 5) for value in torch.cat([points.mean(1), points.square().mean(1)])]
    return found


def source_numbers(id: str, threat: ThreatModel, digits: Dataset, labels: Tensor) -> list[float]:
    """The mean and the mean square of every point, or delta, of a short try with the source alone, on a network of
    written-down weights; of query attacks also the numbers of queries."""
    made = written()
    source = SourceModel(made.model.eval(), made.layers)
    known = attack_parameters.defaults(id)
    short = {"n_iter": 4, "k": 4, "steps": 4, "neurons": 2, "copies": 2, "batch": 4, "queries": 12}
    given: dict[str, Any] = {name: value for name, value in short.items() if name in known}
    # One delta sees no images, or many of them in its batch.
    given |= {"batch": 1} if id == "fff" else {}
    attack = attacks.build(AttackSpec.of(id, **given), threat, 10)
    shard = Dataset("digits", "test", digits.pixels, labels, digits.ids, tuple("0123456789"))
    name, queries = (0, threat.norm, threat.eps.text), []
    if attack.scope == "universal":
        made_of = UniversalCrafting(source, attack, (1, 8, 8), digits.pixels, name, "cpu", NO_CHECKPOINT)
        points = made_of.run()
    elif attack.scope == "query":
        asked = Querying(Judge(Curved().eval()), source, attack, threat, 0, Rows(16, 4), NO_CHECKPOINT)
        done = asked.run(Examples(digits.pixels, labels, digits.ids), digits.pixels)
        points, queries = done.points, [float(number) for number in done.queries]
    else:
        points = Crafting(source, attack, threat, shard, 0, Rows(16, 4), NO_CHECKPOINT).run().flatten(0, 1)
    flat = points.double().flatten(1)
    return [*queries, *(round(float(value), 5) for value in torch.cat([flat.mean(1), flat.square().mean(1)]))]


def method_numbers(id: str) -> dict[str, list[float]]:
    """Of six steps on digits from a network of written-down weights: the loss at both ends, and the weights' norm."""
    given = {**EXTRA.get(id, {}), **SHORT}
    result = loop.fit(
        methods.build(id, given),
        written(),
        lambda: written(),
        data.load("digits", "train"),
        data.load("digits", "val"),
    )
    losses = [sum(v for k, v in row.items() if k not in ("step", "phase", "lr")) for row in result.log]
    size = sum(float(parameter.double().square().sum()) for parameter in result.network.model.parameters())
    return {"losses": [round(loss, 4) for loss in losses], "squares": [round(size, 3)]}


def written() -> Network:
    """The small network with weights from a formula, scaled as an initialisation would."""
    model, layers = networks.build("small-resnet", 10)[:2]
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            count = parameter.numel()
            if parameter.dim() > 1:
                wave = torch.sin(0.618 * torch.arange(count, dtype=torch.float64) * (number + 1))
                parameter.copy_((wave.view_as(parameter) / (count / len(parameter)) ** 0.5).float())
    return Network(model, layers)


def numbers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for id, entry in registry.entries("attacks").items():
        found[f"attack {id}"] = {"version": entry.load().VERSION, **attack_numbers(id)}
    for id, entry in registry.entries("methods").items():
        found[f"method {id}"] = {"version": entry.load().VERSION, **method_numbers(id)}
    return found


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return numbers()


def test_every_version_computes_what_it_did(now: dict[str, Any]) -> None:
    pinned = json.loads(PINNED.read_text())
    # What is new need not be pinned to pass: a method or an attack is one file.
    assert pinned.keys() <= now.keys()
    for name, before in pinned.items():
        assert before["version"] == now[name]["version"], f"{name}: write pinned.json anew"
        for part in before.keys() - {"version"}:
            # Signs of gradients amplify a processor's last bits within a few steps of adversarial training.
            # RoLI's fourth loss is 7.5 % apart on two kinds of one maker's.
            rel, absolute = (0.1, 0.1) if part == "losses" else (0.01, 5e-4)
            assert now[name][part] == pytest.approx(before[part], rel=rel, abs=absolute), (
                f"{name}: its numbers have changed ({part}): raise its VERSION, then write pinned.json anew"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    PINNED.write_text(json.dumps(numbers(), indent=1) + "\n")
