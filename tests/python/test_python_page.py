"""docs/python.md and the notebook say what runs."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest

import transferbench

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pages_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = re.search(r"```yaml\n(.*?)```", (DOCS / "suites.md").read_text(), re.S)
    assert suite is not None
    # The suite of the other page, shorter: its trainings are not what is tested here.
    Path("my-suite.yaml").write_text(
        suite.group(1).replace("n: 50", "n: 8").replace("steps: 100", "steps: 3").replace("steps: 50", "steps: 2")
    )
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.S)
    assert len(blocks) == 10
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), scope)
    assert Path("report.png").stat().st_size > 1000
    assert Path("my-run/leaderboard.csv").is_file()


def test_the_page_has_every_public_name() -> None:
    text = (DOCS / "python.md").read_text()
    for name in set(transferbench.__all__) - {"__version__"}:
        assert re.search(rf"^\| `{name}\b", text, re.M), name


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / "evaluation.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "committed without outputs"
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert "95 % interval" in "".join(output["data"].get("text/html", "") for output in shown if "data" in output)
    assert matplotlib.__version__
