from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_suite import TINY

from transferbench import suites
from transferbench.base.errors import InputError
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.train import TrainJob
from transferbench.scheduling import plan
from transferbench.workflows import run_suite

SHIPPED = Path(suites.__file__).parent / "letters-to-digits.yaml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = SHIPPED.read_text()
    assert old in text
    path = tmp_path / "letters-to-digits.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("n: 200", "nn: 200", r"nn: unknown key; did you mean 'n'\? \(allowed: device, full, n, n_chains, name"),
        ("n: 200", "n: 0", "n: Input should be greater than or equal to 1, not 0"),
        ("n: 200", "n: many", "n: Input should be a valid integer"),
        ("Linf: &short", "Linf7: &short", "protocol.chains.Linf7"),
        ('{Linf: "0.1",', '{Linf: "8",', "Linf eps 8 is over 1"),
        ('{Linf: "0.1",', "{Linf: 0.1,", "threats.Linf: .*as text in quotes"),
        ("id: apgd-ce", "id: apgd-cee", r"unknown attack 'apgd-cee'; did you mean 'apgd-ce'\?"),
        ("method: lwf", "method: lfw", r"unknown method 'lfw'; did you mean 'lwf'\?"),
        ("source: madry, set: *tune", "source: madri, set: *tune", r"unknown source 'madri'; did you mean 'madry'\?"),
        ("network: small-resnet", "network: small", "unknown network 'small'"),
        ("target_dataset: digits", "target_dataset: digit", "unknown data set 'digit'"),
        ("name: probe-robust,", "name: probe-natural,", "names are used twice: probe-natural"),
        ("name: probe-robust,", 'name: "../x",', r"rows\.4\.name: String should match pattern"),
        ("name: letters-to-digits", "name: other", "the file's name says 'letters-to-digits'"),
        ("seeds: [0]", "seeds: [0", "not readable as YAML"),
        ("seeds: [0]", "seeds: !!python/object/apply:os.system [ls]", "line 7: a tag"),
    ],
)
def test_a_bad_suite_is_refused_in_one_line(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(InputError, match=complaint) as caught:
        suites.load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("targets: 3}", "targetz: 3}", "targetz"),
        ("n_iter: 20, restarts: 1}", "n_iter: -1}", "n_iter=-1 must be at least 1"),
        ("warm_lr: 0.1", "warm_rl: 0.1", r"unknown hyper-parameter of lwf: 'warm_rl'; did you mean 'warm_lr'\?"),
        ("feat_lmda: 1,", "feat_lmda: -1,", "feat_lmda"),
        ("draws: 24}", "draws: 4}", "only 4 draws"),
    ],
)
def test_bad_parameters_are_found_before_anything_runs(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        run_suite.check(suites.load(str(changed(tmp_path, old, new))))


def test_every_shipped_suite_can_be_built() -> None:
    for name in suites.available():
        run_suite.check(suites.load(name))


def test_a_plan_is_pure_and_its_inputs_come_first() -> None:
    suite = suites.load("letters-to-digits")
    first, second = plan.plan(suite, (0, 1)), plan.plan(suite, (0, 1))
    assert [job.name for job in first.jobs] == [job.name for job in second.jobs]
    seen: set[str] = set()
    for job in first.jobs:
        assert {one.name for one in job.inputs} <= seen
        seen.add(job.name)
    assert len(seen) == len(first.jobs)
    crafted = [job for job in first.jobs if job.kind == "craft"]
    (measured,) = suite.protocol.source_only
    attacks = len(measured.parts) - 1
    per_source = 1 + 3 * attacks
    assert len(crafted) == 2 * 2 * per_source, "of each source and seed: an attack, its two controls, and random signs"
    full = plan.plan(suite.in_full(), (0,))
    shared = {job.name for job in full.jobs} & seen
    assert {job.kind for job in first.jobs if job.name in shared} == {
        "train",
        "craft",
        "judge",
        "query",
        "clean",
        "attack",
    }


def test_shards_are_the_same_whatever_n() -> None:
    assert plan.shards(600) == [(0, 256), (256, 512), (512, 600)]
    assert plan.shards(1000)[:2] == plan.shards(600)[:2]


BLOCKS = """
  - name: a
    target_dataset: digits
    sources: &given
      - {name: one, model: pretr_Linf}
      - {name: two, model: pretr_L2}
    rows: [{name: tune, method: finetune}, {name: probe, method: probe, source: two}]
  - name: b
    target_dataset: digits
    source_dataset: cifar10
    sources: *given
    rows: [{name: tune, method: finetune, source: one}]
"""


def blocks(tmp_path: Path, text: str = BLOCKS) -> suites.Suite:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY[: TINY.index("training:")] + "training:" + text)
    return suites.load(str(path))


def test_public_sources_and_several_blocks(tmp_path: Path) -> None:
    planned = plan.plan(blocks(tmp_path), (0, 1))
    names = [victim.name for victim in planned.victims]
    of_seed = ["a-tune-one-s{}", "a-tune-two-s{}", "a-probe-s{}", "b-tune-s{}"]
    assert names == ["pretr_Linf", "pretr_L2", *(name.format(0) for name in of_seed), *(n.format(1) for n in of_seed)]
    measured = {evaluation.victim: evaluation for _, evaluation in planned.evaluations}
    assert measured["pretr_Linf"].role == "source", "block b says on which data"
    trains = {job.victim: job for job in planned.jobs if isinstance(job, TrainJob)}
    assert trains["a-probe-s1"].source == PublicNetwork("pretr_L2")
    assert not trains["a-probe-s1"].inputs
    crafts = [job for job in planned.jobs if isinstance(job, CraftJob)]
    assert {job.network.id for job in crafts} == {"pretr_Linf", "pretr_L2"}
    assert len({job.name for job in crafts}) == len(crafts) == 2 * 2 * 2, "per source, attack and seed"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: b\n", "name: a\n", "a-tune-one is named twice|name of its own"),
        ("model: pretr_L2", "method: natural", "source two is trained: say with which network"),
        ("model: pretr_L2", "modell: pretr_L2", "did you mean 'model'"),
        ("{name: two, model: pretr_L2}", "{name: two}", "write either model"),
        ("{name: two, model: pretr_L2}", "{name: two, model: pretr_L2, set: {lr: 1}}", "a public model is not trained"),
        ("source: two}", "source: three}", "unknown source 'three'"),
    ],
)
def test_bad_blocks_are_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = BLOCKS.replace(
        "rows: [{name: tune, method: finetune, source: one}]", "rows: [{name: tune-one, method: finetune, source: one}]"
    )
    with pytest.raises(InputError, match=complaint):
        blocks(tmp_path, text.replace(old, new))


def test_a_public_model_is_written_out(tmp_path: Path) -> None:
    suite = blocks(tmp_path, BLOCKS.replace("pretr_L2", "RB_Carmon2019"))
    with pytest.raises(InputError, match="write the model's whole id, RB_Carmon2019Unlabeled@cifar10/Linf"):
        run_suite.check(suite)


@pytest.mark.parametrize("seeds", ["[]", "[0, 0]"])
def test_seeds_are_named_once(tmp_path: Path, seeds: str) -> None:
    with pytest.raises(InputError, match="each once"):
        suites.load(str(changed(tmp_path, "seeds: [0]", f"seeds: {seeds}")))


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("    also: [{id: pretrained-neuron, neurons: 1}]\n", "pretrained-neuron is named twice"),
        ('    queries: ["simba-ods:queries=5", "simba-ods:queries=9"]\n', "simba-ods is named twice"),
        ("    also: [random-sign]\n", "random-sign is named twice"),
    ],
)
def test_an_attack_that_holds_the_source_is_named_once(tmp_path: Path, more: str, complaint: str) -> None:
    (tmp_path / "twice.yaml").write_text(TINY.replace("training:", f"{more}training:"))
    with pytest.raises(InputError, match=complaint):
        suites.load(str(tmp_path / "twice.yaml"))


def test_the_control_is_noise_and_a_norm_has_one_radius(tmp_path: Path) -> None:
    control = "control: {id: random-sign, draws: 2}"
    assert control in TINY
    (tmp_path / "attack.yaml").write_text(TINY.replace(control, "control: source-mi"))
    with pytest.raises(InputError, match="source-mi is an attack"):
        suites.load(str(tmp_path / "attack.yaml"))
    block = f'{{eps: "0.1", attack: source-mi, {control}}}'
    text = (
        TINY[: TINY.index("  source_only:")] + f"  source_only: [{block}, {block}]\n" + TINY[TINY.index("training:") :]
    )
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(InputError, match="Linf is named twice"):
        suites.load(str(tmp_path / "twice.yaml"))
