"""Files that hold no weights are named as what they are, in one line; nothing in them runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models import weights


def torch_bytes(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.rand(1, 2)), buffer)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


STATE = {"a": torch.arange(3.0)}
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    "annex": (lambda: b"/annex/objects/MD5E-s9--00.pt\n", "a git-annex pointer"),
    "html": (lambda: b"<!DOCTYPE html><html>quota", "HTML page"),
    "html-blank": (lambda: b"\xef\xbb\xbf\r\n <html>", "HTML page"),
    "xml": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "an XML text.*Error"),
    "404": (lambda: b"404: Not Found", "a text, not weights: '404: Not Found'"),
    "json": (lambda: b'{"error": "Repository not found"}', 'a JSON text, not weights: .*"error"'),
    "json-list": (lambda: b"[1, 2]", "a JSON text"),
    "index": (
        lambda: b'{"metadata": {"total_size": 9}, "weight_map": {"a": "model-1.safetensors"}}',
        "an index of .* files",
    ),
    "yaml": (lambda: b"model:\n  name: resnet\n", "a text, not weights: 'model:"),
    "zeros": (lambda: bytes(4096), "unfinished download"),
    "zip-cut": (lambda: torch_bytes(STATE)[:300], "zip archive that is damaged or cut short .*table of contents"),
    "zip-flipped": (
        lambda: torch_bytes(STATE).replace(STATE["a"].numpy().tobytes(), bytes(12)),
        "damaged or cut short .*CRC",
    ),
    "legacy-cut": (lambda: torch_bytes(STATE, zipped=False)[:-3], "damaged or cut short .*ends within a storage"),
    "safetensors-cut": (lambda: save(STATE)[:-3], "damaged or cut short"),
    "script": (script, "a TorchScript archive"),
    "keras": (lambda: archive(config_dot_json=b"{}", model_dot_weights_dot_h5=b"x"), "a Keras file"),
    "npz": (arrays, r"a numpy archive \(.npz\)"),
    "npy": (lambda: b"\x93NUMPY\x01\0", "a numpy array"),
    "zip": (lambda: archive(readme_dot_txt=b"x"), "a zip archive without weights"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file .Keras"),
    "onnx": (lambda: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "an ONNX model"),
    "tflite": (lambda: b"\x1c\0\0\0TFL3" + bytes(9), "a TensorFlow Lite model"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(9), "compressed with gzip"),
    "tar": (tar, "a tar archive"),
    "module": (lambda: torch_bytes(nn.Linear(2, 2)), "a whole pickled object of torch.nn.modules.linear.Linear"),
    "module-legacy": (
        lambda: torch_bytes(nn.Linear(2, 2), False),
        "whole pickled object of torch.nn.modules.linear.Linear",
    ),
    "module-inside": (
        lambda: torch_bytes({"epoch": 3, "model": nn.Linear(2, 2)}),
        "holds 'epoch': a value of type int, 'model': an object of torch.nn.*state_dict",
    ),
    "tensor": (lambda: torch_bytes(torch.zeros(2)), "no dictionary of tensors inside: it is a tensor"),
    "list": (lambda: torch_bytes([1, 2]), "it is a value of type list"),
    "numbers": (lambda: torch_bytes({"acc": 0.5}), "it holds 'acc': a value of type float"),
    "optimiser": (
        lambda: torch_bytes({"optimizer": {"state": {"step": torch.zeros(1)}}}),
        "no dictionary of tensors inside",
    ),
    "pickle": (lambda: pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    "bytes": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9), "begins with the bytes d0 cf 11 e0"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore")
def test_a_file_is_named_as_what_it_is(tmp_path: Path, kind: str, suffix: str) -> None:
    make, complaint = FILES[kind]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(make())
    if (kind, suffix) in (("safetensors-cut", ".pt"), ("bytes", ".safetensors")):
        complaint = "weights"  # without the suffix, or despite it, the bytes alone say nothing more
    with pytest.raises(InputError, match=complaint) as raised:
        weights.read(path)
    assert str(raised.value).isprintable()
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin", "w"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_the_content_decides_not_the_name(tmp_path: Path, name: str, form: str) -> None:
    content = save(STATE) if form == "safetensors" else torch_bytes(STATE, form == "zip")
    (tmp_path / name).write_bytes(content)
    assert torch.equal(weights.read(tmp_path / name)["a"], STATE["a"])


def test_a_file_that_torch_wrote_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        content = torch_bytes(STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert not any(member.CRC for member in zipfile.ZipFile(io.BytesIO(content)).infolist())
    (tmp_path / "w.pt").write_bytes(content)
    assert torch.equal(weights.read(tmp_path / "w.pt")["a"], STATE["a"])


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "line\nbreak").mkdir()
    for name, complaint in (
        ("missing.pt", "there is no such file"),
        (".", "this is a folder"),
        ("line\nbreak", "line break: this is a folder"),
        ("pipe", "a pipe or a device"),
        ("/dev/zero", "a pipe or a device"),
        ("loop", "cannot be read .Too many levels"),
        ("x" * 300, "cannot be read .File name too long"),
        ("a\0b", "there is no such file"),
        ("pipe/w.pt", "cannot be read .Not a directory"),
    ):
        with pytest.raises(InputError, match=complaint) as raised:
            weights.read(tmp_path / name)
        assert str(raised.value).isprintable()


def test_an_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(torch_bytes(STATE))

    def refuse(self: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who can read everything
    with pytest.raises(InputError, match=r"w.pt: it cannot be read \(Permission denied\)$"):
        weights.read(path)


class Command:
    """Runs a function when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


RAN: list[str] = []


def harmless_looking(text: str) -> str:
    RAN.append(text)
    return text


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_never_runs(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "written"
    path = tmp_path / "w.pt"
    for command, name in (
        (Command(os.system, f"touch {target}"), "posix.system"),
        (Command(open, str(target), "w"), "io.open"),
        (Command(exec, f"open({str(target)!r}, 'w')"), "builtins.exec"),
        (Command(eval, f"open({str(target)!r}, 'w')"), "builtins.eval"),
    ):
        path.write_bytes(torch_bytes({"state_dict": STATE, "note": command}, zipped))
        with pytest.raises(InputError, match=f"unsafe, it would call {name} when unpickled"):
            weights.read(path)
    path.write_bytes(torch_bytes({"state_dict": STATE, "note": Command(harmless_looking, "x")}, zipped))
    assert torch.equal(weights.read(path)["a"], STATE["a"]), "a function of an unknown name is not looked up"
    path.write_bytes(pickle.dumps(Command(os.system, f"touch {target}")))
    with pytest.raises(InputError, match="unsafe"):
        weights.read(path)
    assert not target.exists()
    assert RAN == []


def stored(pickled: bytes, data: bytes = bytes(8), compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of torch with the pickle and one storage."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", data)
        file.writestr("archive/byteorder", b"little")
    return buffer.getvalue()


def tensor_pickle(count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """The pickle of {"a": tensor} as torch writes it, with any numbers."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def sizes(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu" + number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + sizes(shape) + sizes(strides)
    return b"\x80\x02}X\x01\0\0\0a" + tensor + b"\x89ccollections\nOrderedDict\n)RtRs."


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda: stored(tensor_pickle(2, (2,), (1,))), None),
        (lambda: stored(tensor_pickle(2**40, (2,), (1,))), "a storage of 4398046511104 bytes, of which the file has 8"),
        (lambda: stored(tensor_pickle(-2, (2,), (1,))), "a storage of -8 bytes"),
        (lambda: stored(tensor_pickle(1, (2,), (1,))), "a storage of 4 bytes, of which the file has 8"),
        (lambda: stored(tensor_pickle(2, (3,), (1,))), "beyond its storage"),
        (lambda: stored(tensor_pickle(2, (2,), (1,), 1)), "beyond its storage"),
        (lambda: stored(tensor_pickle(2, (2,), (1,), -1)), "make no sense"),
        (lambda: stored(tensor_pickle(2, (-2,), (1,))), "make no sense"),
        (lambda: stored(tensor_pickle(2, (2,), (-1,))), "make no sense"),
        (lambda: stored(tensor_pickle(2, (2,), (1, 1))), "make no sense"),
        (lambda: stored(tensor_pickle(2, (10**9, 10**9), (0, 0))), "many more elements than are stored"),
        (lambda: stored(b"\x80\x02" + b"X\xff\xff\xff\x7fabc."), "damaged or cut short"),
        (lambda: stored(b"\x80\x02K\x01r\xff\xff\xff\xff."), "it is a value of type int"),
        (lambda: stored(b"\x80\x05\x96" + b"\xff" * 7 + b"\x00."), "damaged or cut short"),
        (lambda: stored(b"\x80\x02" + b"]" * 10**5 + b"."), "it is a value of type list"),
        (
            lambda: stored(tensor_pickle(2**22, (2,), (1,)), bytes(2**24), zipfile.ZIP_DEFLATED),
            "unpacks to more than 16 times its size",
        ),
        (lambda: struct.pack("<Q", 2**62) + b"{}", "begins with the bytes"),
        (lambda: struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}     ', "damaged"),
    ],
)
def test_sizes_that_the_file_does_not_hold_are_refused_before_memory_is_taken(
    tmp_path: Path, content: Callable[[], bytes], complaint: str | None
) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content())
    if complaint is None:
        assert torch.equal(weights.read(path)["a"], torch.zeros(2))
        return
    with pytest.raises(InputError, match=complaint):
        weights.read(path)


def test_state_dicts_that_refer_to_themselves_end(tmp_path: Path) -> None:
    circle: dict[str, Any] = {"a": 1}
    circle["circle"] = circle
    bomb: Any = {"x": 1}
    for _ in range(60):
        bomb = {"left": bomb, "right": bomb}
    for content in (circle, bomb):
        (tmp_path / "w.pt").write_bytes(torch_bytes(content))
        with pytest.raises(InputError, match="no dictionary of tensors inside"):
            weights.read(tmp_path / "w.pt")


@pytest.mark.parametrize("second", ["w/data/0", "other/data.pkl"])
def test_an_archive_of_two_networks_is_refused(tmp_path: Path, second: str) -> None:
    """Of a file that is in an archive twice torch takes the first, Python's zipfile the last."""
    path = tmp_path / "w.pt"
    torch.save({"a.weight": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
        content = archive.read("w/data.pkl" if second.endswith(".pkl") else second)
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as changed:
            changed.writestr(second, content)
    with pytest.raises(InputError, match="holds the same file twice, or two files of torch"):
        weights.open_file(path)
