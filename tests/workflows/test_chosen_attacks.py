"""The attacks that a user names, and AutoAttack's versions against AutoAttack itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from transferbench import suites
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Norm, ThreatModel
from transferbench.engine import reference
from transferbench.suites import Attack
from transferbench.workflows import chosen_attacks

LINF, BOX = suites.load("eval").protocol.source_only


def test_attacks_are_sorted_by_what_the_attacker_holds() -> None:
    chosen = chosen_attacks.parse(["apgd-ce:restarts=2", "source-pgd:restarts=4"], ["Linf"], "transferbench")
    assert chosen.on_victim == (AttackSpec.of("apgd-ce", restarts=2),)
    protocol = chosen.protocol(LINF)
    assert [part.spec() for part in protocol.parts] == [
        AttackSpec.of("source-pgd", k=20, restarts=4),
        AttackSpec.of("random-sign", draws=4),
    ]
    assert chosen_attacks.parse(["apgd-ce"], ["Linf"], "transferbench").protocol(LINF) == LINF


@pytest.mark.parametrize(
    ("texts", "threats", "complaint"),
    [
        (["apgd-ce", "apgd-ce:restarts=2"], ["Linf"], "named twice"),
        (["fgsm"], ["L2"], "defined in Linf only"),
        (["pgd", "apgd-ce"], ["L2", "L1"], "defined in Linf and L2 only"),
        (["source-pgd"], ["renofeation"], "defined in Linf only"),
        (["pgd:k=0"], ["Linf"], "at least 1"),
        (["rand"], ["Linf"], "--backend autoattack"),
    ],
)
def test_what_cannot_be_run_is_named(texts: list[str], threats: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        chosen_attacks.parse(texts, threats, "transferbench")


def test_a_control_with_too_few_draws_is_no_control() -> None:
    chosen = chosen_attacks.parse(["pretrained-neuron:neurons=4", "random-sign:draws=2"], ["Linf"], "transferbench")
    with pytest.raises(InputError, match="draws=4"):
        chosen.protocol(LINF)


def test_renofeations_box_is_for_attackers_who_hold_a_source() -> None:
    chosen = chosen_attacks.parse(["pretrained-neuron:neurons=2:neuron=3:m=500"], ["renofeation"], "transferbench")
    assert dict(chosen.protocol(BOX).attack.spec().params) == {"neuron": 3, "neurons": 2, "m": 500.0, "n_iter": 40}
    one = chosen_attacks.parse(["pretrained-neuron:m=500"], ["renofeation"], "transferbench").protocol(BOX)
    assert dict(one.attack.spec().params)["neurons"] == 1, "what is left open is that measurement's own"
    with pytest.raises(InputError, match="in a norm"):
        chosen_attacks.parse([], ["renofeation"], "autoattack")
    chosen_attacks.check_source(chosen, ["renofeation"], has_source=True)
    with pytest.raises(InputError, match="--source"):
        chosen_attacks.check_source(chosen, ["renofeation"], has_source=False)
    with pytest.raises(InputError, match="Linf and renofeation"):
        chosen_attacks.check_source(chosen_attacks.ChosenAttacks(), ["L2"], has_source=True)


def test_a_suite_takes_the_same_text() -> None:
    assert Attack.model_validate("pgd:k=7:loss=cw") == Attack.of(AttackSpec.of("pgd", k=7, loss="cw"))
    with pytest.raises(ValueError, match="did you mean 'targets'"):
        Attack.model_validate({"id": "apgd-t", "target": 3})


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_a_version_sets_what_autoattack_sets(version: Any, norm: Norm) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    official: Any = AutoAttack(network, norm=norm, eps=0.5, version=version, device=torch.device("cpu"))
    threat, specs = ThreatModel.parse(norm, "0.5"), reference.parse([version])
    assert [spec.id for spec in specs] == official.attacks_to_run
    for spec in specs:
        ours: Any = AutoAttack(network, norm=norm, eps=0.5, version="custom", attacks=[spec.id])
        reference.configure(ours, spec, threat, reference.tries(spec, threat, 10))
        if spec.id in ("apgd-ce", "apgd-dlr"):
            parts = [(ours.apgd, official.apgd, ("n_restarts", "eot_iter", "use_largereps"))]
        elif spec.id == "apgd-t":
            names = ("n_restarts", "n_target_classes", "eot_iter", "use_largereps")
            parts = [(ours.apgd_targeted, official.apgd_targeted, names)]
        elif spec.id == "square":
            parts = [(ours.square, official.square, ("n_queries", "n_restarts", "p_init"))]
        elif spec.id == "fab":
            parts = [(ours.fab, official.fab, ("n_restarts", "n_iter"))]
        else:
            # Its number of restarts is set to 1 when it runs.
            parts = [(ours.fab, official.fab, ("n_target_classes", "n_iter"))]
        for mine, theirs, names in parts:
            for name in names:
                assert getattr(mine, name) == getattr(theirs, name), (spec.id, name)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["standard", "apgd-ce"], "give one alone"),
        (["pgd"], "unknown attack 'pgd'"),
        (["apgd-ce:n_iter=50"], "100 iterations only"),
        (["square:queries=0"], "at least 1"),
        (["apgd-ce", "apgd-ce"], "named twice"),
        (["plus:eot=2"], "without parameters"),
    ],
)
def test_what_the_reference_does_not_have(texts: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        reference.parse(texts)
