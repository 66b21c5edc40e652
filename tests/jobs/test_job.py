"""A job's name is its specification and its inputs, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from transferbench.base.specifications import AttackSpec, Chain, ThreatModel
from transferbench.jobs.attack import AttackJob
from transferbench.jobs.clean import CleanJob
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.judge import JudgeJob
from transferbench.jobs.networks import PublicNetwork, TrainedNetwork
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
    judge = JudgeJob.of("j", other, craft)
    assert judge.inputs == (other.job, craft)
    assert judge.name != JudgeJob.of("j", other, replace(craft, seed=1)).name
