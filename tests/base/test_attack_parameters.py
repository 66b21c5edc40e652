"""The text of attacks and their parameters."""

from __future__ import annotations

import pytest

from transferbench.base import attack_parameters, registry
from transferbench.base.attack_parameters import parse, text_of
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, content_hash


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("apgd-ce", AttackSpec.of("apgd-ce")),
        (" apgd-t : targets = 3 ", AttackSpec.of("apgd-t", targets=3)),
        (
            "pgd:k=100:loss=cw:kappa=50:restarts=10:random_start=no",
            AttackSpec.of("pgd", k=100, loss="cw", kappa=50.0, restarts=10, random_start=False),
        ),
        ("pgd:step=1/4", AttackSpec.of("pgd", step=0.25)),
        ("apgd-ce:large_radii=False", AttackSpec.of("apgd-ce", large_radii=False)),
    ],
)
def test_a_text_is_an_attack_with_typed_parameters(text: str, spec: AttackSpec) -> None:
    assert parse(text) == spec
    assert parse(text_of(spec)) == spec


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("apgdce", "did you mean 'apgd-ce'"),
        ("apgd-ce:restats=5", "did you mean 'restarts'"),
        ("apgd-ce:restarts", "name=value"),
        ("apgd-ce:restarts=", "name=value"),
        ("apgd-ce:restarts=5:restarts=6", "given twice"),
        ("apgd-ce:restarts=5.5", "not a whole number"),
        ("apgd-ce:restarts=2000000", "more than"),
        ("pgd:step=nan", "not of type"),
        ("pgd:step=2/255", "0.25 is 2/255 at eps 8/255"),
        ("pgd:step=1/0", "not a number"),
        ("pgd:random_start=maybe", "not yes or no"),
        ("", "unknown attack"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse(text)


def test_equal_parameters_have_equal_specifications() -> None:
    whole, real = AttackSpec.of("pgd", kappa=50, loss="cw", k=7), AttackSpec.of("pgd", kappa=50.0, loss="cw", k=7)
    texts = {content_hash(attack_parameters.normalised(spec).as_dict()) for spec in (whole, real)}
    assert len(texts) == 1
    assert content_hash(whole.as_dict()) != content_hash(real.as_dict()), "without it"


def test_every_attack_states_its_parameters() -> None:
    for id, entry in registry.entries("attacks").items():
        known = registry.parameters(entry)
        assert all(isinstance(value, str | int | float) for value in known.values())
        assert attack_parameters.complete(AttackSpec.of(id)) == known
