"""Every method beside the one that it adds to: which rows, their differences and tests, what they cost."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from support.records import N, record, stamped

from transferbench.leaderboard import build
from transferbench.leaderboard.extensions import extensions
from transferbench.leaderboard.seeds import paired
from transferbench.results.records import Bits, Record, dump


def row(name: str, method: str, robust: int = 20, seed: int = 0, **changes: Any) -> Record:
    given = {"method": method, "source": f"src-s{seed}", "seed": seed, "head": "new", "crafted": [], **changes}
    return record(f"{name}-s{seed}", robust, **given)


def table(records: list[Record]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(build.render(records).get("extensions.csv", ""))))


def pairs(records: list[Record]) -> list[tuple[str, str]]:
    return [(line["victim"], line["extended"]) for line in table(records)]


def test_differences_are_those_of_the_bits_and_the_cost_is_beside_them() -> None:
    """Unions of `record` lose the first four: 23 and 16 of 40."""
    base = row("at", "madry", 20, train_forwards=10_000, train_backwards=9_000)
    own = row("roli", "roli", 27, extends=["madry"], clean=Bits.of([place != N - 1 for place in range(N)]),
              train_forwards=15_000, train_backwards=13_500)  # fmt: skip
    (line,) = table([base, own])
    assert (line["method"], line["extended_method"], line["source"], line["n"]) == ("roli", "madry", "src", str(N))
    assert (line["union"], line["union_extended"], line["union_difference"]) == ("57.50", "40.00", "17.50")
    assert (line["union_only_own"], line["union_only_extended"]) == ("7", "0")
    assert float(line["union_p"]) == pytest.approx(binomtest(0, 7).pvalue, rel=1e-3)
    assert (line["clean_only_own"], line["clean_only_extended"]) == ("3", "0")
    assert (line["train_forwards"], line["train_backwards_extended"]) == ("15000", "9000")
    page = build.render([base, own])["leaderboard.md"]
    (text,) = [line for line in page.splitlines() if line.startswith("| roli | src | at |")]
    assert "+17.50 [" in text
    assert text.endswith("| 15 + 14, 1.5 times |")


def test_seeds_are_pooled_with_the_image_as_the_unit() -> None:
    """Two seeds that both have, a third that only one has; p and ends are those of `paired`."""
    base = [row("at", "madry", 20, seed) for seed in (0, 1)]
    own = [row("roli", "roli", robust, seed, extends=["madry"]) for seed, robust in enumerate((27, 24, 30))]
    (found,) = extensions([*base, *own])
    assert [one.seed for one in found.own] == [one.seed for one in found.base] == [0, 1]
    verdicts = [
        np.array([[4 <= place < robust for place in range(N)] for robust in several])
        for several in ((27, 24), (20, 20))
    ]
    expected = paired(*verdicts)
    union = found.pairs["union"]
    assert (union.p, union.low, union.high) == (expected.p, expected.low, expected.high)
    assert union.difference == pytest.approx((7 + 4) / 2 / N)


def test_holm_is_over_all_rows_of_a_measure() -> None:
    records = [row("at", "madry", 12)]
    records += [row(f"m{robust}", f"m{robust}", robust, extends=["madry"]) for robust in (20, 24, 32)]
    lines = table(records)
    expected = multipletests([float(line["union_p"]) for line in lines], method="holm")[1]
    assert [float(line["union_p_holm"]) for line in lines] == pytest.approx(expected, rel=1e-3)


def test_which_rows_are_compared() -> None:
    finetune, at = row("finetune", "finetune"), row("at", "madry", extends=["finetune"])
    lora = row("lora", "madry", extends=["finetune"], variant={"tune": "lora"})
    roli = row("roli", "roli", extends=["madry", "finetune"])
    roli_lora = row("roli-lora", "roli", extends=["madry", "finetune"], variant={"tune": "lora"})
    # The nearest method that has a row; a variant beside the same without it, and beside the same one of the method.
    assert pairs([finetune, at, lora, roli, roli_lora]) == [
        ("at", "finetune"),
        ("lora", "at"),
        ("roli", "at"),
        ("roli-lora", "roli"),
        ("roli-lora", "lora"),
    ]
    assert pairs([finetune, roli]) == [("roli", "finetune")]
    assert pairs([finetune, roli_lora]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "other-s0"},
        {"target_dataset": "letters"},
        {"suite": "another"},
        {"data_fingerprint": "e" * 32},
        {"head": ""},
        {"flags": ["untrained"]},
        {"seed": 1},
    ],
)
def test_what_is_not_the_same_is_not_compared(changes: dict[str, Any]) -> None:
    roli = row("roli", "roli", extends=["madry"])
    assert pairs([row("at", "madry"), roli]) == [("roli", "at")]
    assert pairs([row("at", "madry", **changes), roli]) == []


def test_a_board_without_extensions_has_no_table(tmp_path: Path) -> None:
    """And one with them misses its file in `--check`."""
    alone = build.render([row("at", "madry", extends=["finetune"])])
    assert "extensions.csv" not in alone
    assert "adds" not in alone["leaderboard.md"]
    (tmp_path / "records").mkdir()
    records = [stamped(one) for one in (row("at", "madry"), row("roli", "roli", extends=["madry"]))]
    for one in records:
        (tmp_path / "records" / f"{one.victim}.json").write_text(dump(one))
    build.write(tmp_path, records)
    assert build.check(tmp_path) == []
    (tmp_path / "extensions.csv").write_text("suite\n")
    assert any("extensions.csv: differs" in complaint for complaint in build.check(tmp_path))
