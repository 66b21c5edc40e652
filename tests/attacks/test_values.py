"""Values that mean nothing are refused when an attack is made, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from transferbench import attacks
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel


@pytest.mark.parametrize(
    ("id", "norm", "params"),
    [
        ("pgd", "Linf", {"step": float("nan")}),
        ("pgd", "Linf", {"step": -1.0}),
        ("pgd", "Linf", {"k": 10**20}),
        ("pgd", "Linf", {"restarts": 3, "random_start": False}),
        ("pgd", "Linf", {"loss": "cw", "kappa": -1.0}),
        ("pgd", "Linf", {"kappa": 50.0}),
        ("apgd-ce", "L2", {"large_radii": False}),
        ("l1-screen", "L1", {"n_iter": 0}),
    ],
)
def test_a_value_or_option_without_effect_is_refused(id: str, norm: str, params: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        attacks.build(AttackSpec.of(id, **params), ThreatModel.parse(norm, "0.1"), 10)


@pytest.mark.parametrize("id", ["pretrained-neuron", "random-sign", "source-pgd"])
def test_no_chain_holds_an_attack_on_the_source_alone(id: str) -> None:
    threat = ThreatModel.parse("Linf", "0.1")
    with pytest.raises(InputError, match="attacks the source alone"):
        attacks.build_chain(Chain("Linf", threat, (AttackSpec.of("apgd-ce"), AttackSpec.of(id))), 10)
