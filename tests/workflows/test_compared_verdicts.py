"""Verdicts from folders, records and CSV files; files are hostile."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import pandas as pd
import pytest
from support.records import N, record

import transferbench
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.results.records import dump

BOARD = Path(__file__).parents[2] / "leaderboards" / "letters-to-digits"
HEADER = "run,chain,norm,eps,seed,example,fooled,attack,dataset"


def line(run: str, chain: str, example: int, fooled: bool, attack: str = "apgd-ce", seed: int = 0) -> str:
    return f"{run},{chain},{chain},0.1,{seed},{example},{fooled},{attack if fooled else ''},digits"


def lines(run: str, robust: int, n: int = 20, chains: tuple[str, ...] = ("Linf", "L2", "L1")) -> list[str]:
    """The last two examples are wrong on clean; the first `robust` survive Linf, one more L2, and so on."""
    return [
        line(run, chain, example, example >= robust + more, "clean" if example >= n - 2 else "apgd-ce")
        for more, chain in enumerate(chains)
        for example in range(n)
    ]


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_table_is_matched_by_the_ids_of_its_examples(tmp_path: Path) -> None:
    theirs = lines("b-s0", 14)
    random.Random(0).shuffle(theirs)
    found = transferbench.compare(write(tmp_path / "a.csv", lines("a-s0", 10)), write(tmp_path / "b.csv", theirs))
    assert found.victims == ("a", "b")
    pairs = {pair.column: pair for pair in found.pairs}
    assert list(pairs) == ["clean", "Linf", "L2", "L1", "union"]
    assert (pairs["clean"].first_rate, pairs["clean"].p) == (18 / 20, 1)
    assert (pairs["L2"].only_first, pairs["L2"].only_second) == (0, 4)
    assert (pairs["union"].first_rate, pairs["union"].second_rate) == (10 / 20, 14 / 20)
    frame = pd.read_csv(tmp_path / "b.csv")
    again = transferbench.compare(tmp_path / "a.csv", frame)
    assert again.pairs == found.pairs
    # Another tool may not name the data set, or the attacks: then clean is not known.
    short = [row.rsplit(",", 2)[0] for row in theirs]
    known = transferbench.compare(
        tmp_path / "a.csv", write(tmp_path / "d.csv", short, HEADER.rsplit(",", 2)[0]), columns=["Linf", "union"]
    )
    assert list(known.pairs) == [pair for pair in found.pairs if pair.column in ("Linf", "union")]
    # A byte order mark, and another tool's words for true and false, in the order of the ids.
    text = "\n".join([HEADER, *lines("b-s0", 14)]).replace("True", "1").replace("False", "false")
    (tmp_path / "c.csv").write_bytes(text.encode("utf-8-sig"))
    assert transferbench.compare(tmp_path / "a.csv", tmp_path / "c.csv").pairs == found.pairs


def test_a_board_is_compared_by_the_names_of_its_victims(tmp_path: Path) -> None:
    found = transferbench.compare("eat-robust", "lwf-robust-s1", within=BOARD, columns=["union"], seed=1)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.n) == ("eat-robust", "lwf-robust-s1", 200)
    whole = transferbench.compare("eat-robust", "max-robust", within=BOARD, columns=["union"])
    same = transferbench.compare(f"{BOARD}:eat-robust", f"{BOARD}:max-robust", columns=["union"])
    assert whole.pairs == same.pairs
    (pooled,) = [pair for pair in whole.pairs if pair.seed == "pooled"]
    with (BOARD / "methods.csv").open() as stream:
        unions = {row["method"]: row["union_acc"] for row in csv.DictReader(stream)}
    assert (f"{100 * pooled.first_rate:.2f}", f"{100 * pooled.second_rate:.2f}") == (unions["eat"], unions["max"])
    with pytest.raises(InputError, match="did you mean 'eat-robust'"):
        transferbench.compare("eat-robst", "max-robust", within=BOARD)
    with pytest.raises(InputError, match="named twice"):
        transferbench.compare("eat-robust", "eat-robust", within=BOARD)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text(dump(record(flags=["untrained"])))
    with pytest.raises(InputError, match="smoke run"):
        transferbench.compare(tmp_path, BOARD)


def test_victims_of_one_name_in_two_runs_are_told_apart(tmp_path: Path) -> None:
    for name, robust in (("one", 20), ("two", 26)):
        (tmp_path / name / "records").mkdir(parents=True)
        (tmp_path / name / "records" / "a-s0.json").write_text(dump(record("a-s0", robust)))
    (pair,) = transferbench.compare(tmp_path / "one", tmp_path / "two", columns=["Linf"]).pairs
    assert (pair.first, pair.second, pair.only_second) == (f"{tmp_path / 'one'}:a", f"{tmp_path / 'two'}:a", 6)
    files = [tmp_path / name / "records" / "a-s0.json" for name in ("one", "two")]
    (again,) = transferbench.compare(*files, columns=["Linf"]).pairs
    assert (again.p, again.n) == (pair.p, N)
    (direct,) = transferbench.compare(record("a-s0", 20), record("b-s0", 26), columns=["Linf"]).pairs
    assert direct.p == pair.p
    with pytest.raises(InputError, match="without ids of examples"):
        transferbench.compare(tmp_path / "one", write(tmp_path / "t.csv", lines("b-s0", 14)))


GOOD = lines("b-s0", 12)
BAD = {
    "empty": (b"", "lacks run, chain, seed, example, fooled"),
    "header alone": (f"{HEADER}\n".encode(), "there are no verdicts"),
    "no column fooled": ("\n".join([HEADER.replace("fooled", "broken"), *GOOD]).encode(), "lacks fooled"),
    "a column twice": ("\n".join([HEADER.replace("norm", "seed"), *GOOD]).encode(), "seed is there twice"),
    "an example twice": ("\n".join([HEADER, *GOOD, GOOD[0]]).encode(), "line 62: example 0 of b-s0, Linf, seed 0"),
    "no boolean": ("\n".join([HEADER, *GOOD]).replace("True", "yes", 1).encode(), "fooled is 'yes'"),
    "NaN": ("\n".join([HEADER, *GOOD]).replace("True", "nan", 1).encode(), "fooled is 'nan'"),
    "no value": ("\n".join([HEADER, *GOOD]).replace("True", "", 1).encode(), "fooled is empty"),
    "a fraction": ("\n".join([HEADER, *GOOD]).replace("False", "0.5", 1).encode(), "fooled is '0.5'"),
    "no seed": ("\n".join([HEADER, *GOOD]).replace("0.1,0,3", "0.1,one,3", 1).encode(), "seed is 'one'"),
    "a huge seed": ("\n".join([HEADER, *GOOD]).replace("0.1,0,3", f"0.1,{'9' * 99},3", 1).encode(), "whole number"),
    "a short row": ("\n".join([HEADER, *GOOD[:3], "b-s0,Linf"]).encode(), "line 5: 2 cells, the header has 9"),
    "Latin-1": ("\n".join([HEADER, *GOOD]).replace("b-s0", "modèle").encode("latin-1"), "not a CSV file in UTF-8"),
    "UTF-16": ("\n".join([HEADER, *GOOD]).encode("utf-16"), "not a CSV file in UTF-8"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(range(256)), "not a CSV file in UTF-8"),
    "zeros": (bytes(5000), "file"),
    "a long cell": ("\n".join([HEADER, "x" * 400 + GOOD[0]]).encode(), "run has 404 characters"),
    "a huge cell": ("\n".join([HEADER, "x" * 200_000 + GOOD[0]]).encode(), "not a CSV file"),
    "a control character": ("\n".join([HEADER, *GOOD]).replace("b-s0", "b\x1b[2J").encode(), "control characters"),
    "a line in a cell": ("\n".join([HEADER, *GOOD]).replace("b-s0", '"b\nc"').encode(), "control characters"),
    "an open quote": ("\n".join([HEADER, '"' + GOOD[0]]).encode(), "not a CSV file"),
    "a missing verdict": ("\n".join([HEADER, *GOOD[:-1]]).encode(), "19 verdicts of L1 on 20 examples"),
    "two radii": ("\n".join([HEADER, *GOOD]).replace("0.1", "0.2", 1).encode(), "two radii"),
    "two data sets": ("\n".join([HEADER, *GOOD]).replace("digits", "letters", 1).encode(), "two data sets"),
    "clean and robust": (
        "\n".join([HEADER, line("b-s0", "Linf", 0, False).replace(",,", ",clean,")]).encode(),
        "is not fooled",
    ),
    "clean and not": (
        "\n".join([HEADER, line("b-s0", "Linf", 0, True, "clean"), line("b-s0", "L2", 0, False)]).encode(),
        "right on clean in one chain and wrong in another",
    ),
    "other n": ("\n".join([HEADER, *lines("b-s0", 12, n=24)]).encode(), "not attacked on the same examples"),
    "other examples": (
        "\n".join([HEADER, *(row.replace(",19,", ",77,") for row in GOOD)]).encode(),
        "not attacked on the same examples",
    ),
    "other data": ("\n".join([HEADER, *GOOD]).replace("digits", "letters").encode(), "letters, ids"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_status_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = BAD[name]
    path = write(tmp_path / "a.csv", lines("a-s0", 10))
    (tmp_path / "bad.csv").write_bytes(content)
    assert main(["compare", str(path), str(tmp_path / "bad.csv")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (complaint,) = output.err.splitlines()
    assert words in complaint


def test_what_is_no_file_or_too_large_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "a.csv", lines("a-s0", 10)))
    with (tmp_path / "large.csv").open("wb") as stream:
        stream.truncate(257 * 2**20)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.json").write_text('{"suite": [[[[', encoding="utf-8")
    text = dump(record()).replace('"id": "pretrained-neuron"', '"name": "pretrained-neuron"')
    (tmp_path / "keyless.json").write_text(text, encoding="utf-8")
    for other, words in (
        (tmp_path / "large.csv", "257 MiB"),
        (tmp_path / "pipe.csv", "regular file"),
        (tmp_path / "folder", "neither records nor a store"),
        (tmp_path / "nowhere.csv", "no such folder or file"),
        ("x" * 1500, "no such folder or file"),
        (f"{path}:c", "unknown victim 'c'"),
    ):
        assert main(["compare", path, str(other)]) == 2
        (complaint,) = capsys.readouterr().err.splitlines()
        assert words in complaint
    good = tmp_path / "good.json"
    good.write_text(dump(record()))
    for other, words in (("bad.json", "record"), ("keyless.json", "an attack without 'id'")):
        assert main(["compare", str(good), str(tmp_path / other)]) == 2
        (complaint,) = capsys.readouterr().err.splitlines()
        assert words in complaint


def test_the_command_prints_pairs_matrices_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "eat-robust", "max-robust", "lwf-robust", "--in", str(BOARD), "--columns", "union"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "union (mean of 3 seeds)" in text
    assert "further columns" not in text
    assert main([*words, "--pairs"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 * 4
    assert main([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert len(values["pairs"]) == 3 * 4
    assert {pair["seed"] for pair in values["pairs"]} == {"0", "1", "2", "pooled"}
    assert main(["compare", "eat-robust", "--in", str(BOARD)]) == 2
