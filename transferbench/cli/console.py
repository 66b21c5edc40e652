"""Console output: tables and reports when a command is done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from transferbench.base.attack_parameters import text_of
from transferbench.base.corruptions import SEVERITIES
from transferbench.base.names import short_network
from transferbench.base.results import DrawCounts
from transferbench.base.specifications import AttackSpec
from transferbench.cli import source_only_report
from transferbench.cli.failures import one_line
from transferbench.cli.output import say
from transferbench.cli.summary_table import print_summary
from transferbench.leaderboard.corruptions import CorruptionScores, Score
from transferbench.leaderboard.measurements import Measurements, union
from transferbench.leaderboard.statistics import wilson
from transferbench.results.records import Record
from transferbench.results.verification import VerificationCounts
from transferbench.workflows.job_progress import make_console

_FILES = (
    "leaderboard.md",
    "leaderboard.csv",
    "cost.csv",
    "transfer.csv",
    "source_only.csv",
    "queries.csv",
    "extensions.csv",
    "image_files.csv",
)
_FOLDERS = ("figures", "galleries", "records", "cards", "victims", "examples")


def print_board(folder: Path, records: Sequence[Record]) -> None:
    """Print the summary of a board, and where its files are."""
    print_summary(make_console(), records)
    present = [name for name in (*_FILES, *_FOLDERS) if (folder / name).exists()]
    say(f"files: {folder}/ ({', '.join(present)})")
    if (folder / "index.html").is_file():
        say(f"page: {folder / 'index.html'}")


def evaluation_report(record: Record, weights: str) -> str:
    """The report of `eval`: weights, data, seed, and per threat the rate with n, interval and every attack."""
    lines = [
        f"model    {record.victim} ({short_network(record.network)})",
        f"weights  {weights or 'in memory'}, sha256 {record.weights_sha256}",
        f"data     {record.target_dataset} test, {record.sample}, fingerprint {record.data_fingerprint}",
        f"         class counts {record.class_counts}",
        f"seed     {record.seed}",
        f"clean    {_rate(record.clean.count, record.n)}",
    ]
    for chain in record.chains:
        texts = {attack["id"]: text_of(AttackSpec.from_dict(attack)) for attack in chain.attacks}
        broke = ", ".join(
            f"{texts.get(part['attack'], part['attack'])} x{part['tries']} broke {part['broke']}"
            for part in chain.by_attack
        )
        ties = f", {chain.ties} ties" if chain.ties else ""
        broke = broke or "no example was correct on clean"
        rate = _rate(chain.robust.count, chain.robust.n)
        lines.append(f"{chain.norm:<5}{chain.eps:>6} at {record.images}  {rate}  ({broke}{ties})")
        if chain.precision:
            lines.append(f"         searched in {chain.precision}, {chain.searched_again} once more in fp32")
        if chain.draws is not None:
            counts = DrawCounts(**{**dict(chain.draws), "eot": tuple(chain.draws.eot)})
            lines.append(f"         {counts.text(chain.robust.n)}")
    survivors = union(record)
    if survivors is not None:
        lines.append(f"union    {_rate(survivors.count, survivors.n)}")
    lines += source_only_report.lines(record)
    for threat, scores in Measurements(record).corruptions.items():
        lines += _corruptions(record, threat, scores)
    if record.unmeasured_threat:
        how = f"--norms {record.unmeasured_threat}"
        lines.append(f"note     the model is one for {record.unmeasured_threat}, which was not measured ({how})")
    if record.weights_sha256.startswith("python-"):
        lines.append(
            "note     the model declares no fingerprint: a second run will not find this result and attacks anew"
        )
    if record.batch is not None and "randomised" in record.flags:
        lines.append(
            f"note     the model's answers are random: these verdicts are of this seed and of {record.batch} rows in "
            "flight; clean accuracy, too, is by the mean of draws"
        )
    elif record.batch is not None:
        lines.append(f"note     the model's answers depend on its batch: judged with {record.batch} rows in flight")
    if record.flags:
        lines.append(f"flags    {', '.join(_flag(record, name) for name in record.flags)}")
    return "\n".join(lines)


def _corruptions(record: Record, threat: str, scores: CorruptionScores) -> list[str]:
    """A benchmark of corrupted images: its mean with n and interval, mCE, and the accuracies by severity."""
    parts = f"mean of {len(scores.counts)} corruptions x {len(SEVERITIES)} severities, {record.n} images each"
    lines = [f"{threat:<8} {_score(scores.accuracy)}  ({parts})"]
    if scores.mce is not None:
        lines.append(f"mCE      {_score(scores.mce)}  (relative to AlexNet)")
    low, high = wilson(record.n // 2, record.n)
    lines.append(
        f"         each rate below is of {record.n} images: its 95 % interval at 50 % is +-{50 * (high - low):.1f}"
    )
    lines.append(f"         {'severity':<18}{''.join(f'{severity:>8}' for severity in SEVERITIES)}{'mean':>8}")
    for name, counts in scores.counts.items():
        shares = [100 * count / record.n for count in counts]
        lines.append(f"         {name:<18}{''.join(f'{share:8.2f}' for share in (*shares, sum(shares) / len(shares)))}")
    return lines


def _score(score: Score) -> str:
    low, high = score.interval
    return f"{100 * score.value:6.2f} %  [{low}, {high}]"


def _flag(record: Record, name: str) -> str:
    """The flag, with the share of the clean-correct examples where it is counted by example."""
    count = record.flag_rows.get(name)
    return name if count is None else f"{name} ({count} of {record.clean.count})"


def _rate(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{100 * count / n:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]  {count}/{n}"


def print_verified(record: Record, counts: VerificationCounts) -> None:
    """One line about a record that was verified."""
    ties = f", {counts.changed_ties} ties fell the other way" if counts.changed_ties else ""
    others = f", {counts.disagreements} predictions differ (flagged)" if counts.disagreements else ""
    others += f"; not stamped: {counts.unstamped}" if counts.unstamped else ""
    say(f"{record.victim}: {counts.points} end points and all counts hold{ties}{others}")


def exit_on(complaints: Sequence[str]) -> None:
    """Print complaints, one line each, and end the command with status 1 if there are any."""
    for complaint in complaints:
        print(f"transferbench: error: {one_line(complaint)}", file=sys.stderr)
    if complaints:
        raise click.exceptions.Exit(1)
