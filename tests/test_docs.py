"""What README and docs say is what the records and the code say."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.nets import Small

from transferbench import data
from transferbench.base import registry
from transferbench.engine import preflight
from transferbench.leaderboard import build, markdown, rows, transfer
from transferbench.leaderboard.columns import LEADERBOARD
from transferbench.methods import Network
from transferbench.models import cards
from transferbench.models.features import Layers
from transferbench.results.records import read_all
from transferbench.training import loop

ROOT = Path(__file__).parent.parent
BOARDS = sorted(path.parent for path in (ROOT / "leaderboards").glob("*/records"))


@pytest.mark.parametrize("folder", BOARDS, ids=lambda path: path.name)
def test_committed_tables_are_functions_of_their_records(folder: Path) -> None:
    assert build.check(folder) == []
    for record in read_all(folder):
        card = cards.read(ROOT / "model_cards" / f"{record.victim}.md")
        assert card.sha256 == record.weights_sha256


def committed() -> list[rows.Row]:
    return rows.leaderboard_rows(read_all(ROOT / "leaderboards" / "letters-to-digits"))


def test_the_readme_shows_the_committed_table() -> None:
    readme = (ROOT / "README.md").read_text()
    assert markdown.readme_excerpt(committed()) in readme


def test_every_figure_the_readme_argues_with_stands_in_its_table() -> None:
    text = (ROOT / "README.md").read_text().partition("## What the table shows")[2].partition("\n## ")[0]
    figures = set(re.findall(r"\d+\.\d\d", text))
    assert len(figures) > 10
    assert figures <= set(re.findall(r"\d+\.\d\d", markdown.readme_excerpt(committed())))


def test_the_committed_table_shows_what_the_readme_claims() -> None:
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
    assert all([row["rank"] for row in by_name[name]] == [1, 1, 1] for name in ("eat-robust", "max-robust"))
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


def test_the_protocol_lists_every_flag() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) >= set(preflight.FLAGS)


def test_the_leaderboard_page_defines_every_column() -> None:
    page = (ROOT / "leaderboards" / "letters-to-digits" / "leaderboard.md").read_text()
    assert all(f"- `{name}`: " in page for name in (column.name for column in LEADERBOARD))


def test_every_method_and_attack_is_documented() -> None:
    methods, protocol = (ROOT / "docs" / name for name in ("methods.md", "protocol.md"))
    for id in registry.entries("methods"):
        assert f"`{id}`" in methods.read_text()
    for id in set(registry.entries("attacks")) - {"apgd-dlr"}:
        assert f"`{id}`" in protocol.read_text()


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
