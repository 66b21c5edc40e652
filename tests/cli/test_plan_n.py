"""`plan-n`, and the line of `run --dry-run` about n."""

from __future__ import annotations

import json

import pytest

import transferbench
from transferbench.cli.main import main


def test_the_n_of_a_difference_and_the_power_of_an_n(capsys: pytest.CaptureFixture[str]) -> None:
    """658: the first n of the exact test; the normal approximation says 624 (Connett, Smith and McHugh 1987)."""
    assert main(["plan-n", "--difference", "5", "--discordance", "20"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("n = 658: a difference of 5 points is found with 80.1 % power")
    assert text == f"{transferbench.plan_n(5, 20)}\n"
    assert main(["plan-n", "--difference", "5", "--discordance", "20", "--n", "200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["difference"], found["wanted"]) == (200, 5, 0.8)
    assert 0.25 < found["power"] < 0.35
    assert 9 < found["detectable"] < 9.3


@pytest.mark.parametrize(
    "words",
    ["--difference 5", "--difference 30 --discordance 20", "--difference nan --discordance 20",
     "--difference 5 --discordance 20 --n 0", "--difference 5 --discordance 20 --power 80",
     "--difference 5 --discordance 20 --n 100 --power 80", "--difference 5 --discordance 20 --level 0",
     "--difference 5 --discordance inf", "runs/mine --difference 5 --discordance 20"],
)  # fmt: skip
def test_bad_numbers_are_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-n", *words.split()]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_help_says_that_no_run_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-n", "--help"]) == 0
    assert "post-hoc power" in " ".join(capsys.readouterr().out.split())


def test_a_dry_run_says_how_exact_its_n_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "letters-to-digits", "--dry-run"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("n = 200: "))
    assert "differ on 20 % of the examples" in line
    assert "about +-6.3 points" in line
    assert "one of 9.1 points or more is found with 80 % power" in line
    assert main(["run", "letters-to-digits", "--dry-run", "--n", "20"]) == 0
    assert "no difference is found" in capsys.readouterr().out
