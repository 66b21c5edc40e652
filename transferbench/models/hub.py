"""Repositories of Hugging Face: folders `<model-dir>/hf/<owner>/<name>/<revision>`, downloaded only when asked to."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.models import weights

CONFIG, PREPROCESSOR, ADAPTER = "config.json", "preprocessor_config.json", "adapter_config.json"
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
)  # fmt: skip
"""Files of weights: the first that is there is read."""
_SHARD = re.compile(r"(pytorch_)?model-\d{5}-of-\d{5}\.(safetensors|bin)")
_NAME = re.compile(r"(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_LARGEST = 16 << 20
"""Bytes of a configuration, at most."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """The files of one revision of a repository; `revision` is empty for a folder of the user's."""

    folder: Path
    name: str
    revision: str = ""

    @property
    def id(self) -> str:
        """The full id: `hf:<owner>/<name>@<revision>`, or `hf:` and the folder's name."""
        return f"hf:{self.name}@{self.revision}" if self.revision else f"hf:{self.name}"

    @property
    def note(self) -> str:
        """Where the files came from, for the card."""
        return f"revision {self.revision} of {self.name}" if self.revision else ""

    @property
    def weights(self) -> Path:
        """The file of weights. InputError where there is none."""
        found = next((self.folder / name for name in WEIGHTS if (self.folder / name).is_file()), None)
        if found is None:
            raise InputError(f"model {self.id}: no weights in {self.folder}, none of {', '.join(WEIGHTS)}")
        return found


def snapshot(name: str, model_dir: Path | None, download: bool) -> Snapshot:
    """The files of `<owner>/<name>[@<revision>]` below the folder of models.

    With `download` what is missing is fetched: a revision is resolved to its commit first, and only files that are read
    are taken. InputError for a name of another form, for files that are not there, and for several revisions of which
    none is named.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise InputError(f"model hf:{name}: no such folder, and a repository is written <owner>/<name>[@<revision>]")
    repository, revision = f"{match['owner']}/{match['name']}", match["revision"] or ""
    root = (model_dir or Path("models")) / "hf" / match["owner"] / match["name"]
    present = sorted(path.name for path in root.glob("*") if _COMMIT.fullmatch(path.name)) if root.is_dir() else []
    if revision in present:
        return Snapshot(root / revision, repository, revision)
    if not revision and len(present) == 1:
        return Snapshot(root / present[0], repository, present[0])
    if not revision and present:
        raise InputError(f"model hf:{name}: several revisions are in {root}: name one, @{' or @'.join(present[:4])}")
    if not download:
        named = f" of revision {revision}" if revision else ""
        raise InputError(
            f"model hf:{name}: there are no files{named} at {root}/<revision> (--model-dir); add --download, or give "
            "the folder of a copy"
        )
    return _downloaded(repository, revision, root)


def read_json(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """A configuration. InputError where it is not there, too large, or no JSON object."""
    path = snapshot.folder / name
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"model {snapshot.id}: {name} has more than {_LARGEST >> 20} MiB")
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"model {snapshot.id}: there is no {name} in {snapshot.folder}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged or cut short"
        raise InputError(f"model {snapshot.id}: {name} cannot be read ({reason})") from None
    if not isinstance(given, dict):
        raise InputError(f"model {snapshot.id}: {name} is no JSON object")
    return given


def _downloaded(repository: str, revision: str, root: Path) -> Snapshot:
    """The files of a repository, fetched whole or not at all, below its commit's name."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info: Any = HfApi().model_info(repository, revision=revision or None)
        commit = str(info.sha)
        names = _wanted([str(file.rfilename) for file in info.siblings or ()])
        if not _COMMIT.fullmatch(commit):
            raise InputError(f"model hf:{repository}: the hub names no commit for it")
        if not any(name in WEIGHTS for name in names):
            raise InputError(f"model hf:{repository}: it has no weights that are read ({', '.join(WEIGHTS)})")
        if (root / commit).is_dir():
            return Snapshot(root / commit, repository, commit)
        with atomic_files.temporary(root) as folder:
            for name in names:
                hf_hub_download(repository, name, revision=commit, local_dir=folder / commit)
            # Read before it is kept.
            weights.open_file(Snapshot(folder / commit, repository, commit).weights)
            shutil.rmtree(folder / commit / ".cache", ignore_errors=True)
            root.mkdir(parents=True, exist_ok=True)
            (folder / commit).replace(root / commit)
    except InputError:
        raise
    except Exception as error:  # the hub's client has errors of many packages
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"model hf:{repository}: the download failed ({reason}); nothing was kept") from None
    return Snapshot(root / commit, repository, commit)


def _wanted(names: list[str]) -> list[str]:
    """The files that are read: the configurations, and one form of the weights with its parts."""
    file = next((name for name in WEIGHTS if name in names), None)
    parts = [name for name in names if _SHARD.fullmatch(name)] if file and file.endswith(".json") else []
    return [name for name in (CONFIG, PREPROCESSOR, ADAPTER) if name in names] + ([file] if file else []) + parts
