"""Boards of several suites live side by side, whatever their rows are called."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from support.records import record, source, stamped

from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.leaderboard import example_gallery
from transferbench.models import cards
from transferbench.models.cards import ModelCard
from transferbench.results.records import dump, read
from transferbench.workflows import boards
from transferbench.workflows.publish import publish


def finished(folder: Path, suite: str, names: tuple[str, ...] = ("finetune-s0",), robust: int = 20) -> Path:
    """The folder of a verified run of a suite with these rows and one source."""
    for kind in ("records", "cards"):
        (folder / kind).mkdir(parents=True)
    for one in (source(), *(record(name, robust=robust) for name in names)):
        one = stamped(one.model_copy(update={"suite": suite}))
        (folder / "records" / f"{one.victim}.json").write_text(dump(one))
        card = ModelCard(
            id=one.victim, network="small-resnet", dataset="digits", classes=("a", "b"), input_shape=(1, 8, 8),
            method="lwf", sha256="a" * 64, text=f"# {one.victim} of {suite}",
        )  # fmt: skip
        (folder / "cards" / f"{one.victim}.md").write_text(cards.write(card))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    (root / "leaderboards").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def test_two_suites_with_the_same_row(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suite, robust in (("one", 20), ("two", 10)):
        assert main(["publish", str(finished(tmp_path / suite, suite, robust=robust))]) == 0
        assert f"published to leaderboards/{suite}/ and model_cards/{suite}/" in capsys.readouterr().out
    for suite in ("one", "two"):
        text = (repository / "model_cards" / suite / "finetune-s0.md").read_text()
        assert f"# finetune-s0 of {suite}" in text
        assert boards.check(repository / "leaderboards" / suite) == []
    assert main(["leaderboard", "--check"]) == 0
    out, error = capsys.readouterr()
    assert out.count("tables and page are those of its records") == 2
    assert error == ""


def test_every_link_of_a_page_leads_to_its_own_suites_card(repository: Path, tmp_path: Path) -> None:
    for suite in ("one", "two"):
        publish(finished(tmp_path / suite, suite), repository)
    for suite in ("one", "two"):
        board = repository / "leaderboards" / suite
        pages = [board / "index.html", *(board / "pages").glob("*.html")]
        links = {(page, link) for page in pages for link in re.findall(r'href="([^"]+\.md)"', page.read_text())}
        assert links
        for page, link in links:
            card = (page.parent / unquote(link)).resolve()
            assert card.is_file()
            if "model_cards" in link:
                assert card.parent == repository / "model_cards" / suite


def test_a_second_run_of_a_suite_takes_the_place_of_the_first(repository: Path, tmp_path: Path) -> None:
    publish(finished(tmp_path / "a", "one", ("x-s0", "x-s1")), repository)
    publish(finished(tmp_path / "b", "one", ("x-s0",)), repository)
    board = repository / "leaderboards" / "one"
    assert {path.name for path in (board / "records").iterdir()} == {"src-s0.json", "x-s0.json"}
    assert {path.name for path in (repository / "model_cards" / "one").iterdir()} == {"src-s0.md", "x-s0.md"}
    assert boards.check(board) == []
    assert not list(board.glob(".publish-*"))


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("digits", True),
        ("digits[0,1]", True),
        ("flowers12", False),
        ("cifar10[cat,dog]", False),
        ("cifar10-c:fog:3[cat,dog]", False),
        ("folder", False),
        ("folder:x", False),
        ("gone", False),
    ],
)
def test_pictures_are_published_of_packaged_data_sets_alone(
    dataset: str, shown: bool, repository: Path, tmp_path: Path
) -> None:
    run = finished(tmp_path / "run", "one")
    path = run / "records" / "finetune-s0.json"
    path.write_text(dump(stamped(read(path).model_copy(update={"target_dataset": dataset}))))
    (run / "galleries").mkdir()
    cell = example_gallery.Cell(
        norm="Linf", column=0, example=0, label="0", pred="1", attack="fgsm", distance=0.1, gain=1
    )
    image = np.zeros((1, 8, 8), np.float32)
    picture = example_gallery.draw([(cell, image, image + 0.1)])
    (run / "galleries" / "finetune-s0.png").write_bytes(picture)
    board = publish(run, repository)
    assert (board / "galleries" / "finetune-s0.png").is_file() == shown


def test_what_cannot_be_published_leaves_the_board_as_it_is(repository: Path, tmp_path: Path) -> None:
    board = publish(finished(tmp_path / "a", "one"), repository)
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    second = finished(tmp_path / "b", "one", ("y-s0",))
    (second / "cards" / "y-s0.md").unlink()
    with pytest.raises(InputError, match="no card for y-s0"):
        publish(second, repository)
    # A card that cannot be copied: the copy fails before anything is replaced.
    shutil.rmtree(second)
    second = finished(second, "one", ("y-s0",))
    (second / "records" / "y-s0.json").chmod(0o644)
    (second / "galleries").mkdir()
    (second / "galleries" / "y-s0.png").symlink_to("/proc/self/mem")
    with pytest.raises(OSError):  # noqa: PT011
        publish(second, repository)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert boards.check(board) == []
