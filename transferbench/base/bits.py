"""Per-example verdict bits as hex text, and as whole numbers: sets of examples are joined and counted in one operation.

The number of n bits has the first example as its highest bit.
"""

from __future__ import annotations

from collections.abc import Sequence

from transferbench.base.errors import InputError


def number_of(bits: Sequence[bool]) -> int:
    """The bits as a whole number."""
    return int("".join("1" if bit else "0" for bit in bits) or "0", 2)


def pack_number(number: int, n: int) -> str:
    """The number of n bits as hex, first example first, most significant bit first."""
    digits = -(-n // 4)
    return f"{number << (-n % 4):0{digits}x}" if digits else ""


def pack_bits(bits: Sequence[bool]) -> str:
    """Bits as hex: the per-example part of a record."""
    return pack_number(number_of(bits), len(bits))


def unpack_number(text: str, n: int) -> int:
    """The inverse of `pack_number` for n examples. InputError when the text has another length."""
    if len(text) != -(-n // 4):
        raise InputError(f"{len(text)} hex digits cannot hold the verdict bits of {n} examples")
    return int(text or "0", 16) >> (-n % 4)


def unpack_bits(text: str, n: int) -> list[bool]:
    """The inverse of `pack_bits` for n examples. InputError when the text has another length."""
    number = unpack_number(text, n)
    return [digit == "1" for digit in f"{number:0{n}b}"] if n else []
