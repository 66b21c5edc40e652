"""A job's name is its specification and its inputs, and nothing else; its parts are the whole."""

from __future__ import annotations

from dataclasses import replace

import torch

from transferbench.base.results import AttackResult
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import AttackSpec, Chain, Keep, ThreatModel
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Results
from transferbench.jobs.judge import JudgeJob
from transferbench.jobs.networks import PublicNetwork, TrainedNetwork
from transferbench.jobs.resources import Resources
from transferbench.jobs.train import TrainJob

IMAGES = ImagesInput("digits", "", 0, 20)
THREAT = ThreatModel.parse("Linf", "0.1")
TRAIN = TrainJob("t", "v", "natural", (("lr", 0.1), ("steps", 2)), "digits")


def test_a_job_is_named_by_what_it_computes_alone() -> None:
    job = AttackJob("a label", PublicNetwork("x"), IMAGES, Chain("Linf", THREAT, (AttackSpec.of("fgsm"),)), 0)
    assert job.name == replace(job, label="another label").name
    assert job.name == replace(job, network=PublicNetwork("x", "called y")).name
    for other in (
        replace(job, seed=1),
        replace(job, network=PublicNetwork("y")),
        replace(job, network=TrainedNetwork(TRAIN)),
        replace(job, images=replace(IMAGES, stop=21)),
        replace(job, images=replace(IMAGES, preprocessing="Res8")),
        replace(job, backend="autoattack"),
        replace(job, chain=replace(job.chain, threat=ThreatModel.parse("Linf", "0.2"))),
    ):
        assert other.name != job.name


def test_hyper_parameters_have_no_order_and_radii_train_nothing_anew() -> None:
    assert replace(TRAIN, settings=TRAIN.settings[::-1]).name == TRAIN.name
    assert replace(TRAIN, threats=(("Linf", "0.1"),)).name == TRAIN.name
    assert replace(TRAIN, settings=(("lr", 0.1), ("steps", 3))).name != TRAIN.name


def test_inputs_are_part_of_the_name() -> None:
    network, other = TrainedNetwork(TRAIN), TrainedNetwork(replace(TRAIN, victim="w"))
    assert CleanJob("c", network, IMAGES).name != CleanJob("c", other, IMAGES).name
    craft = CraftJob("c", network, IMAGES, AttackSpec.of("random-sign"), THREAT, 0)
    judge = JudgeJob("j", other, IMAGES, craft)
    assert judge.inputs == (other.job, craft)
    assert judge.name != JudgeJob("j", other, IMAGES, replace(craft, seed=1)).name


def test_a_shard_in_parts_is_the_shard() -> None:
    """Verdicts, points and passes do not depend on how many workers a shard is divided among."""
    images = ImagesInput("letters", "", 0, 70)
    attacks = (AttackSpec.of("apgd-ce", n_iter=6, restarts=1), AttackSpec.of("apgd-t", n_iter=6, targets=2))
    chain = Chain("Linf", ThreatModel.parse("Linf", "0.06"), attacks)
    job = AttackJob("shard", PublicNetwork("letters-natural"), images, chain, 0, whole=images)
    resources, results = Resources(RunSettings(keep=Keep.parse("sample:5"))), Results()
    whole = job.run(resources, results)
    parts = job.parts(3)
    assert [(part.images.start, part.images.stop) for part in parts if isinstance(part, AttackJob)] == [
        (0, 23), (23, 46), (46, 70)
    ]  # fmt: skip
    joined = job.joined([part.run(resources, results) for part in parts])
    for output in (whole, joined):
        assert isinstance(output.result, AttackResult)
    assert 10 < sum(verdict.fooled for verdict in whole.result.verdicts) < 60
    assert joined.result.verdicts == whole.result.verdicts
    assert (joined.result.flags, joined.result.flag_rows) == (whole.result.flags, whole.result.flag_rows)
    for one, other in zip(joined.result.by_attack, whole.result.by_attack, strict=True):
        assert replace(one, wasted=0) == replace(other, wasted=0)
    assert joined.result.cost.forwards == whole.result.cost.forwards
    for name in ("ids", "points"):
        assert torch.equal(joined.tensors[name], whole.tensors[name])
    assert len(whole.tensors["ids"]) == 5
    assert job.parts(100) == job.parts(70 // 8), "no part of fewer than 8 examples"
    assert replace(job, batch=64).parts(3) == [replace(job, batch=64)]
    assert replace(job, backend="autoattack").parts(3) == [replace(job, backend="autoattack")]
