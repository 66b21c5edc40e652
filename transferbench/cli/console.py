"""Console output: progress bars while jobs run, tables and reports when they are done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from transferbench.base.attack_parameters import text_of
from transferbench.base.corruptions import SEVERITIES
from transferbench.base.ids import RENOFEATION, SOURCE_PGD
from transferbench.base.names import short_network
from transferbench.base.progress import OnProgress, Progress
from transferbench.base.results import DrawCounts
from transferbench.base.specifications import AttackSpec
from transferbench.cli.failures import one_line, printable
from transferbench.cli.output import say
from transferbench.cli.summary_table import print_summary
from transferbench.jobs.job import Job
from transferbench.leaderboard.corruptions import CorruptionScores, Score
from transferbench.leaderboard.measurements import Measurements, union
from transferbench.leaderboard.statistics import wilson
from transferbench.results.records import CraftedRecord, Record
from transferbench.results.verification import VerificationCounts


def make_console(stderr: bool = False) -> Console:
    """A console that prints text as it is: a name in brackets is no style."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


class Bars:
    """A scheduling.reporter.Reporter: one bar over all jobs with the time left, and one for every running job.

    Where the output is no terminal, one line per finished job takes their place.
    """

    def __init__(self) -> None:
        self.console = make_console(stderr=True)
        self.live = self.console.is_terminal
        self.done, self.total, self.reused = 0, 0, 0
        self._tasks: dict[str, TaskID] = {}
        self._listeners: list[OnProgress] = []
        self._progress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )

    def also(self, listener: OnProgress) -> None:
        """Call the listener with every job's progress as well."""
        self._listeners.append(listener)

    def __enter__(self) -> Bars:
        self._progress.start()
        self._all = self._progress.add_task("all jobs", total=None, note="", visible=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, job: Job[Any], number: int, total: int) -> None:
        if number == 0:
            self.done = 0
            self._progress.reset(self._all)
        self.total = total
        self._progress.update(self._all, total=total, visible=total > 1)
        self._tasks[job.name] = self._progress.add_task(job.label, total=None, note="", visible=False)

    def update(self, job: Job[Any], progress: Progress) -> None:
        for listener in self._listeners:
            listener(progress)
        if job.name in self._tasks:
            task = self._tasks[job.name]
            self._progress.update(
                task, completed=progress.done, total=progress.total, note=_note(progress), visible=True
            )

    def end(self, job: Job[Any], reused: bool) -> None:
        self._remove(job)
        self.reused += reused
        if not self.live and not reused:
            self.note(f"[{self.done}/{self.total}] {job.label}")

    def failed(self, job: Job[Any], reason: str) -> None:
        self._remove(job)
        self.note(f"failed: {reason}")

    def note(self, text: str) -> None:
        self.console.print(printable(text), soft_wrap=not self.live)

    def _remove(self, job: Job[Any]) -> None:
        self.done += 1
        self._progress.advance(self._all)
        task = self._tasks.pop(job.name, None)
        if task is not None:
            self._progress.remove_task(task)


def _note(progress: Progress) -> str:
    if progress.robust is not None:
        return f"examples, {progress.robust} still robust"
    return "steps  " + "  ".join(f"{name} {value:.3f}" for name, value in progress.values.items())


_FILES = ("leaderboard.md", "leaderboard.csv", "cost.csv", "transfer.csv")
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
        f"data     {record.target_dataset} test, first {record.n}, fingerprint {record.data_fingerprint}",
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
        lines.append(
            f"{chain.norm:<5}{chain.eps:>6} at {record.images}  {_rate(chain.robust.count, record.n)}  ({broke}{ties})"
        )
        if chain.draws is not None:
            counts = DrawCounts(**{**dict(chain.draws), "eot": tuple(chain.draws.eot)})
            lines.append(f"         {counts.text(record.n)}")
    survivors = union(record)
    if survivors is not None:
        lines.append(f"union    {_rate(survivors.count, record.n)}")
    for crafted in record.crafted:
        control = record.control(crafted.norm)
        if control is not None and crafted is not control:
            threat = f"{crafted.norm} {crafted.eps} at {record.images}"
            lines.append(f"source   {threat}: {_source_only(record, crafted, control)}")
            if crafted.norm == RENOFEATION and len(crafted.flips) == 1 and record.clean.count:
                share = 100 * crafted.any_of() / record.clean.count
                lines.append(f"         Attack Success Rate, as Renofeation's evaluator prints it: {share:.2f}")
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


def _source_only(record: Record, crafted: CraftedRecord, control: CraftedRecord) -> str:
    """What an attacker who holds only the source achieves, beside noise of the same size."""
    correct, k = record.clean.count, len(crafted.flips)
    how = "its gradient" if crafted.attack["id"] == SOURCE_PGD else _neurons(crafted)
    return (
        f"an attacker who holds only {crafted.source} fools {_count(crafted.any_of(), correct)} ({how}); equal-sized "
        f"noise {_count(control.any_of(k), correct)}"
    )


def _neurons(crafted: CraftedRecord) -> str:
    """Which neurons of the source were driven: `its neuron 0`, `any of 8 of its neurons`, from the first by default."""
    first, count = int(crafted.attack.get("neuron", 0)), len(crafted.flips)
    if count == 1:
        return f"its neuron {first}"
    return f"any of {count} of its neurons" + (f" from {first} on" if first else "")


def _count(flipped: int, correct: int) -> str:
    if not correct:
        return "0 of 0"
    low, high = wilson(flipped, correct)
    return f"{flipped} of {correct} [{100 * low:.0f}-{100 * high:.0f} %]"


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
