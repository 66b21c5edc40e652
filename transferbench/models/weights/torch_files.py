"""Reads the two containers that torch.save writes: a zip archive, or before torch 1.6 a sequence of pickles.

Nothing is allocated that the file does not hold: sizes are compared with the file's before memory is asked for.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.models.weights import file_kinds
from transferbench.models.weights.pickles import Storage, StoredTensor, TensorUnpickler

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file from before torch 1.6."""
_MOST_REPEATED = 1 << 20
"""Elements that a tensor may have beyond its storage's: views that repeat their elements are small in real files."""
_MOST_COMPRESSION = 16
"""How many times a compressed archive may be larger unpacked. torch itself does not compress."""

ReadStorage = Callable[[Storage], Tensor]


@dataclass(frozen=True)
class TorchFile:
    """What a file holds, with descriptions in place of tensors, and a context that gives access to its storages."""

    content: Any
    open_storages: Callable[[], AbstractContextManager[ReadStorage]]

    def tensors(self, described: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """The described tensors, as views of their storages. ValueError for one that reaches beyond its storage."""
        storages: dict[str, Tensor] = {}
        with self.open_storages() as read_storage:
            for stored in described.values():
                if stored.storage.key not in storages:
                    storages[stored.storage.key] = read_storage(stored.storage)
        return {name: _view(storages[stored.storage.key], stored) for name, stored in described.items()}


def _view(whole: Tensor, stored: StoredTensor) -> Tensor:
    """The tensor as a view of its storage's elements."""
    if len(stored.shape) != len(stored.strides) or min((0, stored.offset, *stored.shape, *stored.strides)) < 0:
        raise ValueError("a tensor whose shape, strides and offset make no sense")
    if whole.dtype != stored.dtype:
        whole = whole.view(stored.dtype)
    count = math.prod(stored.shape)
    last = sum((size - 1) * stride for size, stride in zip(stored.shape, stored.strides, strict=True))
    if count and stored.offset + last >= len(whole):
        raise ValueError("a tensor beyond its storage")
    if count > len(whole) + _MOST_REPEATED:
        raise ValueError("a tensor of many more elements than are stored")
    return whole.as_strided(stored.shape, stored.strides, stored.offset)


def read_zip(path: Path) -> TorchFile:
    """The file as torch writes it since 1.6. InputError for another kind of archive, others for a damaged one."""
    size = path.stat().st_size
    with _archive(path) as archive:
        names = archive.namelist()
        if sum(member.file_size for member in archive.infolist()) > _MOST_COMPRESSION * size:
            raise InputError("an archive that unpacks to more than 16 times its size")
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) > 1 or len({*names}) < len(names):
            # Two readers of one archive would take two networks.
            raise InputError("an archive that holds the same file twice, or two files of torch in one")
        pickle_name = pickles[0] if pickles else None
        folder = "" if pickle_name is None else pickle_name.removesuffix("data.pkl")
        if pickle_name is None or f"{folder}constants.pkl" in names:
            raise InputError(f"this is {file_kinds.archive_kind(names)}")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise InputError(
                "written by a machine with another order of bytes: load it there and save it as safetensors"
            )
        with archive.open(pickle_name) as stream:
            content = TensorUnpickler(stream).load()

    @contextmanager
    def open_storages() -> Iterator[ReadStorage]:
        with _archive(path) as archive:

            def read_storage(storage: Storage) -> Tensor:
                member = archive.getinfo(f"{folder}data/{storage.key}")
                with archive.open(member) as stream:
                    return _read_exactly(stream, storage, member.file_size)

            yield read_storage

    return TorchFile(content, open_storages)


def _archive(path: Path) -> zipfile.ZipFile:
    """The archive, opened; without its checksums where torch wrote none (set_crc32_options(False): all are 0)."""
    archive = zipfile.ZipFile(path)
    if not any(member.CRC for member in archive.infolist()):
        for member in archive.infolist():
            member.CRC = None  # type: ignore[assignment]  # zipfile then compares none
    return archive


def read_legacy(path: Path) -> TorchFile:
    """The file as torch wrote it before 1.6: magic number, version, machine, content, storages' keys, storages."""
    size = path.stat().st_size
    storages: dict[str, Storage] = {}
    with path.open("rb") as file:
        stream = BoundedStream(file, size)
        if TensorUnpickler(stream).load() != _MAGIC:
            raise InputError("this is a pickle that torch.save did not write: save the state dict with torch.save")
        TensorUnpickler(stream).load()
        machine = TensorUnpickler(stream).load()
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise InputError(
                "written by a machine with another order of bytes: load it there and save it as safetensors"
            )
        unpickler = TensorUnpickler(stream)
        content = unpickler.load()
        storages = unpickler.storages
        offsets: dict[str, int] = {}
        for key in TensorUnpickler(stream).load():
            offsets[key] = file.tell() + 8
            (count,) = struct.unpack("<q", stream.read(8))
            if count != storages[key].count:
                raise ValueError("a storage of another size than its tensors say")
            end = offsets[key] + count * _item_size(storages[key])
            if not offsets[key] <= end <= size:
                raise ValueError("the file ends within a storage")
            file.seek(end)

    @contextmanager
    def open_storages() -> Iterator[ReadStorage]:
        with path.open("rb") as file:

            def read_storage(storage: Storage) -> Tensor:
                file.seek(offsets[storage.key])
                return _read_exactly(file, storage, storage.count * _item_size(storage))

            yield read_storage

    return TorchFile(content, open_storages)


class BoundedStream:
    """A file whose `read` never allocates more than the file has left."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, count: int = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if count < 0 else min(count, left))


def _item_size(storage: Storage) -> int:
    return 1 if storage.dtype is None else storage.dtype.itemsize


def _read_exactly(stream: IO[bytes], storage: Storage, available: int) -> Tensor:
    """The storage's elements [count]. ValueError where the file has another number of bytes for them."""
    size = storage.count * _item_size(storage)
    if size != available:
        raise ValueError(f"a storage of {size} bytes, of which the file has {available}")
    dtype = storage.dtype or torch.uint8
    content = bytearray(stream.read(size))
    if len(content) != size:
        raise ValueError("the file ends within a storage")
    # frombuffer refuses an empty buffer.
    return torch.frombuffer(content, dtype=dtype) if size else torch.empty(0, dtype=dtype)
