"""The two encodings that a checkpoint's index is made of: tables of sorted keys, and protocol buffers.

Only what TensorFlow's saver writes is read: uncompressed blocks of LevelDB's table format, and fields of protocol
buffers as varints, fixed numbers and bytes. Nothing in the file is believed: lengths are checked before they are
used, and blocks against their checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

from transferbench.base.errors import InputError

_FOOTER, _TRAILER = 48, 5
_MAGIC = 0xDB4775248B80FB57
_MASK = 0xA282EAD8
_LARGEST_VARINT = 10
_LARGEST_TABLE = 64 << 20
"""Bytes of all keys and values: a key may repeat the one before without taking a byte of the file."""

_LONGEST_KEY = 1 << 12

Fields = dict[int, list[int | bytes]]


class DamagedError(InputError):
    """The file is damaged or is no table."""


def checksum(data: bytes | memoryview) -> int:
    """TensorFlow's masked CRC-32C."""
    crc = int(google_crc32c.value(bytes(data)))
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a table in order. DamagedError for anything that is not whole."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise DamagedError("it is no TensorFlow index (another beginning, or cut off)")
    footer = memoryview(data)[-_FOOTER:-8]
    at = 0
    for _ in range(2):
        # The first handle is of a block of statistics, which the saver leaves empty.
        _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, _ = varint(footer, at)
    before, end, total = None, 0, 0
    for _, handle in _entries(_block(data, offset, size)):
        place, at = varint(memoryview(handle), 0)
        length, _ = varint(memoryview(handle), at)
        if place < end:
            raise DamagedError("its blocks are not in order")
        end = place + length
        for key, value in _entries(_block(data, place, length)):
            total += len(key) + len(value)
            if total > _LARGEST_TABLE:
                raise DamagedError("its names are longer than those of any network")
            if before is not None and key <= before:
                raise DamagedError("its names are not in order")
            before = key
            yield key, value


def _block(data: bytes, offset: int, size: int) -> memoryview:
    if offset + size + _TRAILER > len(data) - _FOOTER:
        raise DamagedError("a block lies outside the file")
    whole = memoryview(data)[offset : offset + size + 1]
    (expected,) = struct.unpack("<I", data[offset + size + 1 : offset + size + _TRAILER])
    if checksum(whole) != expected:
        raise DamagedError("a block's checksum is wrong")
    if whole[size] != 0:
        raise DamagedError("its index is compressed, which TensorFlow's saver does not do")
    return whole[:size]


def _entries(block: memoryview) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise DamagedError("a block is too short")
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise DamagedError("a block is too short")
    at, key = 0, b""
    while at < end:
        if len(key) > _LONGEST_KEY:
            raise DamagedError("a name is longer than that of any variable")
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise DamagedError("an entry is longer than its block")
        key = key[:shared] + bytes(block[at : at + own])
        yield key, bytes(block[at + own : at + own + length])
        at += own + length


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """(number, position after it)."""
    number = 0
    for shift in range(_LARGEST_VARINT):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number, at
    raise DamagedError("a number is cut off")


def fields(message: bytes) -> Fields:
    """The fields of a protocol buffer by number: numbers, or bytes of nested messages and texts."""
    found: Fields = {}
    data, at = memoryview(message), 0
    while at < len(data):
        tag, at = varint(data, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = varint(data, at)
        elif tag & 7 in (1, 5):
            width = 8 if tag & 7 == 1 else 4
            if at + width > len(data):
                raise DamagedError("a number is cut off")
            value, at = int.from_bytes(data[at : at + width], "little"), at + width
        elif tag & 7 == 2:
            length, at = varint(data, at)
            if at + length > len(data):
                raise DamagedError("a text is longer than its message")
            value, at = bytes(data[at : at + length]), at + length
        else:
            raise DamagedError("a field is of an unknown kind")
        found.setdefault(tag >> 3, []).append(value)
    return found


def number(found: Fields, field: int) -> int:
    """A field's number, 0 where it is left out. DamagedError where it is no number."""
    value = found.get(field, [0])[-1]
    if not isinstance(value, int):
        raise DamagedError("a field is of another kind than TensorFlow's")
    return value


def messages(found: Fields, field: int) -> list[bytes]:
    """A field's nested messages. DamagedError where it has a number."""
    values = found.get(field, [])
    parts = [value for value in values if isinstance(value, bytes)]
    if len(parts) != len(values):
        raise DamagedError("a field is of another kind than TensorFlow's")
    return parts
