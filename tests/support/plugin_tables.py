"""The tables of plugins in docs/methods.md and docs/attacks.md, from the plugins' own docstrings: `make tables`.

The module docstring of a plugin may have labelled paragraphs (`Paper: ...`, `Loss: ...`); each becomes a cell, and a
plugin without them still has a row. Files are read as syntax trees; settings of presets, budgets and controls of
attacks are those of the plugins themselves. Plugins of other packages are not in the tables.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from support import method_networks
from transferbench import attacks
from transferbench.attacks.source_attack import passes_of
from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.ids import RANDOM_SIGN
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine import controls

ROOT = Path(__file__).resolve().parents[2]
Kind = Literal["methods", "attacks", "presets", "method networks"]
PAGES: dict[Kind, Path] = {
    "methods": ROOT / "docs" / "methods.md",
    "presets": ROOT / "docs" / "methods.md",
    "method networks": ROOT / "docs" / "methods.md",
    "attacks": ROOT / "docs" / "attacks.md",
}
LABELS = ("Paper", "Loss", "Phases", "Presets", "Options", "Threats", "Holds", "Counts", "Deviations")
_LABEL = re.compile(rf"({'|'.join(LABELS)}): ")


def labelled(docstring: str) -> dict[str, str]:
    """The labelled paragraphs of a docstring, each on one line. One ends at an empty line or at the next label."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in docstring.splitlines():
        label = _LABEL.match(line)
        if label:
            current = found[label[1]] = [line[label.end() :]]
        elif not line.strip():
            current = None
        elif current is not None:
            current.append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}


def method_row(ids: Sequence[str], tree: ast.Module) -> list[str]:
    """A method's cells: id, paper, loss, phases, deviations and options."""
    docstring = ast.get_docstring(tree) or ""
    parts = labelled(docstring)
    notes = "; ".join(parts[name].removesuffix(".") for name in ("Deviations", "Presets", "Options") if name in parts)
    summary = docstring.partition("\n")[0]
    return [
        ", ".join(map(_code, ids)),
        parts.get("Paper", ""),
        parts.get("Loss", summary),
        parts.get("Phases", ""),
        notes,
    ]


def attack_row(ids: Sequence[str], tree: ast.Module) -> list[str]:
    """The cells of a file of attacks, in the order of the header."""
    parts = labelled(ast.get_docstring(tree) or "")
    known = registry.entries("attacks")
    what = "\n".join(f"{_code(id)}: {known[id].description}" for id in ids)
    holds, threats, counts, paper, deviations = (
        parts.get(name, "") for name in ("Holds", "Threats", "Counts", "Paper", "Deviations")
    )
    measured = [_budget(id) for id in ids]
    budgets = (
        measured[0][0]
        if len({one for one, _ in measured}) == 1
        else "\n".join(f"{_code(id)}: {one}" for id, (one, _) in zip(ids, measured, strict=True))
    )
    beside = "\n".join(dict.fromkeys(control for _, control in measured))
    return [what, holds, budgets, beside, threats, counts, _parameters(tree), paper, deviations]


def _budget(id: str) -> tuple[str, str]:
    """(what an attack with its defaults costs, its controls) in Linf, else in L1."""
    try:
        attack = attacks.build(AttackSpec.of(id), ThreatModel.parse("Linf", "0.1"), 10)
    except InputError:
        attack = attacks.build(AttackSpec.of(id), ThreatModel.parse("L1", "1"), 10)
    if attack.sees == "victim":
        return f"{attack.tries} x {attack.passes} passes through the victim", ""
    if attack.scope == "query":
        control = ":".join((id, "=".join(attack.control)))
        return f"{attack.queries} queries, {attack.passes} passes through the source", f"`{control}`"
    if attack.scope == "universal":
        passes = attack.steps * max(1, attack.batch)
        text = f"{passes:,} passes per delta ({attack.steps} steps of {max(1, attack.batch)})"
        return text, _names(controls.OF_DELTAS)
    forwards, backwards = passes_of(attack)
    if not backwards:
        return "none", ""
    more = f", {forwards - backwards} more forward" if forwards > backwards else ""
    return f"{backwards} passes{more}", _names(controls.OF_POINTS)


def _names(made: Sequence[str]) -> str:
    return ", ".join(map(_code, (RANDOM_SIGN, *made)))


def _parameters(tree: ast.Module) -> str:
    """What the docstring of `build` says before it comes to errors: the parameters with their defaults."""
    build = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")
    text = " ".join(ast.get_docstring(node) or "" for node in build)
    return re.sub(r"^Parameters(: | of )", "", " ".join(text.partition("InputError")[0].split()))


def _code(id: str) -> str:
    return f"`{id}`"


HEADERS: dict[Kind, tuple[str, ...]] = {
    "methods": ("id", "paper", "loss", "phases", "deviations and options"),
    "method networks": ("methods", *method_networks.KINDS),
    "presets": ("id", "method", "what it is", "settings that are not the method's defaults"),
    "attacks": (
        "attack",
        "the attacker holds",
        "budget per image",
        "controls",
        "threats",
        "what counts",
        "parameters",
        "paper",
        "deviations",
    ),
}
_ROWS = {"methods": method_row, "attacks": attack_row}


def rows(kind: Kind) -> list[list[str]]:
    """A row for every file of the package that holds plugins of the kind, by its first id; for every preset."""
    if kind == "presets":
        return _presets()
    if kind == "method networks":
        return method_networks.rows()
    by_module: dict[str, list[str]] = {}
    for entry in registry.entries(kind).values():
        if entry.module.startswith("transferbench.") and not registry.preset_of(entry):
            by_module.setdefault(entry.module, []).append(entry.id)
    files = {module: ROOT / f"{module.replace('.', '/')}.py" for module in by_module}
    return [
        _ROWS[kind](ids, ast.parse(files[module].read_text(encoding="utf-8")))
        for module, ids in sorted(by_module.items(), key=lambda item: item[1])
    ]


def _presets() -> list[list[str]]:
    entries = [entry for entry in registry.entries("methods").values() if entry.module.startswith("transferbench.")]
    return [
        [_code(entry.id), _code(of), entry.description, _settings(entry.load().PRESETS[entry.id])]
        for entry in entries
        if (of := registry.preset_of(entry))
    ]


def _settings(given: dict[str, object]) -> str:
    return ", ".join(_code(f"{name}={str(value).lower() if value is True else value}") for name, value in given.items())


def table(kind: Kind) -> str:
    """The Markdown table of a kind of plugin."""
    header = HEADERS[kind]
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows(kind))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    """The text as Markdown that shows it as it is, but for code and line breaks."""
    escaped = text.removesuffix(".").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
    return escaped.replace("\n", "<br>")


def refreshed(text: str, kind: Kind) -> str:
    """A page with its table of the kind as it should be. ValueError where the page does not mark the table's place."""
    begin, end = f"<!-- generated: {kind} (make tables) -->\n\n", f"\n\n<!-- end: {kind} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no place for the table of {kind}: expected the lines {begin.strip()} and {end.strip()}")
    return f"{before}{begin}{table(kind)}{end}{after}"


def main() -> None:
    """Write the tables into their pages."""
    for kind, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(refreshed(text, kind), encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: table of {kind}")


if __name__ == "__main__":
    main()
