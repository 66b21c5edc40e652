"""A report's rates with their intervals: as text, as HTML, as a frame."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.statistics import wilson

if TYPE_CHECKING:
    import pandas as pd

    from transferbench.python.report import Report


class ReportedRate(NamedTuple):
    """A rate of a report; threat, eps, attack and tries are empty where they do not apply."""

    measure: str
    rate: Rate
    threat: str = ""
    eps: str = ""
    attack: str = ""
    tries: int = 0

    @property
    def label(self) -> str:
        """`clean`, `Linf 8/255`, `union`, `Linf 8/255: pretrained-neuron x8`."""
        if not self.threat:
            return self.measure
        threat = f"{self.threat.partition(':')[0]} {self.eps}".strip()
        return f"{threat}: {self.attack} x{self.tries}" if self.attack else threat

    @property
    def text(self) -> str:
        """In percent, with the 95 % Wilson interval and the counts."""
        if not self.rate.n:
            return "no example was correct on clean"
        low, high = self.rate.interval
        return f"{self.rate.points:6.2f} %  [{low}, {high}]  {self.rate.successes}/{self.rate.n}"


def rates(report: Report) -> list[ReportedRate]:
    """Clean accuracy, robust accuracy by threat, the union, and what each source-only attack flips of the
    clean-correct examples."""

    def of_all(share: float) -> Rate:
        return Rate(round(share * report.n), report.n)

    found = [ReportedRate("clean", of_all(report.clean))]
    found += [
        ReportedRate("robust", of_all(share), threat, report.radii.get(threat, ""))
        for threat, share in report.robust.items()
    ]
    if report.union is not None:
        found.append(ReportedRate("union", of_all(report.union)))
    if report.source_only is not None:
        for row in report.source_only.itertuples(index=False):
            rate = Rate(int(row.flipped), int(row.correct))
            eps = report.radii.get(row.threat, "")
            name = f"{row.attack} of {row.of}" if row.of else row.attack
            found.append(ReportedRate("source-only", rate, row.threat, eps, name, int(row.tries)))
    return found


def text(report: Report) -> str:
    """The summary in lines."""
    found, broke = rates(report), _broke(report)
    on_model = [one for one in found if one.measure != "source-only"]
    width = max(len(one.label) for one in on_model)
    lines = [f"n = {report.n} examples; in brackets the 95 % Wilson interval"]
    for one in on_model:
        after = f"  ({broke[one.threat]})" if one.threat in broke else ""
        lines.append(f"{one.label:<{width}}  {one.text}{after}")
        if one.threat in report.draws:
            lines.append(f"{'':<{width}}  {report.draws[one.threat].text(report.n)}")
    flipped = [one for one in found if one.measure == "source-only"]
    if flipped:
        lines.append("flipped by an attacker who holds only the source, of the clean-correct:")
        inner = max(len(one.label) for one in flipped)
        lines += [f"  {one.label:<{inner}}  {one.text}" for one in flipped]
    if report.batch is not None:
        lines.append(f"the model's answers depend on its batch: judged with {report.batch} rows in flight")
    if report.flags:
        lines.append(f"flags  {_flags(report)}")
    lines.append(_cost(report))
    return "\n".join(lines)


def html(report: Report) -> str:
    """The summary as a table, and a line about flags and passes."""
    broke = _broke(report)
    body = "".join(
        f"<tr><th>{escape(one.label)}</th><td>{one.rate.percent}</td><td>{escape(' to '.join(one.rate.interval))}</td>"
        f"<td>{one.rate.successes}/{one.rate.n}</td>"
        f"<td>{escape('flipped, source alone' if one.attack else broke.get(one.threat, ''))}</td></tr>"
        for one in rates(report)
    )
    flags = f"flags: {escape(_flags(report))}<br>" if report.flags else ""
    head = "<tr><th></th><th>%</th><th>95 % interval</th><th>count</th><th></th></tr>"
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table><small>{flags}{escape(_cost(report))}</small>"


def frame(report: Report) -> pd.DataFrame:
    """A row per rate."""
    import pandas as pd

    rows = []
    for one in rates(report):
        successes, n = one.rate
        low, high = wilson(successes, n) if n else (float("nan"), float("nan"))
        share = successes / n if n else float("nan")
        rows.append((one.measure, one.threat, one.eps, one.attack, one.tries, successes, n, share, low, high))
    columns = ["measure", "threat", "eps", "attack", "tries", "count", "n", "rate", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _broke(report: Report) -> dict[str, str]:
    """What each attack of a threat's chain broke, in words."""
    table = report.cost.by_attack
    parts: dict[str, list[str]] = {}
    for row in () if table is None else table.itertuples(index=False):
        parts.setdefault(row.threat, []).append(f"{row.attack} x{row.tries} broke {row.broke}")
    return {threat: ", ".join(attacks) for threat, attacks in parts.items()}


def _flags(report: Report) -> str:
    counts = {name: f" ({count} examples)" for name, count in report.flag_rows.items()}
    return ", ".join(f"{name}{counts.get(name, '')}" for name in report.flags)


def _cost(report: Report) -> str:
    cost = report.cost
    return (
        f"passes {cost.forwards:,} forward, {cost.backwards:,} backward ({cost.wasted:,} wasted), {cost.checks:,} in "
        f"checks; {cost.seconds:.1f} s"
    )
