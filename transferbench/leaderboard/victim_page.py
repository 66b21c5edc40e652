"""A victim's own page: what it is, what broke it, what that looks like, and how to make it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS
from transferbench.leaderboard import example_gallery
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.links import card_file, card_link, environment, page_of
from transferbench.leaderboard.rows import Row, curve, percent, union
from transferbench.leaderboard.statistics import wilson
from transferbench.models import cards
from transferbench.models.cards import ModelCard
from transferbench.results.records import Bits, ChainRecord, Record


def render(folder: Path, record: Record, row: Row | None, known: set[str]) -> str:
    """The page as HTML. `row` is the victim's in the table, None for a source; `known` have pages of their own."""
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
            facts=_facts(folder, record, row, card, known),
            results=_results(record),
            chains=[_broken(record, chain) for chain in record.chains],
            curves=curves,
            strip=_strip(folder, record),
            command=plain(shlex.join(record.origin.command)),
            made=_made(record),
            params=[] if card is None else [(name, plain(str(value))) for name, value in card.params.items()],
            versions=", ".join(f"{plain(name)} {plain(version)}" for name, version in sorted(record.versions.items())),
        )
    )
    return text


def _made(record: Record) -> str:
    origin = record.origin
    changed = " with changes" if origin.dirty else ""
    code = f"commit {plain(origin.commit)}{changed}" if origin.commit else "an installed package"
    checked = "verified" if record.stamp is not None else "not verified"
    return (
        f"Suite {plain(record.suite)}, seed {record.seed}, {code}, Python {plain(origin.python)}, "
        f"{plain(str(record.cost.get('hardware', '')))}; {checked}."
    )


def _facts(
    folder: Path, record: Record, row: Row | None, card: ModelCard | None, known: set[str]
) -> list[tuple[str, str, str]]:
    source = page_of(record.source, "../") if record.source in known else ""
    facts = [
        ("role", record.role, ""),
        ("rank", "" if row is None else str(row["rank"]), ""),
        ("method", record.method, ""),
        ("source", record.source, source),
        ("network", record.network, ""),
        ("source data", record.source_dataset, ""),
        ("target data" if record.role == "victim" else "attacked on", record.target_dataset, ""),
        ("attacked examples", str(record.n), ""),
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
    def line(name: str, tip: str, bits: Bits, of: int) -> dict[str, str]:
        low, high = wilson(bits.count, of) if of else (0.0, 1.0)
        return {
            "name": name,
            "tip": tip,
            "rate": percent(bits.count, of),
            "interval": f"{100 * low:.2f}\u2013{100 * high:.2f}",
            "count": f"{bits.count} of {of}",
        }

    found = [line("clean", LEADERBOARD["clean_acc"], record.clean, record.n)]
    for chain in record.chains:
        tip = (
            f"share that survives {', '.join(str(part['id']) for part in chain.attacks)} in {chain.norm} at {chain.eps}"
        )
        found.append(line(f"{plain(chain.name)} (eps {plain(chain.eps)})", plain(tip), chain.robust, record.n))
    together = union(record)
    if together is not None:
        found.append(line("union", LEADERBOARD["union_acc"], together, record.n))
    correct = record.clean.count
    for made in record.crafted:
        flipped = [any(flips) for flips in zip(*(bits.list() for bits in made.flips), strict=True)]
        tip = f"share of the clean-correct that any of {len(made.flips)} points flips, {made.norm} eps {made.eps}"
        name = f"flipped by {plain(made.attack['id'])} of {plain(made.source)}"
        found.append(line(name, plain(tip), Bits.of(flipped), correct))
    return found


def _broken(record: Record, chain: ChainRecord) -> dict[str, Any]:
    wrong, of_norm = record.n - record.clean.count, chain.name.partition("@")[0] == chain.norm
    counts = [("wrong on clean", wrong), *((str(part["attack"]), int(part["broke"])) for part in chain.by_attack)]
    counts.append(("left standing", chain.robust.count))
    colours = ["c0", *(f"c{1 + number % 5}" for number in range(len(counts) - 2)), "left"]
    parts = [
        {"name": plain(name), "count": count, "share": f"{100 * count / record.n:.2f}", "colour": colour}
        for (name, count), colour in zip(counts, colours, strict=True)
    ]
    return {
        "title": f"{plain(chain.norm)}, eps {plain(chain.eps)}" + ("" if of_norm else f" ({plain(chain.name)})"),
        "parts": parts,
        "spoken": ", ".join(f"{part['name']} {part['count']}" for part in parts),
        "ties": chain.ties,
        "cost": f"{chain.forwards} forward, {chain.backwards} backward rows",
    }


def _curve(record: Record, norm: Any) -> dict[str, Any] | None:
    """None for a norm that was run at fewer than two radii."""
    points = curve(record, norm)
    if len(points) < 3:
        return None
    furthest = float(points[-1][0])
    placed = [
        {
            "x": f"{45 + 350 * float(radius) / furthest:.1f}",
            "y": f"{200 - 190 * share:.1f}",
            "radius": f"{float(radius):g}",
            "said": f"{100 * share:.2f} % at {float(radius):g}",
        }
        for radius, share in points
    ]
    return {"norm": norm, "points": placed, "spoken": "; ".join(point["said"] for point in placed)}


def _strip(folder: Path, record: Record) -> dict[str, Any] | None:
    path = folder / "strips" / f"{file_stem(record.victim)}.png"
    if not path.is_file():
        return None
    shown = example_gallery.read(path)
    # Small images are seen at about 40 pixels a cell, larger ones as they are.
    scale = max(1, 40 // shown.side)
    names = ("norm", "example", "label", "pred", "attack")
    cells = [
        {
            **{name: plain(getattr(cell, name)) for name in names},
            "column": str(cell.column + 1),
            "distance": f"{cell.distance:g}",
            "gain": f"{cell.gain:g}",
        }
        for cell in shown.cells
    ]
    return {
        "file": quote(path.name),
        "side": shown.side,
        "width": shown.width * scale,
        "height": shown.height * scale,
        "cells": cells,
        "spoken": f"{len(shown.cells)} examples that fell: clean, adversarial, difference",
    }
