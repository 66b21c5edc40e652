"""A report's summary, frame and figure hold the rates of its verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib import pyplot
from statsmodels.stats.proportion import proportion_confint
from support.nets import Small

import transferbench


def test_the_frame_counts_the_verdicts(report: transferbench.Report) -> None:
    frame = report.to_frame().set_index(["measure", "threat", "attack"])
    standing = report.verdicts[~report.verdicts.fooled]
    for threat, count in standing.groupby("threat").size().items():
        assert frame.loc[("robust", threat, ""), "count"] == count
    right = report.verdicts[report.verdicts.attack != "clean"].example.nunique()
    assert frame.loc[("clean", "", ""), "count"] == right
    everywhere = standing.groupby("example").size() == 2
    assert frame.loc[("union", "", ""), "count"] == everywhere.sum()
    assert report.source_only is not None
    for row in report.source_only.itertuples():
        name = f"{row.attack} of {row.of}" if row.of else row.attack
        of_frame = frame.loc[("source-only", row.threat, name)]
        assert (of_frame["count"], of_frame["n"], of_frame["tries"]) == (row.flipped, row.correct, row.tries)
    assert frame.loc[("robust", "Linf", ""), "eps"] == "0.06"
    assert frame.loc[("source-only", "Linf", "random-sign"), "eps"] == "0.06"


def test_intervals_are_wilsons(report: transferbench.Report) -> None:
    frame = report.to_frame()
    low, high = proportion_confint(frame["count"], frame["n"], alpha=0.05, method="wilson")
    assert frame.low.to_numpy() == pytest.approx(low)
    assert frame.high.to_numpy() == pytest.approx(high)
    assert ((frame.low <= frame.rate + 1e-12) & (frame.rate <= frame.high + 1e-12)).all()


def test_printing_shows_a_few_lines_with_every_rate(report: transferbench.Report) -> None:
    text = str(report)
    assert text == report.summary()
    assert len(text.splitlines()) < 20
    for row in report.to_frame().itertuples():
        (line,) = [line for line in text.splitlines() if _names(line, row)]
        assert f"{100 * row.rate:.2f} %  [{100 * row.low:.2f}, {100 * row.high:.2f}]" in line
    assert "pgd x1 broke" in text
    assert "n = 30" in text


def _names(line: str, row: object) -> bool:
    """Whether a line of the summary is about a row of the frame."""
    measure, threat, attack = row.measure, row.threat, row.attack  # type: ignore[attr-defined]
    words = line.split()
    if attack:
        return words[0] == threat and f" {attack} " in line and (" of " in attack) == (" of " in line)
    return words[0] == (threat or measure) and not line.startswith("  ")


def test_html_has_every_rate_and_escapes_names(report: transferbench.Report) -> None:
    strange = replace(report, robust={"<Linf>": report.robust["Linf"]}, radii={"<Linf>": "<0.06>"})
    html = strange._repr_html_()
    assert "<0.06>" not in html
    assert "&lt;Linf&gt; &lt;0.06&gt;" in html
    assert html.count("<tr>") == 1 + len(strange.to_frame())


def test_no_correct_example_leaves_no_rate_to_divide(small: Small) -> None:
    wrong = (small.logits.argmax(1) + 1) % 10
    report = transferbench.evaluate(small.model, small.x[:4], wrong[:4], {"Linf": "0.06"}, "pgd", 2, source=small.model)
    frame = report.to_frame()
    assert frame[frame.measure == "source-only"].rate.isna().all()
    assert "no example was correct on clean" in report.summary()
    assert len(report.plot().axes[0].patches) == 3
    assert report._repr_html_()


def test_the_figure_has_a_bar_and_an_interval_per_rate(report: transferbench.Report) -> None:
    figures = pyplot.get_fignums()
    figure = report.plot()
    (axes,) = figure.axes
    frame = report.to_frame()
    assert [bar.get_width() for bar in axes.patches] == pytest.approx((100 * frame.rate).tolist())
    ends = [bar.get_segments()[0][:, 0].tolist() for bar in axes.collections]
    expected = [[100 * row.low, 100 * row.high] for row in frame.itertuples()]
    assert ends == [pytest.approx(pair, abs=1e-9) for pair in expected]
    assert figure._repr_png_()[:4] == b"\x89PNG"
    assert pyplot.get_fignums() == figures
