"""Reports on disk: adversarial images as safetensors, the rest as JSON. Nothing is ever unpickled.

One document holds every field but the images, and the sha256 of itself and of the images. It is the file report.json of
a folder, or the entry `report` in the header of a single .safetensors file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from torch import Tensor

from transferbench.base import atomic_files
from transferbench.base.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from transferbench.python.report import Report

FORMAT, VERSION = "transferbench report", 1
JSON, IMAGES, ONE_FILE = "report.json", "x_adv.safetensors", ".safetensors"
_HEADER = "report"
_MOST = 90_000_000
"""Bytes of a safetensors header, whose library reads at most 100 MB."""


def save(report: Report, path: str | Path) -> Path:
    """As Report.save."""
    from safetensors.torch import save as to_bytes

    path = Path(path)
    images = _separate(report.x_adv)
    values = {name: _encoded(getattr(report, name)) for name in _plain_fields(type(report))}
    document = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "report": values,
            "images": list(images),
            "sha256": {"report": _digest(values), "x_adv": _digest_of_images(images)},
        }
    )
    try:
        if path.suffix == ONE_FILE:
            if len(document.encode()) > _MOST:
                raise InputError(f"{path}: the report is too long for one file: save it into a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_files.write_bytes(path, to_bytes(images, {_HEADER: document}))
        else:
            path.mkdir(parents=True, exist_ok=True)
            # The document names the images' hash: written last, it never stands beside others for long.
            atomic_files.write_bytes(path / IMAGES, to_bytes(images))
            atomic_files.write_text(path / JSON, document)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: a report cannot be saved there ({reason}): name a folder or a {ONE_FILE}") from None
    return path


def load(kind: type[Report], path: str | Path) -> Report:
    """As Report.load."""
    path = Path(path)
    document, images = _read(path)
    try:
        content = json.loads(document)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: not a saved report")
    if content.get("version") != VERSION:
        raise InputError(f"{path}: a report of version {content.get('version')!r}, this package reads {VERSION}")
    values, hashes = content.get("report"), content.get("sha256")
    if not isinstance(values, dict) or not isinstance(hashes, dict):
        raise InputError(f"{path}: not a saved report")
    names = content.get("images")
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(images):
        raise InputError(f"{path}: the report has other images than it names: save it again")
    images = {name: images[name] for name in names}
    if hashes.get("report") != _digest(values) or hashes.get("x_adv") != _digest_of_images(images):
        raise InputError(f"{path}: the report is damaged, or its images are another report's: save it again")
    hints = _hints(kind)
    known = _plain_fields(kind)
    required = {part.name for part in fields(kind) if part.default is MISSING and part.default_factory is MISSING}
    if not values.keys() <= set(known) or not required - {"x_adv"} <= values.keys():
        raise InputError(f"{path}: the report has other fields than this version's")
    try:
        plain = {name: _decoded(hints[name], value) for name, value in values.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: the report is damaged ({str(error).splitlines()[0]})") from None
    return kind(x_adv=images, **plain)


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The document, and the images. InputError where there are none."""
    from safetensors import SafetensorError, safe_open

    folder = path.is_dir()
    file = path / IMAGES if folder else path
    try:
        # The library's own message about a missing file names no reason.
        with file.open("rb"), safe_open(file, framework="pt") as opened:
            names = opened.keys()
            images = {name: opened.get_tensor(name) for name in names}
            header = (opened.metadata() or {}).get(_HEADER, "")
        document = (path / JSON).read_text(encoding="utf-8") if folder else header
    except OSError as error:
        raise InputError(f"{path}: no report can be read there ({error.strerror or error})") from None
    except (SafetensorError, UnicodeDecodeError, ValueError):
        raise InputError(f"{path}: not a saved report, or damaged") from None
    if not document:
        raise InputError(f"{path}: not a saved report")
    return document, images


def _separate(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The images on the CPU, none sharing memory with another: safetensors refuses that."""
    taken: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in images.items():
        whole = tensor.detach().cpu().contiguous()
        place = whole.untyped_storage().data_ptr()
        found[name] = whole.clone() if place in taken else whole
        taken.add(place)
    return found


def _plain_fields(kind: type[Report]) -> list[str]:
    return [part.name for part in fields(kind) if part.name != "x_adv"]


def _hints(kind: type[Any]) -> dict[str, Any]:
    """The types of a class's fields, that of frames among them."""
    import pandas as pd

    return get_type_hints(kind, localns={"pd": pd})


def _encoded(value: Any) -> Any:
    """A field as JSON values."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return _frame_values(value)
    if getattr(value, "__dataclass_fields__", None) is not None:
        return {part.name: _encoded(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {name: _encoded(part) for name, part in value.items()}
    return [_encoded(part) for part in value] if isinstance(value, tuple | list) else value


def _decoded(kind: Any, value: Any) -> Any:
    """The field of that type. ValueError, TypeError or KeyError where the value is none."""
    import pandas as pd
    from pydantic import TypeAdapter

    if kind == pd.DataFrame or kind == pd.DataFrame | None:
        return None if value is None and kind != pd.DataFrame else _frame(value)
    if isinstance(kind, type) and getattr(kind, "__dataclass_fields__", None) is not None:
        hints = _hints(kind)
        return kind(**{name: _decoded(hints[name], part) for name, part in value.items()})
    return TypeAdapter(kind).validate_python(value)


def _frame_values(frame: pd.DataFrame) -> dict[str, Any]:
    """The columns with their types, in order; frames of a report are numbered from 0."""
    return {str(name): {"type": str(frame[name].dtype), "values": frame[name].tolist()} for name in frame}


def _frame(values: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    columns = {name: pd.Series(column["values"], dtype=column["type"]) for name, column in values.items()}
    return pd.DataFrame(columns)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _digest_of_images(images: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in images.items():
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
