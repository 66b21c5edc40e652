"""What was chosen when a file of weights was read is printed and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from transferbench.cli.main import main
from transferbench.models import networks, trained

CHOICE = (
    "entry state_dict_ema, as timm's load_checkpoint does (also there: state_dict; #<entry> or --weights-key takes one)"
)
PREFIX = "module. taken out of the names"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    plain = networks.build("small-resnet", 10).model.state_dict()
    averaged = {name: tensor + 1 for name, tensor in plain.items()}
    torch.save({"state_dict": {f"module.{n}": t for n, t in plain.items()}, "state_dict_ema": averaged}, "w.pth")
    return "w.pth"


EVAL = (
    "eval --network small-resnet --dataset digits --norms Linf --eps Linf=0.1 --attacks fgsm --n 4 --allow-low-accuracy"
)


def test_eval_prints_and_records_the_choice(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*EVAL.split(), "--model", f"file:{file}"]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert f"file:w@state_dict_ema: {CHOICE}" in " ".join(err.split())
    assert main([*words, "--weights-key", "state_dict", "--source", f"file:small-resnet={file}"]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "file:w@state_dict: entry state_dict, as asked for" in err
    assert f"file:w@state_dict_ema: {CHOICE}" in err, "of the source as well"
    records = [json.loads(path.read_text()) for path in sorted(Path("runs/eval/records").glob("*.json"))]
    assert [record["victim"] for record in records] == ["file:w@state_dict", "file:w@state_dict_ema"]
    assert records[0]["weights_notes"] == ["entry state_dict, as asked for", PREFIX]
    assert records[1]["weights_notes"] == [CHOICE]
    assert records[0]["weights_sha256"] != records[1]["weights_sha256"]


def test_train_prints_the_choice_of_its_source(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--plugin", "probe", "--target", "digits", "--set", "steps=2", "--out", "new"]
    assert main(["train", *words, "--source", f"file:small-resnet={file}#state_dict"]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "file:w@state_dict: entry state_dict, as asked for" in err
    notes = trained.card(Path("new")).weights_notes
    assert notes == ("source file:w@state_dict: entry state_dict, as asked for", f"source file:w@state_dict: {PREFIX}")
    assert "source: file:w@state_dict" in Path("new/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--model AA_ResNet18 --weights-key ema", "--weights-key is for weights in a file"),
        ("--model file:w.pth --network small-resnet --weights-key ema", "no state dict 'ema'; there is"),
        ("--model file:w.pth --weights-key ema", "name the architecture with --network"),
    ],
)
def test_a_key_that_leads_nowhere_is_refused(
    file: str, words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--dataset", "digits", *words.split()]) == 2
    err = capsys.readouterr().err
    assert complaint in " ".join(err.split())
    assert not Path("runs").exists()
