"""A file of weights and the state dicts in it. Every failure is an InputError, one line that says what the file is."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models.weights import entries, file_kinds, torch_files
from transferbench.models.weights.pickles import UnreadableTensor
from transferbench.models.weights.torch_files import TorchFile

StateDict = dict[str, Tensor]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLE = b"\x80"
_MOST_INDEX = 64 << 20


@dataclass(frozen=True)
class WeightsFile:
    """`entries`: the state dicts in the file by their place (`state_dict`, `model/ema`; `""` is the whole file)."""

    path: Path
    entries: Mapping[str, Mapping[str, Any]]
    torch_file: TorchFile | None = None
    parts: tuple[Path, ...] = ()
    """The files that an index names."""

    @property
    def content(self) -> Any:
        """What a torch file holds, with descriptions in place of tensors; None for safetensors."""
        return None if self.torch_file is None else self.torch_file.content

    @property
    def sha256(self) -> str:
        """64 hex digits: the file's, or of an index with its parts."""
        return sha256_of_all((self.path, *self.parts))

    def entry_of(self, key: str) -> str:
        """The place of the entry `key`, or of the whole file where it has no such entry. InputError without either."""
        entry = key if key in self.entries else ""
        with reading(self.path):
            if entry not in self.entries:
                raise InputError(f"no dictionary of tensors at {key!r}; there is one at {', '.join(self.entries)}")
        return entry

    def state(self, entry: str) -> StateDict:
        """The tensors of an entry, read from the file. InputError names one of a kind that is not read."""
        described = self.entries[entry]
        with reading(self.path):
            for name, tensor in described.items():
                if isinstance(tensor, UnreadableTensor):
                    raise InputError(f"{name} is {tensor.kind}: save it as a plain tensor")
            return dict(described) if self.torch_file is None else self.torch_file.tensors(described)


def open_file(path: Path) -> WeightsFile:
    """The state dicts of a .safetensors or torch file, recognised by its content, whatever its name.

    No pickled code runs, and of a torch file only what holds tensors is read. InputError for anything else.
    """
    with reading(path):
        head, size = _head(path)
        kind = file_kinds.kind_of(head)
        if head.startswith(_ZIP):
            return _of_torch(path, torch_files.read_zip(path))
        if _is_safetensors(head, size):
            return WeightsFile(path, {"": load_file(path)})
        if kind == file_kinds.INDEX:
            return _of_index(path)
        if kind is not None:
            raise InputError(f"this is {kind}")
        if head.startswith(_PICKLE):
            return _of_torch(path, torch_files.read_legacy(path))
        if path.suffix == ".safetensors":
            return WeightsFile(path, {"": load_file(path)})  # raises, with what is wrong at the beginning
        raise InputError(f"not a torch or safetensors file; it begins with the bytes {head[:8].hex(' ')}")


def sha256_of_all(paths: Sequence[Path]) -> str:
    """64 hex digits: the sha256 of one file, or of the sha256s of several files in order."""
    digests = [sha256_of(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read(path: Path, key: str = "state_dict") -> StateDict:
    """The tensors of a file of a known form: those of the entry `key` where the file has it, else the whole file."""
    file = open_file(path)
    return file.state(file.entry_of(key))


def shown(text: Path | str) -> str:
    """A path, or another text of a file's, as one printable line of at most 400 characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)[:401])
    return line if len(line) <= 400 else f"{line[:400]}..."


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within the block every exception becomes an InputError that names the file. Blocks are not nested."""
    try:
        yield
    except InputError as error:
        problem = str(error)
    except FileNotFoundError:
        problem = "there is no such file"
    except MemoryError:
        problem = "it does not fit into memory"
    except OSError as error:
        problem = f"it cannot be read ({error.strerror or error})"
    except zipfile.BadZipFile as error:
        reason = str(error).replace("File is not a zip file", "its table of contents, at the end, is missing")
        problem = f"a zip archive that is damaged or cut short ({reason})"
    except Exception as error:  # a damaged file can bring any parser to raise anything
        problem = f"damaged or cut short ({shown(str(error))[:120] or type(error).__name__})"
    else:
        return
    raise InputError(f"weights {shown(path)}: {shown(problem)}") from None


def _head(path: Path) -> tuple[bytes, int]:
    """The first 512 bytes and the size of a regular file. A pipe or a device would block, or never end."""
    try:
        status = path.stat()
    except ValueError:
        raise InputError("there is no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"this is a folder: name the file in it{_weights_in(path)}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is a pipe or a device, no file")
    if not status.st_size:
        raise InputError("the file is empty")
    with path.open("rb") as stream:
        return stream.read(512), status.st_size


def _weights_in(folder: Path) -> str:
    """The files of weights in a folder, for a message."""
    endings = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".index.json")
    found = sorted(name for name in os.listdir(folder) if name.endswith(endings))
    return f" ({', '.join(found[:4])}{', ...' if len(found) > 4 else ''})" if found else ""


def _of_index(path: Path) -> WeightsFile:
    """The network whose tensors an index spreads over several files of its folder.

    Raises InputError, which does not name the index, for one that is not as transformers and huggingface_hub write it.
    """
    if path.stat().st_size > _MOST_INDEX:
        raise InputError(f"an index of more than {_MOST_INDEX >> 20} MiB")
    try:
        places = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)["weight_map"]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError("an index of a network in several files that is damaged or cut short") from None
    if not isinstance(places, dict) or not places or not all(isinstance(part, str) for part in places.values()):
        raise InputError("an index of a network in several files that names none")
    parts = sorted(set(places.values()))
    for part in parts:
        if part in (".", "..") or Path(part).name != part or "\0" in part:
            raise InputError(f"an index that names a file outside its folder: {part!r}")
        if not (path.parent / part).is_file():
            raise InputError(f"an index of {len(parts)} files, of which {part} is not beside it")
    tensors: StateDict = {}
    for part in parts:
        try:
            state = _opened(path.parent / part).state("")
        except InputError as error:
            raise InputError(f"its part {str(error).removeprefix(f'weights {shown(path.parent)}/')}") from None
        named = {name for name, place in places.items() if place == part}
        if named != state.keys():
            wrong = sorted(named ^ state.keys())[:3]
            raise InputError(f"its index and {part} name different tensors (first: {wrong})")
        tensors |= state
    return WeightsFile(path, {"": tensors}, None, tuple(path.parent / part for part in parts))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. InputError for a name that is there twice: two readers would take two files."""
    found = dict(pairs)
    if len(found) < len(pairs):
        given = [name for name, _ in pairs]
        twice = next(name for name in given if given.count(name) > 1)
        raise InputError(f"an index that names {twice[:80]!r} twice")
    return found


def _opened(part: Path) -> WeightsFile:
    """A part of a network. InputError for another index, which would go round in circles."""
    if part.name.endswith(".json") or file_kinds.kind_of(_head(part)[0]) == file_kinds.INDEX:
        raise InputError(f"an index that names another one, {part.name}")
    file = open_file(part)
    if list(file.entries) != [""]:
        raise InputError(f"{part.name} is no part of a network: it has entries of its own")
    return file


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON text that fits into it, and with the text."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _of_torch(path: Path, file: TorchFile) -> WeightsFile:
    candidates = entries.find(file.content)
    if not candidates:
        raise InputError(f"no dictionary of tensors inside: {entries.description(file.content)}")
    return WeightsFile(path, candidates, file)
