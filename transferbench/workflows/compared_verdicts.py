"""What `compare` compares: the victims in folders, records and CSV files of verdicts, of this package or another tool.

A file or a table of verdicts has a row per example, chain, victim and seed, as `runs --verdicts` writes them, with the
columns run (the victim), chain, seed, example (its id), fooled, and where they are known attack, eps and dataset. It is
untrusted input: every cell is checked, and a fault is one line with its place.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.ids import without_seed
from transferbench.base.specifications import NORMS
from transferbench.leaderboard.comparison import CLEAN, UNION, VictimSeries, VictimVerdicts, verdicts_of
from transferbench.results.records import UNTRAINED, Record, read, read_all
from transferbench.store.reader import STORE, Reader
from transferbench.workflows.run_status import COLUMNS, verdict_rows

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("run", "chain", "seed", "example", "fooled")
"""The columns that a file of verdicts must have."""
OPTIONAL = ("attack", "eps", "dataset")
"""Those that are used where they are there: attack `clean` marks an example that was wrong before any attack."""
MOST_BYTES = 256 * 2**20
"""The size of a file, at most: some four million verdicts."""
_LONGEST = 300
"""Characters of a cell that is used, at most."""
_TRUTH = dict.fromkeys(("True", "true", "TRUE", "1"), True) | dict.fromkeys(("False", "false", "FALSE", "0"), False)


@dataclass
class _Run:
    """The rows of one victim and seed: by chain, and by the place of an example, whether it was fooled; the examples in
    the order in which they come, those that were wrong on clean, and how each chain was measured."""

    examples: dict[str, int] = field(default_factory=dict)
    chains: dict[str, dict[int, bool]] = field(default_factory=dict)
    clean: dict[int, bool] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)
    dataset: str = ""


@dataclass(frozen=True)
class _Place:
    """Where a comparison finds verdicts, and which victim there is meant (None: all)."""

    path: Path
    victim: str | None

    @property
    def is_table(self) -> bool:
        return not self.path.is_dir() and self.path.suffix.lower() != ".json"


def load(inputs: Sequence[str | Path | Record | pd.DataFrame], within: Path | None = None) -> list[VictimSeries]:
    """The victims that the inputs name, in their order.

    An input is the folder of a run or a board (all of its victims), a record (`.json`), any other file (a CSV of
    verdicts), `PATH:VICTIM` for one victim of either, or, `within` a folder or file, the name of a victim there. A name
    without its seed is the victim over all of its seeds. In Python it may also be a Record or a frame of verdicts.

    Records have no ids of examples. Where a table of verdicts is among the inputs, the verdicts of a run's folder come
    from its store instead. InputError for what cannot be read or is named twice.
    """
    places = [one if not isinstance(one, str | Path) else _place(one, within) for one in inputs]
    by_id = any(one.is_table if isinstance(one, _Place) else not isinstance(one, Record) for one in places)
    groups: list[tuple[str, list[VictimSeries]]] = []
    read_before: dict[Path, list[VictimVerdicts]] = {}
    for number, one in enumerate(places, 1):
        if isinstance(one, _Place):
            if one.path not in read_before:
                read_before[one.path] = _read(one.path, by_id)
            groups.append((str(one.path), _named(str(one.path), read_before[one.path], one.victim)))
        elif isinstance(one, Record):
            if by_id:
                raise InputError(f"the record of {one.victim} has no ids of examples: give the folder of its run")
            groups.append((f"input {number}", _series([verdicts_of(one)])))
        else:
            groups.append((f"input {number}", _series(_of_frame(one, f"input {number}"))))
    return _distinct(groups)


def _place(given: str | Path, within: Path | None) -> _Place:
    text = str(given)
    if within is not None:
        if not _exists(within):
            raise InputError(f"{within}: there is no such folder or file")
        return _Place(within, text)
    if _exists(Path(text)):
        return _Place(Path(text), None)
    path, colon, victim = text.rpartition(":")
    if colon and victim and path and _exists(Path(path)):
        return _Place(Path(path), victim)
    raise InputError(
        f"{text}: there is no such folder or file (DIR, a record, a CSV of verdicts, or PATH:VICTIM; names of victims "
        "alone with --in DIR)"
    )


def _exists(path: Path) -> bool:
    """Whether there is something of that name; False also for names that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def _distinct(groups: Sequence[tuple[str, list[VictimSeries]]]) -> list[VictimSeries]:
    """The victims of all inputs; names that several inputs have are told apart by the input."""
    names = [one.name for _, found in groups for one in found]
    labelled = [
        one if names.count(one.name) == 1 else VictimSeries(f"{where}:{one.name}", one.seeds)
        for where, found in groups
        for one in found
    ]
    labels = [one.name for one in labelled]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"{label} is named twice: a victim is compared with others")
    return labelled


def _series(verdicts: Iterable[VictimVerdicts]) -> list[VictimSeries]:
    """The verdicts by victim, its seeds together."""
    by_name: dict[str, dict[int, VictimVerdicts]] = {}
    for one in verdicts:
        seeds = by_name.setdefault(without_seed(one.victim, one.seed), {})
        if one.seed in seeds:
            raise InputError(f"{seeds[one.seed].victim} and {one.victim}: two victims of one name and seed")
        seeds[one.seed] = one
    return [VictimSeries(name, seeds) for name, seeds in by_name.items()]


def _named(where: str, verdicts: Sequence[VictimVerdicts], name: str | None) -> list[VictimSeries]:
    """All victims, or the one of the name: with its seed that one alone, without it over all seeds."""
    series = _series(verdicts)
    if name is None:
        return series
    found = [one for one in series if one.name == name]
    if not found:
        exact = [one for one in verdicts if one.victim == name]
        if not exact:
            known = {one.name for one in series} | {one.victim for one in verdicts}
            raise InputError(f"{where}: {registry.unknown('victim', name, known)}")
        # Of a victim that is the same in several seeds only the attacks' seed differs.
        found = [VictimSeries(name, {one.seed: one for one in exact})]
    return found


def _read(path: Path, by_id: bool) -> list[VictimVerdicts]:
    """All verdicts of a folder or file; `by_id`: examples are to be named by their ids."""
    if path.is_dir():
        return _of_folder(path, by_id)
    if not path.is_file():
        raise InputError(f"{path}: neither a folder nor a regular file")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if size > MOST_BYTES:
        raise InputError(
            f"{path}: {size / 2**20:.0f} MiB, at most {MOST_BYTES // 2**20} are read: leave out victims or columns"
        )
    if path.suffix.lower() == ".json":
        if by_id:
            raise InputError(f"{path}: a record has no ids of examples to match a table by: give the folder of its run")
        return [verdicts_of(_measured(read(path)))]
    return _of_csv(path)


def _measured(record: Record) -> Record:
    if UNTRAINED in record.flags:
        raise InputError(f"{record.victim}: the record of a smoke run, whose numbers mean nothing")
    return record


def _of_folder(folder: Path, by_id: bool) -> list[VictimVerdicts]:
    records = read_all(folder) if any((folder / "records").glob("*.json")) else []
    if not by_id and records:
        return [verdicts_of(_measured(one)) for one in records if one.role == "victim"]
    if not (folder / STORE).is_file():
        reason = "a board has records without ids of examples" if records else "there are neither records nor a store"
        raise InputError(f"{folder}: {reason}: give the folder of a run")
    found = _of_rows(COLUMNS, verdict_rows(Reader(folder)), str(folder))
    sources = {one.victim for one in records if one.role == "source"}
    return [one for one in found if one.victim not in sources]


def _of_csv(path: Path) -> list[VictimVerdicts]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            return _of_rows(header, reader, str(path), lambda: reader.line_num)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _of_frame(frame: pd.DataFrame, where: str) -> list[VictimVerdicts]:
    """The verdicts of a frame such as `read_results(folder).verdicts`."""
    if not hasattr(frame, "itertuples"):
        raise InputError(f"{where}: a {type(frame).__name__}: give a path, a Record or a frame of verdicts")
    return _of_rows([str(name) for name in frame.columns], frame.itertuples(index=False, name=None), where)


def _of_rows(
    header: Sequence[str], rows: Iterable[Sequence[Any]], where: str, line: Callable[[], int] | None = None
) -> list[VictimVerdicts]:
    """Rows of verdicts by victim and seed. `line` gives the number of the line that was read last."""
    header = [name.strip() for name in header]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise InputError(f"{where}: not a table of verdicts: it lacks {', '.join(missing)} (see docs/protocol.md)")
    twice = [name for name in (*REQUIRED, *OPTIONAL) if header.count(name) > 1]
    if twice:
        raise InputError(f"{where}: the column {twice[0]} is there twice")
    runs: dict[tuple[str, int], _Run] = {}
    at = {name: header.index(name) for name in (*REQUIRED, *OPTIONAL) if name in header}
    counter = itertools.count(2)
    for cells in rows:
        number = next(counter) if line is None else line()
        if not cells:
            # A blank line.
            continue
        try:
            if len(cells) != len(header):
                raise InputError(f"{len(cells)} cells, the header has {len(header)}")
            _add(runs, {name: _text(cells[place]) for name, place in at.items()})
        except InputError as error:
            raise InputError(f"{where}, line {number}: {error}") from None
    if not runs:
        raise InputError(f"{where}: there are no verdicts")
    return [_verdicts(where, victim, seed, run) for (victim, seed), run in runs.items()]


def _text(value: Any) -> str:
    """A cell as text; nothing for a missing value of pandas."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _add(runs: dict[tuple[str, int], _Run], row: dict[str, str]) -> None:
    """Add one row. InputError for a wrong cell, a verdict that is there before, or a contradiction."""
    for name, value in row.items():
        if len(value) > _LONGEST:
            raise InputError(f"{name} has {len(value)} characters, at most {_LONGEST} are read")
        if not value.isprintable():
            raise InputError(f"{name} has control characters: {value!r}")
        if not value and name in REQUIRED:
            raise InputError(f"{name} is empty")
    if row["fooled"] not in _TRUTH:
        raise InputError(f"fooled is {row['fooled']!r}: write True or False")
    digits = row["seed"].removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise InputError(f"seed is {row['seed']!r}: write a whole number")
    fooled, example, chain = _TRUTH[row["fooled"]], row["example"], row["chain"]
    run = runs.setdefault((row["run"], int(row["seed"])), _Run(dataset=row.get("dataset", "")))
    place = run.examples.setdefault(example, len(run.examples))
    verdicts = run.chains.setdefault(chain, {})
    if place in verdicts:
        raise InputError(f"example {example} of {row['run']}, {chain}, seed {row['seed']} is there twice")
    verdicts[place] = fooled
    if row.get("dataset", "") != run.dataset:
        raise InputError(f"{row['run']}, seed {row['seed']} has two data sets: {run.dataset!r}, {row['dataset']!r}")
    eps = row.get("eps", "")
    if run.measured.setdefault(chain, eps) != eps:
        raise InputError(f"{chain} of {row['run']} has two radii: {run.measured[chain]!r}, {eps!r}")
    if "attack" in row and chain != CLEAN:
        right = row["attack"] != CLEAN
        if not right and not fooled:
            raise InputError(f"example {example} was wrong on clean (attack clean) and is not fooled")
        if run.clean.setdefault(place, right) != right:
            raise InputError(f"example {example} of {row['run']} is right on clean in one chain and wrong in another")


def _verdicts(where: str, victim: str, seed: int, run: _Run) -> VictimVerdicts:
    """The columns of one victim and seed, its examples ordered by their ids."""
    for chain, verdicts in run.chains.items():
        if len(verdicts) != len(run.examples):
            raise InputError(
                f"{where}: {victim}, seed {seed} has {len(verdicts)} verdicts of {chain} on {len(run.examples)} "
                "examples"
            )
    ids = sorted(run.examples)
    order = [run.examples[id] for id in ids]

    def right(verdicts: dict[int, bool], value: bool) -> Any:
        return np.array([verdicts[place] is value for place in order], dtype=np.bool_)

    columns = {CLEAN: right(run.clean, True)} if run.clean and CLEAN not in run.chains else {}
    columns |= {chain: right(verdicts, False) for chain, verdicts in run.chains.items()}
    if UNION not in columns and all(norm in columns for norm in NORMS):
        columns[UNION] = np.logical_and.reduce([columns[norm] for norm in NORMS])
    for name in (name for name in columns if CLEAN in columns):
        if (columns[name] & ~columns[CLEAN]).any():
            raise InputError(f"{where}: {victim}, seed {seed}: {name} counts an example that was wrong on clean")
    names = hashlib.sha256("\n".join(ids).encode(errors="backslashreplace")).hexdigest()[:32]
    measured = {name: eps for name, eps in run.measured.items() if eps}
    return VictimVerdicts(victim, seed, f"ids {names}", columns, measured, run.dataset)
