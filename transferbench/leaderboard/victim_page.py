"""A victim's own page: its facts and results, what broke it, its example gallery, and the command to repeat it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from transferbench.base.corruptions import SEVERITIES
from transferbench.base.ids import chain_at
from transferbench.base.names import file_stem, short_network
from transferbench.base.specifications import NORMS, Norm
from transferbench.leaderboard import example_gallery
from transferbench.leaderboard.column import Row
from transferbench.leaderboard.columns import CLEAN, UNION
from transferbench.leaderboard.corruptions import Score
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.links import card_file, card_link, environment, page_of
from transferbench.leaderboard.measurements import Measurements, curve
from transferbench.leaderboard.rates import Rate
from transferbench.models import cards
from transferbench.models.cards import ModelCard
from transferbench.results.records import ChainRecord, Record


def render(folder: Path, record: Record, row: Row | None, victims: set[str]) -> str:
    """The page as HTML. `row` is the victim's in the table, None for a source; `victims` have pages of their own."""
    file = card_file(folder, f"{file_stem(record.victim)}.md")
    card = cards.read(file) if file is not None else None
    curves = [one for norm in NORMS if (one := _curve(record, norm)) is not None]
    text: str = (
        environment()
        .get_template("victim.html")
        .render(
            up="../",
            groups=[],
            widths={},
            title=plain(record.victim),
            facts=_facts(folder, record, row, card, victims),
            results=_results(record),
            chains=[_breakdown(record, chain) for chain in record.chains],
            corruptions=_corruptions(record),
            curves=curves,
            gallery=_gallery(folder, record),
            command=plain(shlex.join(record.origin.command)),
            provenance=_provenance(record),
            params=[] if card is None else [(name, plain(str(value))) for name, value in card.params.items()],
            versions=", ".join(f"{plain(name)} {plain(version)}" for name, version in sorted(record.versions.items())),
        )
    )
    return text


def _provenance(record: Record) -> str:
    origin = record.origin
    changes = " with changes" if origin.dirty else ""
    code = f"commit {plain(origin.commit)}{changes}" if origin.commit else "an installed package"
    state = "verified" if record.stamp is not None else "not verified"
    return (
        f"Suite {plain(record.suite)}, seed {record.seed}, {code}, Python {plain(origin.python)}, "
        f"{plain(str(record.cost.get('hardware', '')))}; {state}."
    )


def _facts(
    folder: Path, record: Record, row: Row | None, card: ModelCard | None, victims: set[str]
) -> list[tuple[str, str, str]]:
    source = page_of(record.source, "../") if record.source in victims else ""
    facts = [
        ("role", record.role, ""),
        ("rank", "" if row is None else str(row["rank"]), ""),
        ("method", record.method, ""),
        ("source", record.source, source),
        ("network", short_network(record.network), ""),
        ("source data", record.source_dataset, ""),
        ("target data" if record.role == "victim" else "attacked on", record.target_dataset, ""),
        ("attacked examples", record.n_text, ""),
        ("images", record.images, ""),
        ("seed", str(record.seed), ""),
        ("flags", " ".join(record.flags), ""),
        ("weights", f"sha256 {record.weights_sha256}", ""),
    ]
    if card is not None:
        name = f"{file_stem(record.victim)}.md"
        share = card.validation_accuracy
        facts += [
            ("validation accuracy", "" if share is None else f"{100 * share:.2f} %", ""),
            ("card", name, card_link(folder, name, "../")),
        ]
    return [(name, plain(value), link) for name, value, link in facts if value]


def _results(record: Record) -> list[dict[str, str]]:
    measurements = Measurements(record)
    results = [_result(CLEAN.heading, CLEAN.meaning, measurements.clean)]
    for chain in record.chains:
        attacks = ", ".join(str(part["id"]) for part in chain.attacks)
        tip = f"share that survives {attacks} in {chain.norm} at {chain.eps}, on images of {record.images}"
        results.append(_result(f"{chain.name} (eps {chain.eps})", tip, measurements.robust[chain.name]))
    if measurements.union is not None:
        results.append(_result(UNION.heading, UNION.meaning, measurements.union))
    for threat, scores in measurements.corruptions.items():
        names, severities = len(scores.counts), len(SEVERITIES)
        count = f"{sum(map(sum, scores.counts.values()))} of {names * severities * record.n}"
        tip = f"mean accuracy over {names} corruptions at {severities} severities; an image is the interval's unit"
        results.append(_score(threat, tip, scores.accuracy, count))
        if scores.mce is not None:
            tip = "mean over corruptions of the error over severities, relative to AlexNet's"
            results.append(_score(f"{threat} mCE", tip, scores.mce, ""))
    for crafted in record.crafted:
        tip = (
            f"share of the clean-correct that any of {len(crafted.flips)} points flips, "
            f"{crafted.norm} eps {crafted.eps}, on images of {record.images}"
        )
        rate = Rate(crafted.any_of(), record.clean.count)
        # A control names the attack that it is made of.
        made = " ".join(str(crafted.attack[key]) for key in ("id", "of") if key in crafted.attack)
        results.append(_result(f"flipped by {made}, {crafted.norm} {crafted.eps}, of {crafted.source}", tip, rate))
    return results


def _result(name: str, tip: str, rate: Rate) -> dict[str, str]:
    return {
        "name": plain(name),
        "tip": plain(tip),
        "rate": rate.percent,
        "interval": "\u2013".join(filter(None, rate.interval)),
        "count": f"{rate.successes} of {rate.n}",
    }


def _score(name: str, tip: str, score: Score, count: str) -> dict[str, str]:
    interval = "\u2013".join(score.interval)
    return {"name": name, "tip": tip, "rate": score.percent, "interval": interval, "count": count}


def _corruptions(record: Record) -> list[dict[str, Any]]:
    """Per benchmark of corrupted images, its threat and the accuracies by corruption and severity, in percent."""
    return [
        {
            "threat": one.threat,
            "severities": SEVERITIES,
            "lines": [
                (name, [(rate.percent, _tip(rate)) for rate in (Rate(count, record.n) for count in counts)])
                for name, counts in one.counts().items()
            ],
        }
        for one in record.corruptions
    ]


def _tip(rate: Rate) -> str:
    """`1010 of 5000, 95 % interval 19.11-21.33`."""
    return f"{rate.successes} of {rate.n}, 95 % interval {'-'.join(rate.interval)}"


def _breakdown(record: Record, chain: ChainRecord) -> dict[str, Any]:
    of_norm = chain.name in (chain.norm, chain_at(chain.norm, chain.eps))
    counts = [
        ("wrong on clean", record.n_chains - record.clean_of_chains.count),
        *((str(part["attack"]), int(part["broke"])) for part in chain.by_attack),
    ]
    counts.append(("left standing", chain.robust.count))
    colours = ["c0", *(f"c{1 + number % 5}" for number in range(len(counts) - 2)), "left"]
    parts = [
        {"name": plain(name), "count": count, "share": f"{100 * count / record.n_chains:.2f}", "colour": colour}
        for (name, count), colour in zip(counts, colours, strict=True)
    ]
    return {
        "title": f"{plain(chain.norm)}, eps {plain(chain.eps)}" + ("" if of_norm else f" ({plain(chain.name)})"),
        "parts": parts,
        "description": ", ".join(f"{part['name']} {part['count']}" for part in parts),
        "ties": chain.ties,
        "cost": f"{chain.forwards} forward, {chain.backwards} backward rows",
    }


def _curve(record: Record, norm: Norm) -> dict[str, Any] | None:
    """None for a norm that was run at fewer than two radii."""
    points = curve(record, norm)
    if len(points) < 3:
        return None
    furthest = float(points[-1][0])
    marks = [
        {
            "x": f"{45 + 350 * float(radius) / furthest:.1f}",
            "y": f"{200 - 190 * share:.1f}",
            "radius": f"{float(radius):g}",
            "title": f"{100 * share:.2f} % at {float(radius):g}",
        }
        for radius, share in points
    ]
    return {"norm": norm, "points": marks, "description": "; ".join(mark["title"] for mark in marks)}


def _gallery(folder: Path, record: Record) -> dict[str, Any] | None:
    path = folder / example_gallery.FOLDER / f"{file_stem(record.victim)}.png"
    if not path.is_file():
        return None
    gallery = example_gallery.read(path)
    # Small images are enlarged to about 40 pixels a cell.
    scale = max(1, 40 // gallery.side)
    names = ("norm", "example", "label", "pred", "attack")
    cells = [
        {
            **{name: plain(getattr(cell, name)) for name in names},
            "column": str(cell.column + 1),
            "distance": f"{cell.distance:g}",
            "gain": f"{cell.gain:g}",
        }
        for cell in gallery.cells
    ]
    return {
        "file": f"{example_gallery.FOLDER}/{quote(path.name)}",
        "side": gallery.side,
        "width": gallery.width * scale,
        "height": gallery.height * scale,
        "cells": cells,
        "description": f"{len(gallery.cells)} examples that fell: clean, adversarial, difference",
    }
