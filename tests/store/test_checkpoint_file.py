"""Unfinished work: half a file is none, a clock that jumps changes nothing, and every engine loop goes on exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.nets import Small

from transferbench import data
from transferbench.attacks import build
from transferbench.base import atomic_files
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.engine.chain import Target, run_chain
from transferbench.engine.reference import run_reference
from transferbench.engine.verdicts import Examples
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Output, Results
from transferbench.jobs.judge import JudgeJob
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.resources import Resources
from transferbench.models import networks, weights
from transferbench.store.checkpoint_file import CheckpointFile
from transferbench.store.store import Store


class StoppedError(Exception):
    pass


class Stops(CheckpointFile):
    """Saves whenever it is offered something, and is killed right after the n-th time."""

    def __init__(self, path: Path, after: int) -> None:
        super().__init__(path, every=0)
        self.left = after

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        self.left -= 1
        if self.left == 0:
            raise StoppedError

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        self.save(state())


def until_done(work: Callable[[CheckpointFile], Any], path: Path, after: int) -> tuple[Any, int]:
    """The work's result after being killed after every `after` savings, and how often it was."""
    kills = 0
    while True:
        try:
            return work(Stops(path, after)), kills
        except StoppedError:
            kills += 1


def test_half_a_file_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = CheckpointFile(tmp_path / "c")
    assert checkpoint.load() is None
    checkpoint.save({"step": 3, "x": torch.arange(4), "names": ["a"], "none": None})
    assert checkpoint.load() == {"step": 3, "x": pytest.approx(torch.arange(4)), "names": ["a"], "none": None}
    whole = (tmp_path / "c").read_bytes()
    for damaged in (whole[:-5], whole[:10], b"", whole[:-1] + bytes([whole[-1] ^ 1]), whole[:40] + b"x" + whole[41:]):
        (tmp_path / "c").write_bytes(damaged)
        caplog.clear()
        assert checkpoint.load() is None
        assert "damaged" in caplog.text
    (tmp_path / "c").write_bytes(whole)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
    NO_CHECKPOINT.save({"step": 1})
    assert NO_CHECKPOINT.load() is None


@pytest.mark.parametrize(("name", "other"), [("version", lambda name: "0.0"), ("_FORMAT", -1)])
def test_another_version_does_not_go_on(
    name: str, other: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    CheckpointFile(tmp_path / "c").save({"step": 3})
    monkeypatch.setattr(f"transferbench.store.checkpoint_file.{name}", other)
    assert CheckpointFile(tmp_path / "c").load() is None
    assert "the work starts again" in caplog.text


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    import hashlib
    import io

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    stream = io.BytesIO()
    torch.save({"x": Evil()}, stream)
    body = stream.getvalue()
    (tmp_path / "c").write_bytes(hashlib.sha256(body).digest() + body)
    assert CheckpointFile(tmp_path / "c").load() is None
    assert not (tmp_path / "ran").exists()


def test_savings_are_rare_where_they_are_dear_and_the_walls_clock_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: -1e9)
    checkpoint, saved = CheckpointFile(tmp_path / "c", every=4), []

    def state() -> dict[str, Any]:
        saved.append(now[0])
        return {}

    monkeypatch.setattr(atomic_files, "write_bytes", lambda *_: now.__setitem__(0, now[0] + 1))
    for second in range(101, 200):
        now[0] = max(now[0], second)
        checkpoint.offer(state)
    # The first after 4 s; each takes a second, so the next ones come 50 s later.
    assert saved == [104, 155]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    atomic_files.write_text(path, "old")

    def fails(writing: Path) -> None:
        writing.write_text("half")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        atomic_files.write(path, fails)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("f", "old")]


CHAIN = (AttackSpec.of("apgd-ce", n_iter=7, restarts=2), AttackSpec.of("apgd-t", n_iter=5, targets=2))


@pytest.mark.parametrize("norm", ["Linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("L2", "L1"))])
def test_the_pool_goes_on_where_it_was_killed(norm: str, small: Small, tmp_path: Path) -> None:
    eps = {"Linf": "0.08", "L2": "0.3", "L1": "1.2"}[norm]
    chain = Chain(norm, ThreatModel.parse(norm, eps), CHAIN)

    def run(checkpoint: CheckpointFile) -> Any:
        target = Target.prepare(small.model, small.x, small.y, 16)
        return run_chain(target, chain, Examples(small.x, small.y, small.ids), 0, checkpoint=checkpoint)

    whole = run(NO_CHECKPOINT)
    broken, kills = until_done(run, tmp_path / "c", 3)
    assert kills > 8
    assert broken.verdicts == whole.verdicts
    assert torch.equal(broken.points, whole.points)
    assert broken.by_attack == whole.by_attack, "the passes of the parts add up to those of the whole"


@pytest.mark.slow
def test_the_reference_goes_on_after_its_last_whole_attack(small: Small, tmp_path: Path) -> None:
    chain = Chain("Linf", ThreatModel.parse("Linf", "0.05"), (AttackSpec.of("apgd-ce"), AttackSpec.of("apgd-t")))
    x, y, ids = small.x[:12], small.y[:12], small.ids[:12]

    def run(checkpoint: CheckpointFile) -> Any:
        return run_reference(Target.prepare(small.model, x, y), chain, Examples(x, y, ids), 0, checkpoint=checkpoint)

    whole = run(NO_CHECKPOINT)
    broken, kills = until_done(run, tmp_path / "c", 1)
    assert kills == 2
    assert broken.verdicts == whole.verdicts
    assert broken.by_attack == whole.by_attack


def test_crafting_judging_and_counting_go_on_where_they_were_killed(tmp_path: Path) -> None:
    weights.write(networks.build("small-resnet", 26).model.state_dict(), tmp_path / "w.safetensors")
    network, images = PublicNetwork(f"file:small-resnet={tmp_path}/w.safetensors"), ImagesInput("letters", "", stop=40)
    spec, threat = AttackSpec.of("pretrained-neuron", neurons=3, n_iter=4), ThreatModel.parse("Linf", "0.1")
    craft = CraftJob("c", network, images, spec, threat, 0)

    def run(job: Job[Any], checkpoint: Checkpoint, rows: int | None = None, results: Results | None = None) -> Output:
        resources = Resources(RunSettings(tmp_path, batch_size=rows))
        return job.run(resources, results or Results(), checkpoint=checkpoint)

    whole = run(craft, NO_CHECKPOINT)
    again, kills = until_done(lambda checkpoint: run(craft, checkpoint, 16), tmp_path / "c", 5)
    assert kills >= 6
    assert again.result == whole.result
    assert torch.equal(again.tensors["points"], whole.tensors["points"])
    assert torch.equal(run(craft, NO_CHECKPOINT, 17).tensors["points"], whole.tensors["points"])

    with Store(tmp_path / "run") as store:
        results = Results({craft.name: craft.keep(store, "k", whole)})
    (tmp_path / "examples").symlink_to(tmp_path / "run" / "examples")
    judge, clean = JudgeJob("j", network, craft.images, craft), CleanJob("n", network, ImagesInput("letters", ""))
    judged = run(judge, NO_CHECKPOINT, results=results)
    rejudged, kills = until_done(lambda checkpoint: run(judge, checkpoint, results=results), tmp_path / "j", 1)
    assert kills == 3
    assert rejudged == judged
    counted = run(clean, NO_CHECKPOINT)
    recounted, kills = until_done(lambda checkpoint: run(clean, checkpoint), tmp_path / "n", 1)
    assert kills == -(-len(data.load("letters", "test")) // 256)
    assert recounted == counted


def test_an_attack_is_built_anew_for_every_start() -> None:
    """What a row remembers is in its state: two objects of one attack are interchangeable in the middle."""
    threat = ThreatModel.parse("L1", "1.0")
    spec = AttackSpec.of("apgd-ce", n_iter=5)
    x, y, logits = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2]), torch.zeros(3, 10)
    from transferbench.attacks import Keys

    ends = []
    for swap in (False, True):
        attack = build(spec, threat, 10)
        state = attack.start(x, y, logits, Keys(torch.arange(3), torch.zeros(3, dtype=torch.int64)))
        for step in range(6):
            if swap and step == 3:
                attack = build(spec, threat, 10)
            gradient = torch.sin(17.0 * state["x"] + step)
            state["x"] = attack.step(state, logits, state["x"].flatten(1).sum(1), gradient)
        ends.append(state["x"])
    assert torch.equal(*ends)
