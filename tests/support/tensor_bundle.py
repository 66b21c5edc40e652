"""Writes a checkpoint in the format of TensorFlow's saver: an index of sorted keys, and the variables' bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transferbench.models.weights.tf1.records import checksum

_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def block(entries: Mapping[bytes, bytes]) -> bytes:
    """A block whose keys share what they have in common with the one before."""
    data, last = b"", b""
    for key, value in entries.items():
        shared = next(
            (at for at, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last))
        )
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return data + struct.pack("<II", 0, 1)


def write(prefix: Path, variables: Mapping[str, NDArray[Any]], shape: tuple[int, ...] | None = None) -> None:
    """PREFIX.index and PREFIX.data-00000-of-00001; with another `shape` than the variables', and its size."""
    header = field(1, 1) + field(3, field(1, 1))
    entries, data = {b"": header}, b""
    for name, value in sorted(variables.items()):
        content = np.ascontiguousarray(value).tobytes()
        sizes = b"".join(field(2, field(1, size)) for size in (value.shape if shape is None else shape))
        length = len(content) if shape is None else value.itemsize * math.prod(shape)
        crc = varint(6 << 3 | 5) + struct.pack("<I", checksum(content))
        place = field(4, len(data)) + field(5, length) + crc
        entries[name.encode()] = field(1, _TYPES[value.dtype.name]) + field(2, sizes) + place
        data += content
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))


def table(entries: Mapping[bytes, bytes]) -> bytes:
    """A whole table, its keys in the order given."""
    whole, handles = b"", {}
    keys = list(entries)
    for start in range(0, len(keys), 16):
        part = {key: entries[key] for key in keys[start : start + 16]}
        content = block(part)
        handles[keys[min(start + 15, len(keys) - 1)]] = varint(len(whole)) + varint(len(content))
        whole += content + b"\0" + struct.pack("<I", checksum(content + b"\0"))
    places = []
    for content in (block({}), block(handles)):
        places.append(varint(len(whole)) + varint(len(content)))
        whole += content + b"\0" + struct.pack("<I", checksum(content + b"\0"))
    footer = (places[0] + places[1]).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    return whole + footer
