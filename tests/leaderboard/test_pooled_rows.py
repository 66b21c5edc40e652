"""Rows over seeds: means and ranges, letters, and the difference to plain fine-tuning."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from statistics import mean

import numpy as np
import pandas as pd
import pytest
from support.records import N, chain, first, record

from transferbench.leaderboard import build, downloads
from transferbench.leaderboard.pooled_rows import MOST_COMPARED, pooled_rows
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.leaderboard.seeds import paired
from transferbench.results.records import Bits, Record


def victim(method: str, seed: int, robust: int, source: str = "src", **changes: object) -> Record:
    """The first `robust` of the first 38 examples survive every norm."""
    chains = [chain(norm, first(robust)) for norm in ("Linf", "L2", "L1")]
    name, source = f"{method}-{source}-s{seed}", f"{source}-s{seed}"
    given = {"chains": chains, "crafted": [], "clean": Bits.of(first(38)), **changes}
    return record(name, method=method, seed=seed, source=source, **given)


@pytest.fixture
def board() -> list[Record]:
    """`best` is far ahead; `middle` and `finetune` differ by two examples; `elsewhere` has another source."""
    counts = {"best": (36, 35), "middle": (14, 12), "finetune": (11, 11)}
    records = [victim(method, seed, counts[method][seed]) for method in counts for seed in (0, 1)]
    return [*records, *(victim("elsewhere", seed, 2, "other") for seed in (0, 1))]


def test_rows_share_a_letter_where_they_are_not_told_apart(board: list[Record]) -> None:
    best, middle, finetune, elsewhere = pooled_rows(board, leaderboard_rows(board))
    assert [one.label for one in (best, middle, finetune, elsewhere)] == ["best", "middle", "finetune", "elsewhere"]
    assert (best.letters, middle.letters, finetune.letters, elsewhere.letters) == ("a", "b", "b", "c")
    assert best.beats == ("middle of src", "finetune of src", "elsewhere of other")
    assert (best.beaten_by, finetune.beaten_by) == ((), ("best of src",))


def test_the_difference_is_to_fine_tuning_of_the_same_source_over_common_seeds(board: list[Record]) -> None:
    best, middle, finetune, elsewhere = pooled_rows(board, leaderboard_rows(board))
    assert (best.baseline, middle.baseline, finetune.baseline, elsewhere.baseline) == ("finetune", "finetune", "", "")
    assert middle.gain == paired(np.array([first(14), first(12)]), np.array([first(11), first(11)]))
    assert middle.gain is not None
    assert middle.gain.difference == pytest.approx(mean((3, 1)) / N)
    assert (finetune.gain, elsewhere.gain) == (None, None)
    only_first = [one for one in board if one.victim != "finetune-src-s1"]
    _, middle, _, _ = pooled_rows(only_first, leaderboard_rows(only_first))
    assert middle.gain == paired(np.array([first(14)]), np.array([first(11)]))


def test_rows_without_a_rank_or_of_other_examples_are_not_compared(board: list[Record]) -> None:
    part = victim("part", 0, 20, chains=[chain("Linf", first(20))])
    other = victim("other", 0, 20, data_fingerprint="e" * 32)
    rows = {one.label: one for one in pooled_rows([*board, part, other], leaderboard_rows([*board, part, other]))}
    assert (rows["part"].letters, rows["other"].letters) == ("", "")
    assert rows["best"].letters == "a"


def test_many_rows_have_no_letters() -> None:
    many = [victim(f"m{place}", 0, place % 30) for place in range(MOST_COMPARED + 1)]
    assert {one.letters for one in pooled_rows(many, leaderboard_rows(many))} == {""}


def test_methods_csv_json_and_parquet_have_the_same_numbers(board: list[Record], tmp_path: Path) -> None:
    build.write(tmp_path, board)
    content = json.loads((tmp_path / "leaderboard.json").read_text())
    for name, rows in (("methods.csv", content["methods"]), ("leaderboard.csv", content["victims"])):
        lines = list(csv.DictReader(io.StringIO((tmp_path / name).read_text())))
        assert len(lines) == len(rows)
        for line, row in zip(lines, rows, strict=True):
            assert {key: value for key, value in line.items() if value} == {
                key: line[key] if isinstance(value, float) and float(line[key]) == value else str(value)
                for key, value in row.items()
            }
            assert set(row) <= set(content["columns"])
    frame, table = pd.read_parquet(tmp_path / downloads.PARQUET), pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(frame.columns) == list(table.columns)
    for column in frame.columns:
        if frame[column].dtype == "string":
            assert frame[column].fillna("").tolist() == table[column].astype(object).fillna("").astype(str).tolist()
        else:
            np.testing.assert_array_equal(frame[column].to_numpy(float, na_value=np.nan), table[column].to_numpy(float))


def test_check_reads_the_parquet_file(board: list[Record], tmp_path: Path) -> None:
    build.write(tmp_path, board)
    rows = leaderboard_rows(board)
    assert downloads.check_parquet(tmp_path, rows) == []
    (complaint,) = downloads.check_parquet(tmp_path, rows[1:])
    assert "leaderboard.parquet: differs from its records" in complaint
    (tmp_path / downloads.PARQUET).write_bytes(b"PAR1 is no file")
    assert len(downloads.check_parquet(tmp_path, rows)) == 1
