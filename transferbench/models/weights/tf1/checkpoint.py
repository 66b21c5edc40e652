"""A checkpoint of TensorFlow 1's saver: `NAME.index` and `NAME.data-00000-of-00001`.

The index names every variable with its type, shape and place in the data file; both have checksums, which are checked.
Checkpoints of before TensorFlow 1.0, single files, are not read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transferbench.base.errors import InputError
from transferbench.models.weights.tf1.records import DamagedError, Fields, checksum, fields, messages, number, table

_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8")}
"""The types that the variables of a network, its optimiser and its counters have, by TensorFlow's numbers."""
_MOST_DIMENSIONS, _LARGEST_SIDE = 8, 1 << 31
_LARGEST_INDEX = 64 << 20
_LATEST = re.compile(r'^model_checkpoint_path:\s*"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Variable:
    """A variable's type (a number of TensorFlow's), shape, and place in a data file, in bytes."""

    type: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


class TensorFlowCheckpoint:
    """An open checkpoint: `variables` by name. InputError where it cannot be read, or is damaged."""

    def __init__(self, path: Path) -> None:
        self.prefix = find(path)
        index = self.prefix.with_name(f"{self.prefix.name}.index")
        try:
            if index.stat().st_size > _LARGEST_INDEX:
                raise DamagedError("it is larger than the index of any network")
            entries = dict(table(index.read_bytes()))
            header = fields(entries.pop(b"", b""))
            self.shards = number(header, 1)
            if number(header, 2) != 0:
                raise DamagedError("its numbers are big-endian")
            self.variables = {name.decode("utf-8"): _variable(fields(entry)) for name, entry in entries.items()}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"checkpoint {index}: cannot be read ({error})") from None
        except DamagedError as error:
            raise InputError(f"checkpoint {index}: {error}") from None

    def read(self, name: str) -> NDArray[Any]:
        """A variable's value. InputError for an unknown name, an unknown type, or data that differ from the index."""
        where = f"checkpoint {self.prefix}: variable {name}"
        if name not in self.variables:
            raise InputError(f"{where} is not there")
        variable = self.variables[name]
        dtype = _TYPES.get(variable.type)
        if dtype is None:
            raise InputError(f"{where} is of TensorFlow's type {variable.type}, and not of floats or whole numbers")
        if len(variable.shape) > _MOST_DIMENSIONS or any(size > _LARGEST_SIDE for size in variable.shape):
            raise InputError(f"{where}: its shape is that of no variable: the index is damaged")
        if variable.size != dtype.itemsize * math.prod(variable.shape) or variable.shard >= self.shards:
            raise InputError(f"{where}: its size is not that of its shape {variable.shape}: the index is damaged")
        file = self.prefix.with_name(f"{self.prefix.name}.data-{variable.shard:05d}-of-{self.shards:05d}")
        try:
            if variable.offset + variable.size > file.stat().st_size:
                raise InputError(f"{where}: {file.name} is too short: the download is cut off")
            with file.open("rb") as stream:
                stream.seek(variable.offset)
                data = stream.read(variable.size)
        except (OSError, OverflowError, ValueError) as error:
            raise InputError(f"{where}: {file} cannot be read ({error})") from None
        if len(data) != variable.size or checksum(data) != variable.crc:
            raise InputError(f"{where}: its checksum is wrong: {file.name} is damaged, or another checkpoint's")
        return np.frombuffer(data, dtype).reshape(variable.shape)


def _variable(entry: Fields) -> Variable:
    dimensions = [fields(dimension) for shape in messages(entry, 2) for dimension in messages(fields(shape), 2)]
    if 7 in entry:
        raise DamagedError("a variable is stored in slices")
    return Variable(
        number(entry, 1),
        tuple(number(dimension, 1) for dimension in dimensions),
        number(entry, 3),
        number(entry, 4),
        number(entry, 5),
        number(entry, 6),
    )


def find(path: Path) -> Path:
    """The common beginning of a checkpoint's file names: of a folder its latest, of a file of it, or the path itself.

    InputError where there is none.
    """
    if path.is_dir():
        path = _latest(path)
    for suffix in (r"\.index$", r"\.meta$", r"\.data-\d+-of-\d+$"):
        path = path.with_name(re.sub(suffix, "", path.name))
    if path.with_name(f"{path.name}.index").is_file():
        return path
    if path.is_file():
        raise InputError(
            f"checkpoint {path}: there is no {path.name}.index beside it: it is no checkpoint of TensorFlow, or one of "
            "before TensorFlow 1.0, which is not read (restore it and save it again with tf.train.Saver)"
        )
    raise InputError(f"checkpoint {path}: there is no {path.name}.index; give the folder, or the name before .index")


def _latest(folder: Path) -> Path:
    """What the folder's file `checkpoint` names, else its only index."""
    try:
        match = _LATEST.search((folder / "checkpoint").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        match = None
    if match is not None:
        # The text is anybody's, and often a path of another machine: its last part counts.
        return folder / re.split(r"[/\\]", match[1])[-1]
    found = sorted(folder.glob("*.index"))
    if len(found) != 1:
        if not found:
            raise InputError(f"checkpoint {folder}: there is no .index file of a TensorFlow checkpoint")
        names = ", ".join(file.stem for file in found)
        raise InputError(f"checkpoint {folder}: no file `checkpoint` names the latest; name one of: {names}")
    return found[0]
