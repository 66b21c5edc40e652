"""Text from names, cards and files, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters (but line ends and tabs) escaped: `\\x1b` and not the terminal's code."""
    return "".join(
        letter if letter in "\n\t" or not (ord(letter) < 32 or 127 <= ord(letter) < 160) else f"\\x{ord(letter):02x}"
        for letter in text
    )
