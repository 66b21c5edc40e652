"""A file of weights and the state dicts in it. Every failure is an InputError, one line that says what the file is."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.models.weights import entries, file_kinds, torch_files
from transferbench.models.weights.pickles import UnreadableTensor
from transferbench.models.weights.torch_files import TorchFile

StateDict = dict[str, Tensor]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLE = b"\x80"


@dataclass(frozen=True)
class WeightsFile:
    """`entries`: the state dicts in the file by their place (`state_dict`, `model/ema`; `""` is the whole file)."""

    path: Path
    entries: Mapping[str, Mapping[str, Any]]
    torch_file: TorchFile | None = None

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
        if kind is not None:
            raise InputError(f"this is {kind}")
        if head.startswith(_PICKLE):
            return _of_torch(path, torch_files.read_legacy(path))
        if path.suffix == ".safetensors":
            return WeightsFile(path, {"": load_file(path)})  # raises, with what is wrong at the beginning
        raise InputError(f"not a torch or safetensors file; it begins with the bytes {head[:8].hex(' ')}")


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
        raise InputError("this is a folder: name the file in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is a pipe or a device, no file")
    if not status.st_size:
        raise InputError("the file is empty")
    with path.open("rb") as stream:
        return stream.read(512), status.st_size


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON text that fits into it, and with the text."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _of_torch(path: Path, file: TorchFile) -> WeightsFile:
    candidates = entries.find(file.content)
    if not candidates:
        raise InputError(f"no dictionary of tensors inside: {entries.description(file.content)}")
    return WeightsFile(path, candidates, file)
