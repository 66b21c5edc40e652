"""Per-example verdict bits as hex text."""

from __future__ import annotations

from transferbench.base.errors import InputError


def pack_bits(bits: list[bool]) -> str:
    """Bits as hex, first example first, most significant bit first: the per-example part of a record."""
    padded = bits + [False] * (-len(bits) % 4)
    return "".join(
        f"{sum(bit << (3 - place) for place, bit in enumerate(padded[at : at + 4])):x}"
        for at in range(0, len(padded), 4)
    )


def unpack_bits(text: str, n: int) -> list[bool]:
    """The inverse of `pack_bits` for n examples. InputError when the text has another length."""
    if len(text) != -(-n // 4):
        raise InputError(f"{len(text)} hex digits cannot hold the verdict bits of {n} examples")
    return [bool(int(text[at // 4], 16) >> (3 - at % 4) & 1) for at in range(n)]
