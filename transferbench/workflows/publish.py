"""The only way into leaderboards/ and model_cards/: copy a finished run's records and cards, build its tables.

Everything of a suite is in leaderboards/<suite>/ and model_cards/<suite>/, so that suites whose rows have equal names
live side by side.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.leaderboard import build, figures, page
from transferbench.leaderboard.example_gallery import FOLDER as GALLERIES
from transferbench.results.records import UNTRAINED, Record, read_all, stamped

BOARDS, CARDS = "leaderboards", "model_cards"
_COPIED = ("records", GALLERIES)
"""The folders of a board that come from the run; the rest is built of them."""


def publish(run: Path, repository: Path) -> Path:
    """Copy the records of a run's folder to leaderboards/<suite>/ and its cards to model_cards/<suite>/, in place of
    what an earlier run of the same suite left there; pictures only of data sets that come with packages.

    Returns the leaderboard's folder. InputError when the run has no records, mixes suites, lacks a card or a fresh
    stamp of `verify`, or when `repository` has no leaderboards/ folder.
    """
    records = read_all(run)
    suite = verified_suite(run, records)
    if not (repository / BOARDS).is_dir():
        raise InputError(f"{repository.resolve()}: no folder {BOARDS}/ here: run publish at the repository's root")
    stems = [file_stem(record.victim) for record in records]
    for record, stem in zip(records, stems, strict=True):
        if not (run / "cards" / f"{stem}.md").is_file():
            raise InputError(f"{run}: no card for {record.victim}: finish the run first")
    board, cards = repository / BOARDS / suite, repository / CARDS / suite
    for folder in (board, cards):
        folder.mkdir(parents=True, exist_ok=True)
    # Everything is copied before anything is replaced.
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=board) as temporary:
        new = Path(temporary)
        pictures = with_pictures(records)
        for kind, ending, copied in (("records", "json", stems), ("cards", "md", stems), (GALLERIES, "png", pictures)):
            (new / kind).mkdir()
            for name in (f"{stem}.{ending}" for stem in copied):
                if (run / kind / name).is_file():
                    shutil.copyfile(run / kind / name, new / kind / name)
        for kind in _COPIED:
            _replace(new / kind, board / kind)
        _replace(new / "cards", cards)
    records = build.rebuild(board)
    figures.write(board, records)
    page.write(board, records)
    return board


def verified_suite(run: Path, records: Sequence[Record]) -> str:
    """The suite of the records, all of which are verified. InputError otherwise."""
    suites = sorted({record.suite for record in records})
    if len(suites) != 1 or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", suites[0]):
        raise InputError(f"{run}: records of one suite are published together, here are {', '.join(suites)}")
    for record in records:
        if UNTRAINED in record.flags:
            raise InputError(f"{run}: {record.victim} is of a smoke run: it is never published")
        if not stamped(record):
            raise InputError(build.stamp_complaint(run, record))
    return suites[0]


def with_pictures(records: Sequence[Record]) -> list[str]:
    """The file stems of the victims whose pictures may be passed on."""
    return [file_stem(record.victim) for record in records if data.is_packaged(record.target_dataset)]


def _replace(new: Path, old: Path) -> None:
    """Move a folder to a place that an earlier one may hold; the earlier one is put next to the new one first."""
    if old.exists():
        shutil.move(old, new.with_name(f"{new.name}.earlier"))
    shutil.move(new, old)
