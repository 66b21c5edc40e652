"""A submission: a verified run's records, cards and hashes with a filled-in checklist in one archive, and its check.

An archive is untrusted input: its names, sizes and hashes are checked before anything is unpacked, records and cards by
their schemas, tables and checklist by making them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.settings import RunSettings
from transferbench.base.strict_model import StrictModel, first_problem
from transferbench.leaderboard import build
from transferbench.leaderboard.example_gallery import FOLDER as GALLERIES
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.models import cards
from transferbench.results.external import FOLDER as EXTERNAL
from transferbench.results.external import read_all as read_externals
from transferbench.results.records import Record, read_all, stamped
from transferbench.results.verification import verify
from transferbench.store.reader import STORE, Reader
from transferbench.workflows.publish import verified_suite, with_pictures

MANIFEST, CHECKLIST = "manifest.json", "CHECKLIST.md"
_TABLES = ("leaderboard.csv", "leaderboard.md")
_SHOWN = ("records/*.json", "cards/*.md", f"{EXTERNAL}/*.json", f"{GALLERIES}/*.png")
_RUN = (STORE, "examples/**/*", "victims/**/*")
"""What `verify` needs besides: the store, the points, the weights."""
_ENDINGS = {"records": ".json", "cards": ".md", EXTERNAL: ".json", GALLERIES: ".png"}
_RUN_FOLDERS = ("examples", "victims")
_MOST_FILES, _MOST_BYTES = 200_000, 64 * 2**30
_LONGEST_NAME = 180
"""Bytes of the archive's name: file systems take 255, and a temporary file's mark comes on top."""
_WHEN = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the same run makes the same bytes."""


class PackedFile(StrictModel):
    """One file of an archive."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(StrictModel):
    """What an archive holds. `whole_run`: with the store, points and weights, so that the numbers can be verified."""

    schema_version: int = 1
    suite: str
    whole_run: bool
    files: dict[str, PackedFile]


class ChecklistItem(NamedTuple):
    """A line of the checklist: whether it holds, and what."""

    holds: bool
    text: str


def pack(run: Path, archive: Path, whole_run: bool = False) -> list[ChecklistItem]:
    """Write the archive of a verified run's folder; returns its checklist.

    `whole_run` adds the store, the points and the weights. InputError for a smoke run, records of several suites, a
    record without a fresh stamp, a missing card, and an archive that exists already.
    """
    records = read_all(run)
    suite = verified_suite(run, records)
    # `exists` is an OSError for a name that is too long.
    if len(os.fsencode(archive.name)) > _LONGEST_NAME:
        raise InputError(f"--out: the name is longer than {_LONGEST_NAME} bytes: give another")
    if archive.exists():
        raise InputError(f"{archive}: exists already: name another file with --out")
    if not archive.parent.is_dir():
        raise InputError(f"--out {archive}: {archive.parent} is no folder: create it or give another")
    if (run / STORE).is_file() and Reader(run).has_driver():
        raise InputError(f"{run}: a command is working on it: wait until it has ended")
    for record in records:
        if not _card(run, record).is_file():
            raise InputError(f"{run}: no card for {record.victim}: finish the run first")
    found = checklist(run, records, whole_run)
    made = {**_tables(run, records), CHECKLIST: checklist_text(suite, found)}
    pictures = {f"{GALLERIES}/{stem}.png" for stem in with_pictures(records)}
    every = _files(run, _SHOWN + (_RUN if whole_run else ()))
    paths = [(name, path) for name, path in every if name in pictures or not name.startswith(f"{GALLERIES}/")]
    files = {name: PackedFile(sha256=atomic_files.sha256_of(path), size=path.stat().st_size) for name, path in paths}
    files |= {
        name: PackedFile(sha256=hashlib.sha256(text.encode()).hexdigest(), size=len(text.encode()))
        for name, text in made.items()
    }
    manifest = Manifest(suite=suite, whole_run=whole_run, files=dict(sorted(files.items())))

    def fill(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, text in {MANIFEST: manifest.model_dump_json(indent=1) + "\n", **made}.items():
                packed.writestr(zipfile.ZipInfo(name, _WHEN), text, zipfile.ZIP_DEFLATED)
            for name, path in paths:
                with path.open("rb") as source, packed.open(_entry(name, path), "w", force_zip64=True) as target:
                    while block := source.read(1 << 20):
                        target.write(block)

    atomic_files.write(archive, fill)
    return found


def _entry(name: str, path: Path) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, path.stat().st_size
    return entry


def check(archive: Path, data_dir: Path | None = None, device: str = "cpu") -> tuple[list[ChecklistItem], list[str]]:
    """(the checklist, complaints) of an archive. What a maintainer or a continuous integration runs.

    With the whole run inside, every point, prediction and count is verified again; without it the stamps alone are
    checked, and the checklist says so. InputError where the file is no archive of `submit`.
    """
    with tempfile.TemporaryDirectory(prefix="transferbench-submission-") as temporary:
        folder = Path(temporary)
        manifest = _unpacked(archive, folder)
        try:
            return _checked(folder, manifest, data_dir, device)
        except InputError as error:
            # The reader knows the archive, not where it was unpacked.
            raise InputError(str(error).replace(str(folder), str(archive))) from None


def _checked(
    folder: Path, manifest: Manifest, data_dir: Path | None, device: str
) -> tuple[list[ChecklistItem], list[str]]:
    """`check` of an archive that is unpacked in a folder."""
    records = read_all(folder)
    complaints = _complaints(folder, manifest, records)
    if complaints:
        return [], complaints
    found = checklist(folder, records, manifest.whole_run)
    if checklist_text(manifest.suite, found) != _text(folder / CHECKLIST):
        complaints.append(f"{CHECKLIST}: is not the checklist of these records")
    elif manifest.whole_run:
        complaints += verify(folder, RunSettings(data_dir=data_dir, device=device))
    return found, complaints


def checklist(run: Path, records: Sequence[Record], whole_run: bool) -> list[ChecklistItem]:
    """What a reviewer asks, answered from the records and cards."""
    victims = [record for record in records if record.role == "victim"]
    flagged = sorted({record.victim for record in records if record.flags})
    dirty = sorted({record.victim for record in records if record.origin.dirty or not record.origin.commit})
    seeds = sorted({record.seed for record in victims})
    incomplete = [str(row["victim"]) for row in leaderboard_rows(records) if row["rank"] == ""]
    licences = sorted({cards.read(_card(run, record)).license for record in records})
    smallest = min(record.n for record in records)
    return [
        ChecklistItem(all(map(stamped, records)), f"all {len(records)} records are verified and unchanged since"),
        ChecklistItem(not dirty, "made by committed code" + _of("differs or has no commit", dirty)),
        ChecklistItem(not flagged, "no record has a flag" + _of("flagged", flagged)),
        ChecklistItem(not incomplete, "every row has all of its suite's measurements" + _of("without", incomplete)),
        ChecklistItem(len(seeds) >= 3, f"three seeds or more: {', '.join(map(str, seeds)) or 'no victim'}"),
        ChecklistItem(smallest >= 200, f"200 attacked examples or more: at least {smallest}"),
        ChecklistItem(whole_run, "the archive holds points and weights: the numbers can be verified from it"),
        ChecklistItem(True, f"licences on the cards: {', '.join(licences)}"),
    ]


def _of(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"; {what}: {shown}" if names else ""


def checklist_text(suite: str, items: Sequence[ChecklistItem]) -> str:
    """CHECKLIST.md."""
    lines = "\n".join(f"- [{'x' if item.holds else ' '}] {item.text}" for item in items)
    return f"# Submission: {suite}\n\n{lines}\n"


def _card(run: Path, record: Record) -> Path:
    return run / "cards" / f"{file_stem(record.victim)}.md"


def _tables(run: Path, records: Sequence[Record]) -> dict[str, str]:
    """The tables that the archive shows."""
    contents = build.render(records, read_externals(run, records))
    return {name: contents[name] for name in _TABLES}


def _files(run: Path, patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """(name in the archive, path) of the regular files."""
    for pattern in patterns:
        for path in sorted(run.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(run).as_posix(), path


def _unpacked(archive: Path, folder: Path) -> Manifest:
    """Unpack what the manifest names into an empty folder. InputError for anything else, before it is written."""
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            manifest = _manifest(archive, packed, entries)
            for entry in entries:
                if entry.filename != MANIFEST:
                    _unpack(archive, packed, entry, manifest.files[entry.filename], folder)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{archive}: cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{archive}: not an archive of transferbench submit ({error})") from None
    return manifest


def _manifest(archive: Path, packed: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> Manifest:
    """The manifest, of exactly the entries that are there. InputError otherwise."""
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names) or len(names) > _MOST_FILES:
        raise InputError(f"{archive}: not an archive of transferbench submit (a name twice, or too many)")
    for name in (MANIFEST, CHECKLIST, *_TABLES):
        if name not in names:
            raise InputError(f"{archive}: not an archive of transferbench submit (there is no {name})")
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise InputError(f"{archive}: more than {_MOST_BYTES // 2**30} GiB unpacked")
    if packed.getinfo(MANIFEST).file_size > 256 * 2**20:
        raise InputError(f"{archive}: {MANIFEST} is too large")
    try:
        manifest = Manifest.model_validate(json.loads(packed.read(MANIFEST)))
    except (ValidationError, ValueError, RecursionError) as error:
        raise InputError(f"{archive}: {MANIFEST}: {first_problem(error)}") from None
    others = (set(names) - {MANIFEST}) ^ set(manifest.files)
    if others:
        raise InputError(f"{archive}: {sorted(others)[0]} is in the archive or in its manifest alone")
    for entry in entries:
        _check_name(archive, entry, manifest.whole_run)
        if entry.filename != MANIFEST and entry.file_size != manifest.files[entry.filename].size:
            raise InputError(f"{archive}: {entry.filename} has another size than its manifest says")
    return manifest


def _check_name(archive: Path, entry: zipfile.ZipInfo, whole_run: bool) -> None:
    """InputError for a name that `pack` does not write, and for what is no regular file."""
    parts = entry.filename.split("/")
    at_top = len(parts) == 1 and parts[0] in (MANIFEST, CHECKLIST, *_TABLES, *([STORE] if whole_run else []))
    if len(parts) == 2 and parts[0] in _ENDINGS:
        inside = parts[1].endswith(_ENDINGS[parts[0]])
    else:
        inside = whole_run and len(parts) > 1 and parts[0] in _RUN_FOLDERS and not {"", ".", ".."} & set(parts)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    plain = entry.filename.isprintable() and "\\" not in entry.filename and kind in (0, stat.S_IFREG)
    if not (at_top or inside) or not plain:
        raise InputError(f"{archive}: {entry.filename!r} is no file of a submission")


def _unpack(archive: Path, packed: zipfile.ZipFile, entry: zipfile.ZipInfo, file: PackedFile, folder: Path) -> None:
    path, digest, size = folder / entry.filename, hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(entry) as source, path.open("xb") as target:
        while block := source.read(1 << 20):
            size += len(block)
            if size > file.size:
                break
            digest.update(block)
            target.write(block)
    if size != file.size or digest.hexdigest() != file.sha256:
        raise InputError(f"{archive}: {entry.filename} is not the file that its manifest says")


def _text(file: Path) -> str:
    """A file that must equal a text; what is not UTF-8 equals none."""
    return file.read_text(encoding="utf-8", errors="replace")


def _complaints(folder: Path, manifest: Manifest, records: Sequence[Record]) -> list[str]:
    """What is wrong with the records and cards of an unpacked archive."""
    complaints: list[str] = []
    try:
        suite = verified_suite(folder, records)
    except InputError as error:
        return [str(error)]
    if suite != manifest.suite:
        complaints.append(f"{MANIFEST}: suite {manifest.suite}, the records say {suite}")
    for record in records:
        if not _card(folder, record).is_file():
            complaints.append(f"{record.victim}: no card")
            continue
        card = cards.read(_card(folder, record))
        if (card.id, card.sha256, card.method) != (record.victim, record.weights_sha256, record.method):
            complaints.append(f"{record.victim}: its card is about another network, method or weights")
    for name, text in _tables(folder, records).items():
        if _text(folder / name) != text:
            complaints.append(f"{name}: differs from the records")
    return complaints
