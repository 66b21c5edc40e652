from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferbench.base.bits import pack_bits, unpack_bits
from transferbench.base.errors import InputError
from transferbench.base.specifications import Chain, Epsilon, ThreatModel


@pytest.mark.parametrize(
    ("given_", "text", "value"),
    [
        ("8/255", "8/255", Fraction(8, 255)),
        ("0.5", "0.5", Fraction(1, 2)),
        (0.5, "0.5", Fraction(1, 2)),
        (12, "12", Fraction(12)),
        ("1e-3", "1e-3", Fraction(1, 1000)),
        (0.1, "0.1", Fraction(1, 10)),
    ],
)
def test_epsilon_keeps_its_text_and_exact_value(given_: str | float, text: str, value: Fraction) -> None:
    eps = Epsilon.parse(given_)
    assert (eps.text, eps.value) == (text, value)


@pytest.mark.parametrize("bad", ["", "x", "1/0", "8/", "nan", "inf", "-1", "0", "1/2/3", True, float("nan")])
def test_a_bad_epsilon_is_refused_by_name(bad: str | float) -> None:
    with pytest.raises(InputError, match="eps"):
        Epsilon.parse(bad)


def test_linf_in_pixels_of_255_is_refused() -> None:
    with pytest.raises(InputError, match="8/255 and not 8"):
        ThreatModel.parse("Linf", 8)
    assert float(ThreatModel.parse("L1", 12).eps) == 12


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_bits_survive_packing(bits: list[bool]) -> None:
    assert unpack_bits(pack_bits(bits), len(bits)) == bits


def test_a_chain_survives_its_dictionary() -> None:
    given_ = {
        "name": "Linf",
        "norm": "Linf",
        "eps": "8/255",
        "attacks": [{"id": "apgd-ce", "n_iter": 20}, {"id": "apgd-t"}],
    }
    assert Chain.from_dict(given_).as_dict() == given_
