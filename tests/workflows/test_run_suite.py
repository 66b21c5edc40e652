"""A small suite from YAML to table: twice the same bytes, nothing done twice, nothing old taken for new."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_suite import TINY, Recorder, run, tiny

from transferbench.base.errors import InputError
from transferbench.jobs.job import Job
from transferbench.leaderboard import build
from transferbench.results import verification
from transferbench.results.records import Record, read_all
from transferbench.workflows.publish import publish


def carry_out(
    root: Path, text: str = TINY, seeds: tuple[int, ...] = (0,), slots: int | None = None
) -> tuple[list[Record], Recorder]:
    return run(tiny(root.parent, text), root, seeds=seeds, batch_size=slots)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first") / "out"
    carry_out(root)
    assert verification.verify(root) == []
    return root


def test_everything_that_was_promised_is_there(first: Path) -> None:
    assert {path.name for path in first.iterdir()} >= {
        "leaderboard.csv", "cost.csv", "leaderboard.md", "cards", "records", "victims", "store.sqlite3"
    }  # fmt: skip
    assert {path.stem for path in (first / "cards").iterdir()} == {"letters-natural-s0", "probe-s0", "finetune-s0"}
    assert not list(first.rglob("*.writing"))
    assert build.check(first) == []
    for record in read_all(first):
        assert record.n == 24
        assert sum(record.class_counts) == 24
        assert [chain.name for chain in record.chains][:3] == ["Linf", "L2", "L1"]
        assert (record.crafted == []) == (record.role == "source")


def test_a_second_run_does_nothing_and_gives_the_same_bytes(first: Path) -> None:
    before = (first / "leaderboard.csv").read_bytes()
    _, reporter = carry_out(first)
    assert reporter.run == []
    assert reporter.found
    assert (first / "leaderboard.csv").read_bytes() == before


def test_the_same_seed_elsewhere_in_another_batch_gives_the_same_table(first: Path, tmp_path: Path) -> None:
    carry_out(tmp_path / "out", slots=5)
    assert (tmp_path / "out" / "leaderboard.csv").read_bytes() == (first / "leaderboard.csv").read_bytes()


def test_only_what_changed_is_run_again(first: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    carry_out(root)
    _, reporter = carry_out(root, TINY.replace('L2: "0.4"', 'L2: "0.5"'))
    assert len(reporter.run) == 3
    assert all(job.label.endswith(": L2") for job in reporter.run)
    _, reporter = carry_out(root, TINY.replace("{id: pgd, k: 3}", "{id: pgd, k: 4}"))
    assert {job.label for job in reporter.run} == {"probe-s0: pgd20_linf", "finetune-s0: pgd20_linf"}
    _, reporter = carry_out(root, seeds=(0, 1))
    assert all("-s1" in job.label for job in reporter.run)


def test_a_curve_runs_the_norms_chain_at_more_radii(tmp_path: Path) -> None:
    text = TINY.replace("  source_only:", '  curve: {Linf: ["0.02", "0.2"]}\n  source_only:')
    records, _ = carry_out(tmp_path / "out", text)
    for record in records:
        if record.role == "victim":
            low, middle, high = (record.chain(name) for name in ("Linf@0.02", "Linf", "Linf@0.2"))
            assert low is not None
            assert middle is not None
            assert high is not None
            assert low.attacks == middle.attacks == high.attacks
            assert low.robust.count >= middle.robust.count >= high.robust.count
            assert (low.eps, high.eps) == ("0.02", "0.2")


def test_weights_that_went_missing_are_trained_again_to_the_same_table(tmp_path: Path) -> None:
    root = tmp_path / "out"
    carry_out(root)
    before = (root / "leaderboard.csv").read_bytes()
    (root / "victims" / "probe-s0" / "model.safetensors").unlink()
    _, reporter = carry_out(root)
    assert [job.label for job in reporter.run] == ["train probe-s0"]
    assert (root / "leaderboard.csv").read_bytes() == before


def test_an_interrupted_run_goes_on(tmp_path: Path, first: Path) -> None:
    class Interrupting(Recorder):
        def end(self, job: Job, seconds: float | None) -> None:
            super().end(job, seconds)
            if len(self.run) == 7:
                raise KeyboardInterrupt

    root = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(tiny(tmp_path), root, Interrupting())
    _, reporter = carry_out(root)
    assert len(reporter.found) == 7
    assert (root / "leaderboard.csv").read_bytes() == (first / "leaderboard.csv").read_bytes()


def test_publishing_copies_a_finished_run(first: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder leaderboards/"):
        publish(first, tmp_path)
    carry_out(tmp_path / "unverified", seeds=(0,))
    with pytest.raises(InputError, match="was never verified: run transferbench verify"):
        publish(tmp_path / "unverified", tmp_path)
    (tmp_path / "leaderboards").mkdir()
    target = publish(first, tmp_path)
    assert target == tmp_path / "leaderboards" / "tiny"
    assert build.check(target) == []
    assert (target / "leaderboard.csv").read_bytes() == (first / "leaderboard.csv").read_bytes()
    assert {path.stem for path in (tmp_path / "model_cards" / "tiny").iterdir()} == {
        "letters-natural-s0",
        "probe-s0",
        "finetune-s0",
    }
