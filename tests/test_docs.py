"""What README and docs say is what the records and the code say."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import get_args

import pytest
import torch
import yaml
from pydantic import BaseModel
from support import plugin_tables
from support.nets import Small

from transferbench import data, suites
from transferbench.base.ids import without_seed
from transferbench.engine import preflight
from transferbench.leaderboard import build, markdown, rows, source_only, transfer
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.leaderboard.pooled_rows import pooled_rows
from transferbench.methods import Network
from transferbench.models import cards
from transferbench.models.features import Layers
from transferbench.results.records import read_all
from transferbench.scheduling.plan import plan
from transferbench.training import loop
from transferbench.workflows import run_suite

ROOT = Path(__file__).parent.parent
BOARDS = sorted(path.parent for path in (ROOT / "leaderboards").glob("*/records"))


@pytest.mark.parametrize("folder", BOARDS, ids=lambda path: path.name)
def test_committed_tables_are_functions_of_their_records(folder: Path) -> None:
    assert build.check(folder) == []
    for record in read_all(folder):
        card = cards.read(ROOT / "model_cards" / folder.name / f"{record.victim}.md")
        assert card.sha256 == record.weights_sha256


def committed() -> list[rows.Row]:
    return rows.leaderboard_rows(read_all(ROOT / "leaderboards" / "letters-to-digits"))


REAL = ROOT / "leaderboards" / "imagenet-to-flowers"
IN_README = ("finetune", "lwf", "madry", "delta-r", "renofeation")
"""The victims of the five rows of the README's table, without their seeds."""


def test_the_readme_shows_five_rows_of_the_board_of_photographs() -> None:
    readme = (ROOT / "README.md").read_text()
    every = rows.leaderboard_rows(read_all(REAL))
    five = [row for row in every if without_seed(str(row["victim"]), int(row["seed"])) in IN_README]
    excerpt = markdown.readme_excerpt(five)
    assert len(excerpt.splitlines()) == 2 + len(IN_README)
    assert set(excerpt.splitlines()) <= set(markdown.readme_excerpt(every).splitlines())
    assert excerpt in readme


def test_every_figure_of_the_readmes_boards_stands_in_their_tables() -> None:
    text = (ROOT / "README.md").read_text().partition("## What comes out")[2].partition("\n## ")[0]
    figures = set(re.findall(r"\d+\.\d\d\b", "\n".join(line for line in text.splitlines() if line[:1] != "|")))
    assert len(figures) > 4
    tables = "".join(
        (ROOT / "leaderboards" / name / "leaderboard.md").read_text().partition("\n## ")[0]
        for name in ("imagenet-to-flowers", "cifar-animals-to-vehicles")
    )
    assert figures <= set(re.findall(r"\d+\.\d\d", tables))


def test_the_board_of_photographs_shows_what_the_readme_claims() -> None:
    board = {pool.label: pool.rows for pool in pooled_rows(read_all(REAL), rows.leaderboard_rows(read_all(REAL)))}

    def values(label: str, column: str) -> list[float]:
        return [float(row[column]) for row in board[label]]

    near = ("finetune", "l2sp", "delta (delta)", "lwf", "probe")
    fresh = ("delta-r", "renofeation", "retrain", "scratch")
    for label in (*near, "madry", "eat"):
        assert values(label, "linf_acc") == [0, 0]
    assert min(min(values(label, "clean_acc")) for label in near) > max(
        max(values(label, "clean_acc")) for label in fresh
    )
    for record in read_all(REAL):
        label = without_seed(record.victim, record.seed)
        for pair in source_only.comparisons(record):
            if pair.other.name == "random-sign" and pair.difference is not None:
                _, low, high = pair.difference
                if label in ("probe", "lwf", "finetune", "l2sp", "delta") and pair.attack.name == source_only.ALL:
                    assert low > 20
                if label in fresh and pair.attack.name == source_only.ALL:
                    assert low < 0 < high


def test_the_committed_letters_show_what_their_notes_claim() -> None:
    """The phenomena, on the committed bits: not on a fresh run, whose last digits may differ by machine."""
    by_name: dict[str, list[rows.Row]] = {}
    for row in committed():
        by_name.setdefault(str(row["victim"]).rpartition("-s")[0], []).append(row)

    def values(name: str, column: str) -> list[float]:
        return [float(row[column]) for row in by_name[name]]

    assert len(by_name) >= 10
    for robust in ("probe-robust", "lwf-robust"):
        for plain in ("finetune-natural", "probe-natural"):
            assert min(values(robust, "linf_acc")) > max(values(plain, "linf_acc")) + 15
    assert [row["rank"] for row in by_name["ramp-robust"]] == [1, 1, 1]
    assert {row["rank"] for row in by_name["eat-robust"]} <= {1, 2}
    several = {"ramp-robust", "max-robust", "eat-robust"}
    rest = max(max(values(name, "union_acc")) for name in by_name.keys() - several)
    assert min(min(values(name, "union_acc")) for name in several) > rest + 10
    asr, noise = values("finetune-natural", "pretrained_asr"), values("finetune-natural", "noise_asr")
    assert all(attack > 2 * control for attack, control in zip(asr, noise, strict=True))
    assert max(values("renofeation-natural", "pretrained_asr")) < min(asr)
    matrix = {
        (line.method, line.own): line
        for line in transfer.matrices(read_all(ROOT / "leaderboards" / "letters-to-digits"))["pretrained-neuron"]
    }
    for method in ("finetune", "probe", "delta", "l2sp"):
        rates = matrix[method, "letters-natural"].rates
        assert rates["letters-madry"] < rates["letters-natural"] / 2


def test_the_attacks_page_says_what_the_committed_board_shows() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text().partition("## What beats its control")[2].partition("\n## ")[0]
    shown = {name: float(rate) for name, rate in re.findall(r"`([a-z0-9-]+)`\s\(?(\d+\.\d)", text)}
    board = ROOT / "leaderboards" / "letters-to-digits"
    records = [one for one in read_all(board) if one.victim.startswith("finetune-natural-")]
    found: dict[str, list[source_only.Comparison]] = {}
    for one in (pair for record in records for pair in source_only.comparisons(record)):
        if one.other.name == "random-sign" and one.attack.name != source_only.ALL:
            found.setdefault(one.attack.name, []).append(one)
    rates = {name: [100 * one.attack.bits.bit_count() / one.correct for one in pairs] for name, pairs in found.items()}
    assert len(shown) >= 14
    assert shown == {name: pytest.approx(mean(rates[name]), abs=0.05) for name in shown}
    below = {name for name, pairs in found.items() if mean(one.difference[0] for one in pairs if one.difference) < 0}
    assert below == {"l4a", "fff"}


def test_the_attacks_page_has_the_rates_of_the_board_of_photographs() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text().partition("public ImageNet network\n")[2].partition("\n## ")[0]
    lines = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    attacked: dict[tuple[str, str], list[float]] = {}
    for record in read_all(REAL):
        for one in source_only.comparisons(record):
            if one.other.name == "random-sign" and one.norm == "Linf":
                for name, flips in ((one.attack.name, one.attack), (f"noise of {one.attack.name}", one.other)):
                    rate = 100 * flips.bits.bit_count() / one.correct
                    attacked.setdefault((without_seed(record.victim, record.seed), name), []).append(rate)
    every = {"all together (8 tries)": source_only.ALL, "random signs (8 tries)": f"noise of {source_only.ALL}"}
    for label, *cells in lines[2:]:
        name = every.get(label, label.partition("`")[0])
        for victim, cell in zip(lines[0][1:], cells, strict=True):
            assert float(cell) == pytest.approx(mean(attacked[victim, name]), abs=0.051), (victim, name)


def test_the_protocol_lists_every_flag() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) >= set(preflight.FLAGS)


def test_the_leaderboard_page_defines_every_column() -> None:
    page = (ROOT / "leaderboards" / "letters-to-digits" / "leaderboard.md").read_text()
    assert all(f"- `{name}`: " in page for name in (column.name for column in LEADERBOARD if not column.optional))
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    assert all(f"`{column.name}`" in protocol for column in LEADERBOARD if column.optional and column.heading)


def test_the_numbers_to_quote_are_columns() -> None:
    text = (ROOT / "docs" / "which-number.md").read_text()
    named = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", text))
    assert len(named) > 15
    assert named <= {column.name for column in LEADERBOARD}


@pytest.mark.parametrize("kind", plugin_tables.PAGES)
def test_the_tables_of_plugins_are_those_of_their_docstrings(kind: plugin_tables.Kind) -> None:
    page = plugin_tables.PAGES[kind].read_text()
    assert page == plugin_tables.refreshed(page, kind), "stale: make tables writes it"
    with pytest.raises(ValueError, match=f"no place for the table of {kind}"):
        plugin_tables.refreshed("a page", kind)


def test_a_plugin_without_labels_has_a_row_all_the_same() -> None:
    plain = ast.parse('"""One line."""')
    assert plugin_tables.method_row(["new"], plain) == ["`new`", "", "One line.", "", ""]
    text = "One line.\n\nPaper: a\nb.\n\nMore.\nLoss: CE\nPhases: one.\n"
    assert plugin_tables.labelled(text) == {"Paper": "a b.", "Loss": "CE", "Phases": "one."}


def test_the_suites_page_has_every_key_with_its_default() -> None:
    text = (ROOT / "docs" / "suites.md").read_text()
    sections = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", text, re.S | re.M))
    described = {
        heading: dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", body, re.M)) for heading, body in sections.items()
    }
    pages = {key: heading for heading in sections for key in re.findall(r"`(\w+)`", heading)}
    todo: list[tuple[str, type[BaseModel]]] = [("The file", suites.Suite)]
    seen = set()
    while todo:
        heading, model = todo.pop()
        assert described[heading] == {key: default_of(model, key) for key in model.model_fields}, heading
        seen.add(heading)
        for key, field in model.model_fields.items():
            todo += [(pages[key], part) for part in models_in(field.annotation)]
    assert seen == set(sections)


def models_in(annotation: object) -> set[type[BaseModel]]:
    """The models in an annotation such as `tuple[Attack, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in get_args(annotation) for model in models_in(part)}


def default_of(model: type[BaseModel], key: str) -> str:
    """How the page writes the default of a key."""
    field = model.model_fields[key]
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    text = yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
    return "`" + text.replace("''", '""') + "`"


def test_the_suite_of_the_suites_page_can_be_run(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "suites.md").read_text()
    path = tmp_path / "my-suite.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", text, re.S).group(1))  # type: ignore[union-attr]
    suite = suites.load(str(path))
    run_suite.check(suite)
    assert [victim.name for victim in plan(suite, suite.seeds).victims] == ["letters-natural-s0", "finetune-natural-s0"]


def imports() -> dict[str, set[str]]:
    """Package -> packages that it imports, function-level imports included, those for type checkers left out."""
    found: dict[str, set[str]] = {}
    package = ROOT / "transferbench"
    for path in package.rglob("*.py"):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        for node in _run_time_imports(ast.parse(path.read_text())):
            parts = (node.module or "").split(".")
            targets = parts[1:2] or [alias.name for alias in node.names]
            if parts[0] == "transferbench" and name != "__init__":
                found.setdefault(name, set()).update({*targets} - {name, "__version__"})
    return found


def _run_time_imports(node: ast.AST) -> Iterator[ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _run_time_imports(child)


def test_the_drawing_of_packages_has_the_imports_there_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn: dict[str, set[str]] = {}
    for sources, targets in re.findall(r"^ +([\w &]+) --> ([\w &]+)$", text, re.M):
        for source in sources.split(" & "):
            drawn.setdefault(source, set()).update(targets.split(" & "))

    def below(name: str) -> set[str]:
        return {place for target in drawn.get(name, ()) for place in (target, *below(target))}

    present = imports()
    assert all(drawn[name] <= present[name] for name in drawn)
    assert {name: targets - below(name) for name, targets in present.items() if targets - below(name)} == {}


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "leaderboards" / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_readme_cites_the_project_as_its_citation_file_does() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    entry = (ROOT / "README.md").read_text().partition("@software{")[2].partition("\n}")[0]
    for value in (citation["title"], citation["version"], citation["authors"][0]["name"]):
        assert f"{{{value}}}" in entry


def test_the_method_of_the_extending_page_works(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "extending.md").read_text()
    module = ModuleType("weight_pull")
    monkeypatch.setitem(sys.modules, "weight_pull", module)
    exec(re.search(r"## A method.*?```python\n(.*?)```", text, re.S).group(1), module.__dict__)  # type: ignore[union-attr]
    source = Network(small.model, Layers(("stage1",), "head"))
    method = module.Method(module.Params(steps=4, batch_size=32))
    done = loop.fit(method, source, lambda: source, data.load("digits", "train"), data.load("digits", "val"))
    assert set(done.log[-1]) == {"step", "phase", "lr", "ce", "pull"}
    assert done.log[-1]["pull"] > 0


def test_the_readmes_python_runs(small: Small) -> None:
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)  # type: ignore[union-attr]
    code = code.replace('"8/255", "L2": 0.5, "L1": 12', '"0.05", "L2": 0.2')
    scope = {"model": small.model, "x": small.x[:8], "y": small.y[:8]}
    exec(code, scope)
    assert scope["report"].n == 8  # type: ignore[attr-defined]
    assert torch.is_tensor(scope["report"].x_adv["L2"])  # type: ignore[attr-defined]
