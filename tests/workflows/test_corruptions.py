"""`eval` on corrupted images, from the command line to the verified record."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import corruption_trees, official

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import Epsilon
from transferbench.cli.main import main
from transferbench.data import View
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import robustbench
from transferbench.models.victim import Victim
from transferbench.models.victims import load as load_victim
from transferbench.results.records import Bits, dump, read, read_all
from transferbench.workflows import corruptions
from transferbench.workflows.evaluate import EvaluationRequest

MODULE = """
import torch
from torch import nn
class Net(nn.Module):
    def forward(self, x):
        centres = torch.arange(10)[None] * 25 / 255
        return -(x.mean(dim=(1, 2, 3))[:, None] - centres).abs() * 30
def net():
    return Net().eval()
net.input_shape, net.classes, net.fingerprint = (3, 32, 32), 10, "v1"
"""
N = 20
EVAL = ["eval", "--model", "python:mean_of_pixels:net", "--dataset", "cifar10", "--n", str(N)]
EVAL += ["--allow-low-accuracy", "--trust-code"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model, CIFAR-10 and CIFAR-10-C, in which `eval` was run."""
    folder = tmp_path_factory.mktemp("corrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        (folder / "mean_of_pixels.py").write_text(MODULE)
        corruption_trees.clean_cifar(folder / "data")
        corruption_trees.cifar(folder / "data")
        official.register(patch, "cifar10", folder / "data")
        corruption_trees.register(patch)
        assert main([*EVAL, "--norms", "corruptions"]) == 0
        yield folder
        sys.modules.pop("mean_of_pixels", None)


def test_every_corruption_and_severity_is_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = read_all(place / "runs" / "eval")
    assert record.chains == []
    assert record.protocol == (
        "RobustBench's corruptions: accuracy over 15 corruptions at 5 severities of cifar10-c, no attack"
    )
    assert (record.clean.n, record.n, record.unmeasured_threat) == (N, N, "")
    victim = load_victim("python:mean_of_pixels:net")
    clean = data.load("cifar10", "test", place / "data").first(N)
    assert record.clean.list() == (victim.model(clean.pixels).argmax(1) == clean.labels).tolist()
    for part in record.corruptions[0].parts[::9]:
        images = data.load(f"cifar10-c:{part.corruption}:{part.severity}", "test", place / "data").first(N)
        assert part.correct.list() == (victim.model(images.pixels).argmax(1) == images.labels).tolist()
        assert part.data_fingerprint == images.fingerprint
    assert main([*EVAL, "--norms", "corruptions"]) == 0
    out = capsys.readouterr()
    assert "77 jobs were done before" in out.err, "76 and the check of clean accuracy"
    assert f"(mean of 15 corruptions x 5 severities, {N} images each)" in out.out
    assert "mCE" not in out.out, "RobustBench has none of CIFAR"
    assert sum(line.startswith("         ") for line in out.out.splitlines()) >= 1 + 1 + 15


def test_the_record_is_verified_and_a_changed_one_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["verify", "runs/eval", "--trust-code"]) == 0
    (path,) = (place / "runs" / "eval" / "records").glob("*.json")
    record = read(path)
    assert record.stamp is not None
    one = record.corruptions[0]
    part = one.parts[7]
    bits = part.correct.list()
    other = part.model_copy(update={"correct": Bits.of([not bits[0], *bits[1:]])})
    changed = one.model_copy(update={"parts": [*one.parts[:7], other, *one.parts[8:]]})
    try:
        path.write_text(dump(record.model_copy(update={"corruptions": [changed]})))
        assert main(["verify", "runs/eval", "--trust-code"]) == 1
        assert "motion_blur 3: the record's bits are not the store's" in capsys.readouterr().err
        path.write_text(dump(record))
        table = place / "runs" / "eval" / "leaderboard.csv"
        content = table.read_text()
        table.write_text(content.replace(f",{100 * sum(map(sum, one.counts().values())) / (75 * N):.2f},", ",99.99,"))
        assert main(["verify", "runs/eval", "--trust-code"]) == 1
        assert "leaderboard.csv says corruptions_acc = 99.99" in capsys.readouterr().err
        table.write_text(content)
    finally:
        path.write_text(dump(record))


def test_images_that_changed_are_not_verified(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "data"
    shutil.copytree(place / "data", copy)
    fog = np.load(copy / "CIFAR-10-C" / "fog.npy")
    fog[0] ^= 1
    np.save(copy / "CIFAR-10-C" / "fog.npy", fog)
    assert main(["verify", "runs/eval", "--trust-code", "--data-dir", str(copy)]) == 1
    assert "corruptions, fog 1: data set cifar10-c:fog:1 now has fingerprint" in capsys.readouterr().err


def test_norms_and_corruptions_go_into_one_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--eps", "Linf=0.01", "--attacks", "fgsm", "--out", "both"]
    assert main([*EVAL, "--norms", "Linf,corruptions", *words]) == 0
    out = capsys.readouterr().out
    assert "Linf   0.01" in out
    assert "corruptions" in out
    assert main(["verify", "both", "--trust-code"]) == 0
    (record,) = read_all(place / "both")
    assert [chain.name for chain in record.chains] == ["Linf"]
    assert record.clean_job == ""
    assert len(record.corruptions[0].parts) == 75
    capsys.readouterr()
    assert main([*EVAL, "--norms", "Linf", *words]) == 2
    assert "has corruptions, which are left out now (--norms)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--norms", "corruption"], "unknown norm 'corruption'; did you mean 'corruptions'"),
        (["--norms", "corruptions,corruptions"], "a norm is named twice"),
        (["--norms", "corruptions_3d"], "corruptions_3d: there are no corrupted images of cifar10, only of imagenet"),
        (["--norms", "corruptions", "--attacks", "fgsm"], "--attacks: nothing is attacked under corruptions"),
        (["--norms", "corruptions", "--backend", "autoattack"], "--backend: nothing is attacked"),
        (["--norms", "corruptions", "--eps", "Linf=0.1"], "--eps names Linf, which --norms leaves out: corruptions"),
        (["--norms", "corruptions", "--data-dir", "elsewhere"], "missing"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    place: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*EVAL, *words, "--out", "refused"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (place / "refused").exists()


def test_a_file_that_is_missing_ends_the_command_before_anything_runs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "data" / "CIFAR-10-C" / "elastic_transform.npy"
    aside = file.rename(file.with_suffix(".aside"))
    try:
        assert main([*EVAL, "--norms", "corruptions", "--out", "refused"]) == 2
        assert "elastic_transform.npy missing" in capsys.readouterr().err
        assert not (place / "refused").exists()
    finally:
        aside.rename(file)


def test_selftest_has_nothing_to_test(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["selftest", *EVAL[1:5], "--norms", "corruptions", "--trust-code"]
    assert main(words) == 2
    assert "there is no attack under corruptions" in capsys.readouterr().err


def card(name: str) -> ModelCard:
    found = robustbench.card(name)
    assert found is not None
    return found


CORRUPTION_MODEL = "RB_Hendrycks2020AugMix_WRN@cifar10/corruptions"


def test_a_model_for_corruptions_is_measured_there_by_default(small_victim: Victim) -> None:
    mine, theirs = (
        replace(small_victim, card=card(name)) for name in (CORRUPTION_MODEL, "RB_Carmon2019Unlabeled@cifar10/Linf")
    )
    request = EvaluationRequest("x")
    assert request.completed(mine).norms == ("corruptions",)
    assert request.completed(theirs).norms == ("Linf", "L2", "L1")
    about_attacks = {"norms": ("L2",), "eps": {"L2": Epsilon.parse("0.5")}, "attacks": ("fgsm",), "source": "y"}
    for name, value in about_attacks.items():
        asked = replace(request, **{name: value})  # type: ignore[arg-type]
        assert "corruptions" not in asked.completed(mine).norms


def test_the_models_own_threat_is_named_where_it_was_left_out() -> None:
    corrupted, linf = card(CORRUPTION_MODEL), card("RB_Carmon2019Unlabeled@cifar10/Linf")
    assert corruptions.unmeasured(corrupted, ("Linf", "L2")) == "corruptions"
    assert corruptions.unmeasured(corrupted, ("corruptions", "Linf")) == ""
    assert corruptions.unmeasured(linf, ("corruptions",)) == "Linf"
    assert corruptions.unmeasured(linf, ("L2",)) == "", "as before"
    assert corruptions.unmeasured(linf, ("L2", "corruptions")) == ""
    other = ModelCard(id="a", network="n", dataset="d", classes=("0", "1"), input_shape=(1, 8, 8), method="lwf")
    assert corruptions.unmeasured(other, ("corruptions",)) == ""


def test_images_of_another_size_are_refused(place: Path, small_victim: Victim) -> None:
    settings = RunSettings(data_dir=place / "data")
    clean = data.load("cifar10", "test", place / "data", View(synthetic=True)).first(N)
    with pytest.raises(InputError, match="takes images of shape"):
        corruptions.check_data(("corruptions",), clean, small_victim, settings, False)
