"""The table as a whole: golden files, properties over random records, pictures."""

from __future__ import annotations

import csv
import io
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import N, chain, crafted, first, record, source, stamped, table, three

from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.leaderboard import build, figures, published, published_numbers, transfer
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.leaderboard.statistics import expected, mcnemar, ranks
from transferbench.results.records import Bits, Record, dump

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["leaderboard.csv", "cost.csv", "transfer.csv", "leaderboard.md"])
def test_three_records_give_the_golden_files(name: str) -> None:
    """After a wanted change: `python tests/test_tables.py` writes them anew; read the difference."""
    assert build.render(three())[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_new_cells_by_hand() -> None:
    rows = {row["victim"]: row for row in table(three())}
    whole, partial = rows["whole-s0"], rows["part-s0"]
    # 36 of 40 clean, 30 at 2/255, 20 at 8/255: the mean over [0, 8/255] by trapezoids.
    area = (36 + 30) / 2 * 2 + (30 + 20) / 2 * 6
    assert float(whole["linf_expected"]) == pytest.approx(100 * area / 8 / N, abs=0.005)
    assert (whole["l2_expected"], partial["linf_expected"]) == ("", "")
    assert whole["change_linf"] == f"{100 * (20 - 30) / N:+.2f}"
    assert whole["source_pgd_asr"] == f"{100 * 7 / 36:.2f}"
    # The control's first draw flips nothing, all eight flip 3.
    assert whole["source_pgd_noise_asr"] == "0.00"
    assert whole["noise_asr"] == f"{100 * 3 / 36:.2f}"
    assert whole["noise_asr_n"] == f"{100 * 3 / N:.2f}"
    assert (whole["flags"], whole["card"]) == ("randomised", "whole-s0.md")
    assert (partial["rank"], partial["union_acc"], partial["l2_acc"], partial["pretrained_asr"]) == ("", "", "", "")
    matrix = {(row["source"], row["attack"]): row for row in transfer.rows(three())}
    assert {key: row["own"] for key, row in matrix.items()} == {
        ("src-s0", "pretrained-neuron"): "yes",
        ("src-s0", "source-pgd"): "yes",
        ("other-s0", "source-pgd"): "no",
    }
    assert matrix["other-s0", "source-pgd"]["asr"] == f"{100 * 2 / 36:.2f}"


def test_a_set_of_another_source_than_the_cards_has_its_noise_and_its_place() -> None:
    """eval --source B for a victim whose card says A, beside a victim of B: no cell is own where none was made."""
    sets_of_b = [crafted("pretrained-neuron", 9, "b-s0"), crafted("random-sign", 3, "b-s0")]
    own = crafted("pretrained-neuron", 5, "src-s0")
    records = [record("x-s0", crafted=sets_of_b), record("y-s0", crafted=[own], method="probe")]
    rows = {row["victim"]: row for row in transfer.rows(records)}
    assert (rows["x-s0"]["own"], rows["x-s0"]["noise_asr"]) == ("no", f"{100 * 3 / 36:.2f}")
    assert rows["y-s0"]["noise_asr"] == ""
    page = transfer.markdown(records)
    assert f"**{100 * 5 / 36:.2f}**" in page
    assert f"| {100 * 9 / 36:.2f} |" in page


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=6))
def test_expected_robustness_lies_between_the_extremes(parts: list[tuple[float, int]]) -> None:
    radius, points = Fraction(0), [(Fraction(0), 1.0)]
    for rate, step in parts:
        radius += Fraction(step, 255)
        points.append((radius, rate))
    rates = [rate for _, rate in points]
    assert min(rates) - 1e-9 <= expected(points) <= max(rates) + 1e-9
    x, y = [float(radius) for radius, _ in points], rates
    assert expected(points) == pytest.approx(np.trapezoid(y, x) / x[-1], abs=1e-9)


BITS = st.lists(st.booleans(), min_size=N, max_size=N)


@given(st.lists(BITS, min_size=1, max_size=5))
def test_ranks_are_honest(verdicts: list[list[bool]]) -> None:
    found = ranks(verdicts)
    assert all(1 <= rank <= len(verdicts) for rank in found)
    assert min(found) == 1, "somebody is beaten by nobody"
    for a, mine in enumerate(verdicts):
        for b, theirs in enumerate(verdicts):
            if mine == theirs:
                assert found[a] == found[b], "the same verdicts, the same rank"
            if found[a] < found[b] and sum(mine) <= sum(theirs):
                # Who has the better rank has the higher rate, unless the data do not tell them apart.
                assert mcnemar(mine, theirs) > 0


@given(st.lists(BITS, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_tables_do_not_depend_on_order_and_survive_missing_parts(verdicts: list[list[bool]], dice: Any) -> None:
    clean = first(36)
    records = [source()]
    for number, bits in enumerate(verdicts):
        robust = [one and right for one, right in zip(bits, clean, strict=True)]
        measured = dice.sample(["Linf", "L2", "L1"], dice.randint(1, 3))
        records.append(record(f"v{number}-s0", chains=[chain(norm, robust) for norm in measured]))
    shuffled = dice.sample(records, len(records))
    files = build.render(records)
    assert files == build.render(shuffled)
    for row in csv.DictReader(io.StringIO(files["leaderboard.csv"])):
        rates = [float(row[f"{norm}_acc"]) for norm in ("linf", "l2", "l1") if row[f"{norm}_acc"]]
        assert (row["union_acc"] == "") == (len(rates) < 3)
        assert row["union_acc"] == "" or float(row["union_acc"]) <= min(rates)
        for rate in ("clean_acc", "linf_acc", "l2_acc", "l1_acc", "pretrained_asr"):
            if row[rate]:
                assert float(row[f"{rate}_low"]) <= float(row[rate]) <= float(row[f"{rate}_high"])
            else:
                assert row[f"{rate}_low"] == row[f"{rate}_high"] == ""


def test_the_pictures_are_the_same_each_time_and_say_everything(tmp_path: Path) -> None:
    hostile = record("v$x_1$-s0", method="_$\\frac{a}{0}$<b>", source="$\\oops{", robust=10)
    records = [*three(), hostile]
    files = figures.write(tmp_path, records)
    assert {path.name for path in files} == {f"{name}.{kind}" for name in figures.TITLES for kind in ("svg", "png")}
    before = {path: path.read_bytes() for path in files}
    figures.write(tmp_path, records[::-1])
    assert before == {path: path.read_bytes() for path in files}
    for path in files:
        if path.suffix == ".svg":
            ElementTree.parse(path)
            assert b"<dc:date>" not in path.read_bytes()
            assert b"<b>" not in path.read_bytes()
        else:
            assert 5_000 < path.stat().st_size < 400_000
    assert figures.write(tmp_path / "none", records[:2]) == []
    assert not (tmp_path / "none").exists()
    links = figures.markdown(leaderboard_rows(records))
    assert all(f"figures/{name}.png" in links for name in figures.TITLES)


EAT: dict[str, Any] = {
    "method": "eat",
    "network": "preact-resnet18",
    "source_dataset": "cifar10",
    "target_dataset": "cifar10",
    "source": "RB_Engstrom2019Robustness@cifar10/Linf",
}


def eat_chain(name: str, eps: str, bits: list[bool], **attack: Any) -> Any:
    full = [{"id": "apgd-ce", **attack}, {"id": "apgd-t"}]
    screened = [{"id": "l1-screen"}, *full] if name == "L1" else full
    return chain(name, bits).model_copy(update={"eps": eps, "attacks": screened})


def eat(**changes: Any) -> Record:
    chains = [
        eat_chain("Linf", "8/255", first(18)),
        eat_chain("L2", "0.5", first(26)),
        eat_chain("L1", "12", first(22)),
    ]
    return record("eat-s0", **{**EAT, "chains": chains, "crafted": [], **changes})


def test_published_numbers_stand_next_to_the_measured_ones() -> None:
    numbers = published_numbers.read(Path(__file__).parents[2] / "leaderboards" / "published.csv")
    rows = published.compare([eat()], numbers)
    mine = {row["measure"]: row for row in rows if str(row["table"]).startswith("E-AT Table 1")}
    assert set(mine) == {"clean", "Linf", "L2", "L1", "union"}
    assert mine["Linf"]["measured"] == "45.00"
    shift = float(mine["Linf"]["measured"]) - float(mine["Linf"]["published"])
    assert float(mine["Linf"]["difference"]) == pytest.approx(shift, abs=0.005)
    notes = str(mine["Linf"]["notes"])
    assert f"n = {N} here" in notes
    assert "source there: CIFAR-10 (Linf-AT start)" in notes
    assert "source here: RB_Engstrom2019Robustness@cifar10/Linf" in notes
    assert "protocol here" not in notes, "the chain is the paper's"
    shortened = [eat_chain("Linf", "8/255", first(18), n_iter=20)]
    compared = published.compare([eat(chains=shortened)], numbers)
    notes_of_linf = [str(row["notes"]) for row in compared if row["measure"] == "Linf"]
    assert notes_of_linf
    assert all("protocol here: short" in note for note in notes_of_linf)
    page = published.render(rows, len(numbers), False)["published.md"]
    assert "RobustBench's own numbers were not given" in page


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "lwf"},
        {"network": "small-resnet"},
        {"target_dataset": "cifar100"},
        {"source_dataset": "imagenet"},
        {"chains": [eat_chain("Linf", "4/255", first(18))], "clean": Bits.of(first(36))},
    ],
)
def test_what_is_not_the_same_thing_is_not_compared(changes: dict[str, Any]) -> None:
    numbers = published_numbers.read(Path(__file__).parents[2] / "leaderboards" / "published.csv")
    rows = published.compare([eat(**changes)], numbers)
    assert [row for row in rows if row["measure"] == "Linf" and "train+eval" not in str(row["notes"])] == []
    if "chains" not in changes:
        assert [row for row in rows if "E-AT" in str(row["paper"])] == []


def test_a_number_of_a_figure_has_no_decimals_and_its_footnote() -> None:
    numbers = published_numbers.read(Path(__file__).parents[2] / "leaderboards" / "published.csv")
    number = next(one for one in numbers if one.table.startswith("E-AT Table 1") and one.method == "eat")
    clean = number._replace(measure="clean", value=84.0, provenance="figure reading")
    rows = published.compare([eat()], [clean])
    # 36 of 40 are 90 %.
    assert [(row["published"], row["difference"], row["provenance"]) for row in rows] == [
        ("84", "+6", "figure reading")
    ]
    rendered = published.render(rows, 1, True)
    assert "| 84 | +6 |" in rendered["published.md"]
    assert "figure reading: read off a figure" in rendered["published.md"]
    assert ",84,+6," in rendered["published.csv"]
    equal = published.compare([eat()], [clean._replace(value=90.0)])
    assert equal[0]["difference"] == "+0"


def test_numbers_that_were_selected_on_test_images_say_so() -> None:
    """AutoLoRa's table of TWINS, beside a victim of the same source on the same images."""
    numbers = published_numbers.read(Path(__file__).parents[2] / "leaderboards" / "published.csv")
    chains = [eat_chain("Linf", "8/255", first(18)), chain("pgd10_linf", first(20), "Linf")]
    network = "robustbench:imagenet/Linf/Salman2020Do_R50"
    twins = record("twins-s0", method="twins", network=network, source="RB_Salman2020Do_R50@imagenet/Linf",
                   source_dataset="imagenet", target_dataset="caltech256", chains=chains, crafted=[])  # fmt: skip
    rows = published.compare([twins], numbers)
    assert [(row["measure"], row["published"]) for row in rows] == [
        ("clean", "69.41"),
        ("Linf", "42.27"),
        ("PGD-10", "47.79"),
    ]
    page = published.render(rows, len(numbers), True)["published.md"]
    footnotes = dict(line.split(". ", 1) for line in page.splitlines() if re.match(r"\d+\. ", line))
    mark = next(number for number, note in footnotes.items() if "best on test images" in note)
    lines = [line for line in page.splitlines() if line.startswith("| twins-s0")]
    assert len(lines) == 3
    assert all(mark in line.split("|")[-2].replace(" ", "").split(",") for line in lines)
    assert "there AutoAttack's standard version" in str(rows[1]["notes"])


def test_every_number_says_how_it_was_read_and_where_the_code_selects_on_test_images() -> None:
    path = Path(__file__).parents[2] / "leaderboards" / "published.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert {line["provenance"] for line in lines} == set(published_numbers.PROVENANCES)
    of_code = [line for line in lines if "AutoLoRa" in line["paper"] or line["method"] == "AutoLoRa"]
    assert of_code
    assert all("best on test images" in line["note"] for line in of_code)
    readme = (path.parent / "README.md").read_text(encoding="utf-8")
    papers = len({line["paper"] for line in lines})
    words = {11: "eleven"}
    assert f"holds {len(lines)} numbers of {words[papers]} papers" in readme


def rb(folder: Path, dataset: str, threat: str, id: str, **info: Any) -> None:
    path = folder / "model_info" / dataset / threat / f"{id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(info))


def test_robustbenchs_numbers_come_from_a_checkout(tmp_path: Path) -> None:
    """Three kinds: text in percent; numbers, an unreliable mark and an external attack; no radius at all."""
    rb(
        tmp_path, "cifar10", "Linf", "Carmon2019Unlabeled",
        eps="8/255", clean_acc="89.69", reported="62.5", autoattack_acc="59.53", additional_data=True,
    )  # fmt: skip
    rb(
        tmp_path, "cifar10", "L2", "Rade2021Helper_R18_ddpm",
        eps=0.5, clean_acc=90.57, autoattack_acc=76.15, external="75.90", unreliable=True, footnote="one net",
    )  # fmt: skip
    rb(tmp_path, "cifar10", "corruptions", "Standard", eps=None, clean_acc="94.78", corruptions_acc="73.46")
    numbers = published_numbers.robustbench(tmp_path)
    assert [(number.measure, number.eps, number.value) for number in numbers] == [
        ("clean", "", 90.57),
        ("L2", "0.5", 76.15),
        ("clean", "", 89.69),
        ("Linf", "8/255", 59.53),
        ("clean", "", 94.78),
    ]
    carmon = record(
        "RB_Carmon2019Unlabeled@cifar10/Linf",
        target_dataset="cifar10",
        chains=[eat_chain("Linf", "8/255", first(24)), eat_chain("L2", "0.5", first(24))],
    )
    rows = published.compare([carmon], numbers)
    assert [(row["measure"], row["published"]) for row in rows] == [("clean", "89.69"), ("Linf", "59.53")]
    assert "reported by its authors: 62.5" in str(rows[1]["notes"])
    helper = [str(number.notes) for number in numbers if number.measure == "L2"]
    assert all(text in helper[0] for text in ("best known attack: 75.90", "unreliable", "one net"))
    with pytest.raises(InputError, match="no model_info"):
        published_numbers.robustbench(tmp_path / "model_info")
    (tmp_path / "model_info" / "cifar10" / "Linf" / "Bad.json").write_text("[1")
    with pytest.raises(InputError, match=r"Bad.json: cannot be read"):
        published_numbers.robustbench(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("value_percent", "value", 1), "no column 'value_percent'"),
        (lambda text: text.replace(",48.1,", ",148.1,", 1), "line 3: '148.1' is no percentage"),
        (lambda text: text.replace(",48.1,", ",high,", 1), "line 3: 'high' is no percentage"),
        (
            lambda text: re.sub(r"(union_robust_acc,[^,]*,8/255\|0.5\|12,[^,]*,)[0-9.]+", r"\g<1>99.6", text, count=1),
            "union",
        ),
        (lambda _: "", "no column"),
        (lambda text: text.replace(",provenance\n", ",origin\n", 1), "no column 'provenance'"),
        (lambda text: text.replace(",table\n", ",tabel\n", 1), "line 2: unknown provenance 'tabel'.*'table'"),
        (lambda text: text.replace(",76,", ",76.3,", 1), "'76.3' is a figure reading: give whole percents"),
    ],
)
def test_impossible_published_numbers_are_refused(change: Any, complaint: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "leaderboards" / "published.csv").read_text(encoding="utf-8")
    (tmp_path / "p.csv").write_text(change(text), encoding="utf-8")
    with pytest.raises(InputError, match=complaint):
        published_numbers.read(tmp_path / "p.csv")


def test_the_command_writes_the_page_and_rebuild_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records").mkdir()
    for one in (*three(), eat()):
        (tmp_path / "records" / f"{one.victim}.json").write_text(dump(stamped(one)))
    file = Path(__file__).parents[2] / "leaderboards" / "published.csv"
    assert main(["leaderboard", str(tmp_path), "--rebuild", "--check", "--published", str(file)]) == 0
    assert "E-AT Table 1" in capsys.readouterr().out
    assert (tmp_path / "published.csv").is_file()
    assert (tmp_path / "figures" / "pareto.svg").is_file()
    (tmp_path / "figures" / "pareto.svg").unlink()
    assert main(["leaderboard", str(tmp_path), "--check"]) == 0, "tables are compared, figures are not"


if __name__ == "__main__":
    for name, content in build.render(three()).items():
        (GOLDEN / name).write_text(content, encoding="utf-8")
