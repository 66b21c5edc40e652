"""The only way into leaderboards/ and model_cards/: copy a finished run's records and cards, build its tables."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.leaderboard import build, figures, page
from transferbench.leaderboard.example_gallery import FOLDER as GALLERIES
from transferbench.results.records import UNTRAINED, read_all, stamped


def publish(run: Path, repository: Path) -> Path:
    """Copy the records of a run's folder to leaderboards/<suite>/ and its cards to model_cards/.

    Returns the leaderboard's folder. InputError when the run has no records, mixes suites, lacks a card or a fresh
    stamp of `verify`, or when `repository` has no leaderboards/ folder.
    """
    records = read_all(run)
    suites = sorted({record.suite for record in records})
    if len(suites) != 1 or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", suites[0]):
        raise InputError(f"{run}: records of one suite are published at a time, here are {', '.join(suites)}")
    for record in records:
        if UNTRAINED in record.flags:
            raise InputError(f"{run}: {record.victim} is of a smoke run: it is never published")
        if not stamped(record):
            raise InputError(build.stamp_complaint(run, record))
    boards = repository / "leaderboards"
    if not boards.is_dir():
        raise InputError(f"{repository.resolve()}: no folder leaderboards/ here: run publish at the repository's root")
    missing = [record.victim for record in records if not (run / "cards" / f"{file_stem(record.victim)}.md").is_file()]
    if missing:
        raise InputError(f"{run}: no card for {missing[0]}: finish the run first")
    target = boards / suites[0]
    shutil.rmtree(target / "records", ignore_errors=True)
    (target / "records").mkdir(parents=True)
    shutil.rmtree(target / GALLERIES, ignore_errors=True)
    (target / GALLERIES).mkdir()
    (repository / "model_cards").mkdir(exist_ok=True)
    for stem in (file_stem(record.victim) for record in records):
        shutil.copyfile(run / "records" / f"{stem}.json", target / "records" / f"{stem}.json")
        shutil.copyfile(run / "cards" / f"{stem}.md", repository / "model_cards" / f"{stem}.md")
        if (run / GALLERIES / f"{stem}.png").is_file():
            shutil.copyfile(run / GALLERIES / f"{stem}.png", target / GALLERIES / f"{stem}.png")
    records = build.rebuild(target)
    figures.write(target, records)
    page.write(target, records)
    return target
