"""What the terminal shows: bars while jobs run, the table when they are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from transferbench.jobs.job import Job
from transferbench.leaderboard.markdown import mean_and_range
from transferbench.leaderboard.pooling import pooled
from transferbench.leaderboard.rows import leaderboard_rows, percent, union
from transferbench.leaderboard.statistics import wilson
from transferbench.results.records import Record
from transferbench.store.checkpoint_file import Checkpoint


class Bars:
    """A workplaces.Reporter: one bar over all jobs with the time left, one for every job under way.

    Where the output is no terminal, one line per finished job takes the bars' place.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.done, self.total, self.reused = 0, 0, 0
        self.bars: dict[str, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )

    def __enter__(self) -> Bars:
        self.progress.start()
        self.all = self.progress.add_task("all jobs", total=None, note="", visible=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.progress.stop()

    def begin(self, job: Job, number: int, total: int) -> None:
        if number == 0:
            self.done = 0
            self.progress.reset(self.all)
        self.total = total
        self.progress.update(self.all, total=total, visible=True)
        self.bars[job.name] = self.progress.add_task(job.label, total=None, note="", visible=False)

    def update(self, job: Job, done: int, total: int, robust: int | None) -> None:
        unit = "steps" if robust is None else f"examples, {robust} still robust"
        if job.name in self.bars:
            self.progress.update(self.bars[job.name], completed=done, total=total, note=unit, visible=True)

    def end(self, job: Job, reused: bool) -> None:
        self._over(job)
        self.reused += reused
        if not self.live and not reused:
            self.console.print(f"[{self.done}/{self.total}] {job.label}", markup=False, highlight=False)

    def failed(self, job: Job, reason: str) -> None:
        self._over(job)
        self.note(f"failed: {reason}")

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def _over(self, job: Job) -> None:
        self.done += 1
        self.progress.advance(self.all)
        bar = self.bars.pop(job.name, None)
        if bar is not None:
            self.progress.remove_task(bar)

    def training(self, label: str, checkpoint: Checkpoint) -> Callable[[int, int, dict[str, float]], None]:
        """For `train`: one bar of steps with the loss by its parts, and a line where it goes on from a checkpoint."""
        saved = checkpoint.load()
        if saved is not None and saved["log"]:
            self.note(f"{label}: going on after step {saved['log'][-1]['step'] + 1}")
        bar = self.progress.add_task(label, total=None, note="")

        def progress(done: int, total: int, parts: dict[str, float]) -> None:
            note = "steps  " + "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
            self.progress.update(bar, completed=done, total=total, note=note)

        return progress


_SHOWN = {
    "clean_acc": "clean",
    "linf_acc": "Linf",
    "l2_acc": "L2",
    "l1_acc": "L1",
    "union_acc": "union",
    "pretrained_asr": "ASR",
    "noise_asr": "noise",
}


def summary_table(records: Sequence[Record]) -> Table:
    """The means over seeds, one line per (method, source)."""
    rows = leaderboard_rows(records)
    first = next(record for record in records if record.role == "victim")
    seeds = len({row["seed"] for row in rows})
    table = Table(
        title=f"{first.suite} ({first.protocol})",
        caption=f"%, n = {first.n} attacked examples per victim, mean of {seeds} seed(s). ASR: any of k points made "
        "with the source alone flips; noise: the same for k draws of random signs.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    table.add_column("source", no_wrap=True)
    for heading in _SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for method, source, group in pooled(rows):
        table.add_row(method, source, *(mean_and_range(group, column).partition(" ")[0] for column in _SHOWN))
    return table


def evaluation_report(record: Record, weights: str) -> str:
    """What `eval` prints: weights, data, seed, and per threat the rate with n, interval and every attack."""
    lines = [
        f"model    {record.victim} ({record.network})",
        f"weights  {weights or 'in memory'}, sha256 {record.weights_sha256}",
        f"data     {record.target_dataset} test, first {record.n}, fingerprint {record.data_fingerprint}",
        f"         class counts {record.class_counts}",
        f"seed     {record.seed}",
        f"clean    {_rate(record.clean.count, record.n)}",
    ]
    for chain in record.chains:
        broke = ", ".join(f"{part['attack']} x{part['tries']} broke {part['broke']}" for part in chain.by_attack)
        ties = f", {chain.ties} ties" if chain.ties else ""
        broke = broke or "no example was correct on clean"
        lines.append(f"{chain.norm:<5}{chain.eps:>6}  {_rate(chain.robust.count, record.n)}  ({broke}{ties})")
    together = union(record)
    if together is not None:
        lines.append(f"union    {_rate(together.count, record.n)}")
    correct = record.clean.count
    for made in record.crafted:
        noise = record.control(made.norm)
        if made is noise or noise is None:
            continue
        k = len(made.flips)
        flips = f"any of {k} flips {percent(made.any_of(), correct)} % of {correct} clean-correct"
        control = percent(noise.any_of(k), correct)
        lines.append(f"source   {made.norm} {made.eps}: {made.attack['id']}, {flips}; noise control {control} %")
    if record.weights_sha256.startswith("python-"):
        lines.append(
            "note     the model declares no fingerprint: a second run will not find this result and attacks anew"
        )
    if record.flags:
        lines.append(f"flags    {', '.join(record.flags)}")
    return "\n".join(lines)


def _rate(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{100 * count / n:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]  {count}/{n}"
