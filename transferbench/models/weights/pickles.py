"""Reads torch's pickles without running anything that they name: tensors come out as descriptions of their storage.

A pickle is a program that calls functions by name. Here a name never becomes the function: the few that build tensors
and dictionaries are done by this file, every other one gives a `Foreign` object that holds its name only. So also
checkpoints load whose other entries are of types that are not installed, or that are unsafe to make.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from transferbench.base.errors import InputError

_Load = Callable[[Any], None]

_UNSAFE_MODULES = ("os", "posix", "nt", "subprocess", "pty", "socket", "shutil", "runpy", "ctypes", "importlib", "sys")
_UNSAFE_NAMES = ("eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint")
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict")


class ReadableStream(Protocol):
    """What an unpickler reads from."""

    def read(self, count: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


@dataclass(frozen=True)
class Name:
    """A name that a pickle refers to."""

    text: str


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors of a file share: `key` names their place in the file. dtype None: bytes."""

    key: str
    dtype: torch.dtype | None
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that was not read yet: a view of a storage, offset and strides in elements."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class UnreadableTensor:
    """A tensor of a kind that is not read; `kind` names it."""

    kind: str


class Foreign:
    """An object of another type: its name alone. It accepts what a pickle would put into it, and keeps nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ignore(self, *_: object) -> None:
        """Take elements, and forget them."""

    append = extend = add = update = __setitem__ = ignore


class TensorUnpickler(pickle._Unpickler):
    """Python's unpickler, in which a name is never looked up, imported or called.

    The pure Python class, because the C class allocates whatever memory index a damaged file names.
    """

    # Attributes of the base class that its annotations leave out.
    stack: list[Any]
    append: Callable[[Any], None]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    dispatch: ClassVar[dict[int, _Load]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, stream: ReadableStream) -> None:
        super().__init__(stream, encoding="latin-1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "_io": "io", "copy_reg": "copyreg"}.get(module, module)
        if module.partition(".")[0] in _UNSAFE_MODULES or (module in ("builtins", "io") and name in _UNSAFE_NAMES):
            raise InputError(f"unsafe, it would call {module}.{name} when unpickled: do not load it elsewhere either")
        return Name(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Name):
            return pid[1]  # a class, beside its source
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            return Foreign("a part of a pickled module")
        if len(pid) == 6 and pid[5] is not None:
            raise InputError("written by torch before 0.4: load it there and save it again")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, Name) or not isinstance(key, str) or not isinstance(count, int):
            raise ValueError("a storage without type, name or size")
        storage = Storage(key, _storage_dtype(kind.text), count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError("a storage with two sizes or types")
        return storage

    def call(self, function: Any, arguments: Any) -> Any:
        """The value that the named function stands for. TypeError for anything that is no name."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("a pickle that calls what is no function")
        return _value(function.text, arguments)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def load_obj(self) -> None:
        arguments = self.pop_mark()
        self.append(self.call(arguments[0], tuple(arguments[1:])))

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.append(self.call(self.find_class(module, name), tuple(self.pop_mark())))

    def load_build(self) -> None:
        """Drop the state that would be put into the object: it is of no use to tensors, and could change any object."""
        self.stack.pop()

    def load_bytearray8(self) -> None:
        raise ValueError("a byte array")

    def get_extension(self, code: int) -> None:
        raise ValueError("a registered extension")

    for _opcode, _load in (
        (pickle.REDUCE, load_reduce),
        (pickle.NEWOBJ, load_reduce),
        (pickle.NEWOBJ_EX, load_newobj_ex),
        (pickle.OBJ, load_obj),
        (pickle.INST, load_inst),
        (pickle.BUILD, load_build),
        (pickle.BYTEARRAY8, load_bytearray8),
    ):
        dispatch[_opcode[0]] = _load


def _storage_dtype(name: str) -> torch.dtype | None:
    """The type of a storage class's elements (`torch.FloatStorage`); None for bytes without a type."""
    kind = name.rpartition(".")[2].removesuffix("Storage").lower()
    if kind == "untyped":
        return None
    names = {"byte": "uint8", "char": "int8", "complexfloat": "complex64", "complexdouble": "complex128"}
    dtype = getattr(torch, names.get(kind, kind), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"a storage of unknown type {name}")
    return dtype


def _value(name: str, arguments: tuple[Any, ...]) -> Any:
    """What calling the named function with the arguments stands for."""
    module, _, function = name.rpartition(".")
    if name in _DICTIONARIES:
        pairs = arguments[0] if arguments and isinstance(arguments[0], list | tuple | dict) else ()
        return dict(pairs)
    if name == "torch.Size":
        return tuple(arguments[0])
    if name in ("copyreg._reconstructor", "copyreg.__newobj__") and arguments and isinstance(arguments[0], Name):
        return Foreign(arguments[0].text)
    if module == "torch._utils":
        return _tensor(function, arguments)
    if name == "torch._tensor._rebuild_from_type_v2":
        # A subclass of Tensor: the function that builds the tensor inside, its class, that function's arguments.
        return _value(arguments[0].text, arguments[2])
    return Foreign(name)


def _tensor(function: str, arguments: tuple[Any, ...]) -> Any:
    """The tensor that a function of torch._utils builds."""
    if function in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    if function in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        storage, offset, shape, strides = arguments[:4]
        dtype, marks = storage.dtype, arguments[6:]
        if function == "_rebuild_tensor_v3":
            dtype, marks = getattr(torch, arguments[6].text.removeprefix("torch."), None), arguments[7:]
        if marks and marks[0]:
            # The stored numbers are not the tensor's until the sign or the conjugate is taken.
            return UnreadableTensor("with a negation or conjugation that is still to be done")
        if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
            raise ValueError("a tensor without a storage")
        return StoredTensor(storage, dtype, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    kinds = {
        "_rebuild_sparse_tensor": "sparse",
        "_rebuild_sparse_csr_tensor": "sparse",
        "_rebuild_qtensor": "quantised",
        "_rebuild_meta_tensor_no_storage": "on the device meta, without values",
        "_rebuild_nested_tensor": "nested",
    }
    return UnreadableTensor(kinds.get(function, f"of a kind that is not read ({function})"))
