from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.records import N, chain, crafted, first, record, source, stamped, table

from transferbench.base.errors import InputError
from transferbench.leaderboard import build, exports, page
from transferbench.leaderboard.column import Group
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.escape import csv_cell, markdown_cell
from transferbench.leaderboard.families import RateColumn, ends, ends_of
from transferbench.leaderboard.rates import Rate, percent
from transferbench.models.cards import ModelCard
from transferbench.results.records import Bits, dump, read

PROMISED = (
    *("rank", "victim", "method", "source", "network", "source_dataset", "target_dataset", "n", "clean_acc"),
    *("linf_eps", "linf_acc", "l2_eps", "l2_acc", "l1_eps", "l1_acc", "union_acc", "pgd20_linf_acc"),
    *("source_clean_acc", "source_linf_acc", "source_l2_acc", "source_l1_acc", "source_union_acc"),
    *("pretrained_eps", "pretrained_neurons", "pretrained_asr", "noise_asr"),
    *("forwards", "backwards", "clean_acc_full", "n_full"),
)


def test_the_columns_are_those_that_were_promised_in_order() -> None:
    names = [column.name for column in LEADERBOARD]
    assert tuple(names[: len(PROMISED)]) == PROMISED
    assert list(table([source(), record()])[0]) == [column.name for column in LEADERBOARD if not column.optional]
    assert len(set(names)) == len(names)
    assert all(column.meaning for column in LEADERBOARD)


def test_rows_at_other_radii_or_attacks_are_not_ranked_together() -> None:
    weak, strong = record("a-s0", robust=4), record("b-s0", robust=30)
    assert [row["rank"] for row in table([weak, strong])] == ["1", "2"]
    for change in ({"eps": "1/255"}, {"attacks": [{"id": "fgsm"}]}, {"backend": "autoattack"}, {"precision": "bf16"}):
        easier = [one.model_copy(update=change) for one in strong.chains]
        other = strong.model_copy(update={"chains": easier})
        assert [row["rank"] for row in table([weak, other])] == ["1", "1"], change


def test_a_search_in_bf16_stands_on_the_board() -> None:
    low = record("b-s0", robust=30)
    low = low.model_copy(update={"chains": [one.model_copy(update={"precision": "bf16"}) for one in low.chains]})
    assert "precision" not in table([record("a-s0")])[0]
    assert [row["precision"] for row in table([record("a-s0"), low])] == ["bf16", ""]
    both = [record("a-s0"), low]
    files = build.render(both)
    assert "| search |" in files["leaderboard.md"]
    assert "| bf16 |" in files["leaderboard.md"]
    assert "& bf16 " in exports.latex(both)


@pytest.fixture
def ties() -> Iterator[RateColumn]:
    """A statistic from outside, with its interval, appended to the list of columns."""
    column = RateColumn(
        "linf_ties",
        "share of the n examples that the Linf chain leaves in a tie, %",
        "Linf ties",
        Group.EXPECTED,
        rate=lambda m: Rate(m.record.chains[0].ties + 5, m.record.n),
        interval=ends_of("linf_ties"),
        norm="Linf",
        summary="ties",
        metric="accuracy",
    )
    added = [column, *ends(column)]
    LEADERBOARD.extend(added)
    yield column
    del LEADERBOARD[-len(added) :]


def test_a_column_from_outside_is_everywhere(ties: RateColumn, tmp_path: Path) -> None:
    records = [source(), record()]
    (row,) = table(records)
    assert (row["linf_ties"], row["linf_ties_low"], row["linf_ties_high"]) == ("12.50", "5.46", "26.11")
    markdown = build.render(records)["leaderboard.md"]
    assert f"- `linf_ties`: {ties.meaning}\n- `linf_ties_low`: lower end" in markdown
    over_seeds, every_victim = markdown.split("\n## ")[:2]
    assert "| ties |" in over_seeds
    assert "| 12.50 |" in over_seeds
    assert "| ties |" in every_victim
    assert "| 12.50 [5.46, 26.11] |" in every_victim
    assert " & ties" in exports.latex(records)

    index = page.render(tmp_path, records)["index.html"]
    head = '<th scope="col" role="columnheader" data-column="linf_ties" class="g-expected n-Linf linf_ties"'
    tip = f'<button type="button" data-tip="{ties.meaning}">Linf ties</button>'
    assert re.search(f"{re.escape(head)}[^>]*>{re.escape(tip)}", index)
    cell = '<td role="cell" class="g-expected n-Linf linf_ties" data-k="12.50">12.50'
    assert f'{cell}<span class="low">5.46\u201326.11</span>' in index
    assert 'data-group="expected"' in index
    assert index.count("<option>Linf</option>") == 1
    assert "#board .linf_ties { width:" in index

    cards = {
        one.victim: ModelCard(
            id=one.victim, network="net", dataset="digits", classes=("0", "1"), input_shape=(1, 8, 8), method="lwf"
        )
        for one in records
    }
    build.write_cards(tmp_path / "cards", records, cards)
    card = (tmp_path / "cards" / "a-s0.md").read_text()
    assert "| linf_ties | 12.50 |" in card
    assert "name: Linf ties 8/255" in card


def test_rates_come_from_bits() -> None:
    (row,) = table([source(), record()])
    assert row["clean_acc"] == "90.00"
    assert (row["linf_acc"], row["l2_acc"], row["l1_acc"]) == ("50.00", "55.00", "50.00")
    assert row["union_acc"] == "40.00", "examples 4..19 survive all three, not the smallest rate"
    assert row["pgd20_linf_acc"] == "52.50"
    assert row["pretrained_asr"] == "25.00", "over the 36 clean-correct"
    assert row["noise_asr"] == "8.33"
    assert row["source_union_acc"] == "75.00"
    assert (row["forwards"], row["clean_acc_full"], row["n_full"]) == ("400", "90.00", "100")
    assert row["rank"] == "1"


def test_what_was_not_measured_is_empty_and_unranked() -> None:
    partial = record("b-s0", chains=[chain("Linf", first(36))], crafted=[], clean_full=None)
    good, bad = table([record(), partial])
    assert (good["victim"], good["rank"]) == ("a-s0", "1")
    assert bad["linf_acc"] == "90.00"
    for name in ("rank", "l2_acc", "union_acc", "pretrained_asr", "noise_asr", "clean_acc_full", "source_clean_acc"):
        assert bad[name] == "", name


def test_no_clean_correct_means_no_attack_success_rate() -> None:
    zero = [False] * N
    dead = record(
        clean=Bits.of(zero),
        chains=[chain(name, zero) for name in ("Linf", "L2", "L1")],
        crafted=[crafted("pretrained-neuron", 0), crafted("random-sign", 0)],
    )
    (row,) = table([dead])
    assert (row["pretrained_asr"], row["noise_asr"], row["union_acc"]) == ("", "", "0.00")


def test_ranks_are_formed_within_a_seed() -> None:
    records = [
        record(f"{name}-s{seed}", robust, seed=seed) for seed in (0, 1) for name, robust in (("a", 30), ("b", 6))
    ]
    assert [(row["victim"], row["rank"]) for row in table(records)] == [
        ("a-s0", "1"),
        ("b-s0", "2"),
        ("a-s1", "1"),
        ("b-s1", "2"),
    ]


def test_rows_of_different_sources_are_ranked_together() -> None:
    """Each was attacked with the same sets of its own source, whatever that source is called."""
    other = [crafted(one.attack["id"], 2, "other-s0", len(one.flips)) for one in record().crafted]
    records = [record("a-s0", 30), record("b-s0", 6, source="other-s0", crafted=other)]
    assert [(row["victim"], row["rank"]) for row in table(records)] == [("a-s0", "1"), ("b-s0", "2")]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"chains": [chain("Linf", first(37))]}, "counts an example that was wrong on clean"),
        ({"n": 39}, "the record says n=39"),
        ({"role": "hero"}, "role"),
        ({"extra": 1}, "extra"),
    ],
)
def test_an_impossible_record_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    import json

    path = tmp_path / "a.json"
    content = json.loads(dump(record()))
    content |= {
        name: [item.model_dump() for item in value] if name == "chains" else value for name, value in changes.items()
    }
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=complaint):
        read(path)


def test_reading_and_writing_a_record_changes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(dump(record()))
    assert dump(read(path)) == path.read_text()


def test_building_does_not_depend_on_the_order_of_records_and_check_sees_a_change(tmp_path: Path) -> None:
    records = [source(), record("a-s0", 30), record("b-s0", 10), record("c-s0", 20)]
    assert build.render(records) == build.render(records[::-1])
    (tmp_path / "records").mkdir()
    for one in records:
        (tmp_path / "records" / f"{one.victim}.json").write_text(dump(stamped(one)))
    assert len(build.check(tmp_path)) == 7
    build.rebuild(tmp_path)
    assert build.check(tmp_path) == []
    file = tmp_path / "leaderboard.csv"
    file.write_text(file.read_text().replace("75.00", "76.00"))
    assert "differs from its records" in build.check(tmp_path)[0]


def test_a_record_without_a_fresh_stamp_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    path = tmp_path / "records" / "a-s0.json"
    sealed = stamped(record())
    for written, complaint in (
        (record(), "was never verified"),
        (sealed.model_copy(update={"clean": Bits.of(first(37))}), "has changed since"),
        (sealed.model_copy(update={"cost": {"seconds": 2.5, "hardware": "cpu"}}), "has changed since"),
    ):
        path.write_text(dump(written))
        build.rebuild(tmp_path)
        assert [complaint in line for line in build.check(tmp_path)] == [True]
    path.write_text(dump(sealed))
    build.rebuild(tmp_path)
    assert build.check(tmp_path) == []


HOSTILE = [
    *("<script>alert(1)</script>", "a|b", "=1+1", '"quoted", name', "+cmd", "@x", "-2+3"),
    *("ünï 🦊", "\u202eevil", "two\nlines", "[a](http://b)"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless(name: str) -> None:
    texts = ("method", "source", "network", "suite", "protocol", "source_dataset", "target_dataset")
    sets = [crafted("pretrained-neuron", 9, name), crafted("random-sign", 3, name), crafted(name, 3, name)]
    hostile = record(**dict.fromkeys(texts, name), flags=[name], crafted=sets)
    files = build.render([source(), hostile])
    (row,) = list(csv.DictReader(io.StringIO(files["leaderboard.csv"])))
    transfers = list(csv.DictReader(io.StringIO(files["transfer.csv"])))
    assert len(transfers) == 2
    assert row["victim"] == "a-s0"
    for cell in (*(row[column] for column in (*texts[:4], "target_dataset", "flags")), *transfers[1].values()):
        assert cell[:1] not in ("=", "+", "-", "@")
        assert "\n" not in cell
        assert "\u202e" not in cell
    assert "<script>" not in files["leaderboard.md"]
    assert "\u202e" not in files["leaderboard.md"]
    for block in files["leaderboard.md"].split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        widths = {line.replace("\\|", "").count("|") for line in lines}
        assert len(widths) <= 1, "every line of a table has the same number of cells"


def test_numbers_are_not_taken_for_formulas() -> None:
    assert [csv_cell(cell) for cell in ("-1.50", "+3", "12.00", 3, "plain")] == ["-1.50", "+3", "12.00", 3, "plain"]
    assert markdown_cell("a_b*c") == r"a\_b\*c"


def test_percentages_have_two_decimals() -> None:
    assert percent(1, 3) == "33.33"
    assert percent(0, 0) == ""
