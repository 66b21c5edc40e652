from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from transferbench import suites
from transferbench.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def victim(here: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    steps = ["--set", "steps=40", "--set", "batch_size=50"]
    assert main(["train", "--plugin", "natural", "--target", "digits", "--out", "mine", *steps]) == 0
    capsys.readouterr()
    return here / "mine"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("frob", "frob"),
        ("run", "SUITE"),
        ("run letters-to-digit", "did you mean 'letters-to-digits'"),
        ("run nowhere.yaml", "nowhere.yaml"),
        ("run eval", "trains nothing"),
        ("run letters-to-digits --seeds 0,a", "0,a"),
        ("run letters-to-digits --seeds 0,0", "named twice"),
        ("run letters-to-digits --batch-size 0", "--batch-size 0"),
        ("run letters-to-digits --device tpu", "tpu"),
        ("eval", "--model"),
        ("eval --model AA_Resnet18", "did you mean 'AA_ResNet18'"),
        ("eval --model nowhere/at/all", "nowhere/at/all"),
        ("eval --model RB_Carmon2019 --norms Linf,L2,L1", "no weights at models/cifar10/Linf/Carmon2019Unlabeled.pt"),
        ("eval --model RB_Carmon2018", "did you mean 'Carmon2019Unlabeled'"),
        ("eval --model torchvision:resnet18", "no weights at models/resnet18-f37072fd.pth"),
        ("eval --model file:w.pt", "--network"),
        ("eval --model file:w.pt --network preact-resnet18", "there is no such file"),
        ("eval --model file:w.pt --network preact-resnet", "did you mean 'preact-resnet18'"),
        ("eval --model AA_ResNet18 --network preact-resnet18", "write --model file:AA_ResNet18"),
        ("eval --model python:no_such_module:net", "cannot import no_such_module"),
        ("card RB_Carmon2018", "did you mean 'Carmon2019Unlabeled'"),
        ("card torchvision:resnet19", "unknown torchvision network"),
        ("eval --model AA_ResNet18 --norms Linf,L3", "unknown norm 'L3'"),
        ("eval --model AA_ResNet18 --eps Linf=8", "Linf eps 8 is over 1"),
        ("eval --model AA_ResNet18 --eps Linf", "write it as name=value"),
        ("eval --model AA_ResNet18 --eps L2=x", "eps 'x'"),
        ("eval --model AA_ResNet18 --norms Linf --eps L2=1", "--norms leaves out"),
        ("eval --model AA_ResNet18 --attacks apgd", "unknown attack 'apgd'"),
        ("eval --model AA_ResNet18 --attacks fgsm --norms L2", "Linf only"),
        ("eval --model AA_ResNet18 --attacks random-sign", "holds the public model alone"),
        ("eval --model AA_ResNet18 --dataset digit", "did you mean 'digits'"),
        ("eval --model AA_ResNet18 --dataset digits", "takes images of shape (3, 32, 32)"),
        ("eval --model AA_ResNet18 --dataset folder:nowhere", "no folder nowhere"),
        ("eval --model AA_ResNet18", "data/cifar-10-batches-py missing"),
        ("eval --model AA_ResNet18 --n 0", "--n 0"),
        ("eval --model AA_ResNet18 --norms Linf,Linf", "named twice"),
        ("eval --model AA_ResNet18 --attacks ,", "write names with commas"),
        ("train --plugin natural --target digits --out", "see transferbench train --help"),
        ("eval --model AA_ResNet18 --device cuda:99", "cuda:99"),
        ("eval --model AA_ResNet18 --backend foolbox", "foolbox"),
        ("eval --model AA_ResNet18 --keep-examples some", "fooled, all, sample:N or none"),
        ("run letters-to-digits --keep-examples sample:0", "fooled, all, sample:N or none"),
        ("run letters-to-digits --cluster ssh://x", "write local:N"),
        ("run letters-to-digits --cluster local:0", "write local:4"),
        ("eval --model AA_ResNet18 --cluster tcp://127.0.0.1:1", "no scheduler answers"),
        ("runs nowhere", "no store of a run"),
        ("verify nowhere", "there are no records"),
        ("train --plugin lfw --target digits --out new", "did you mean 'lwf'"),
        ("train --plugin lwf --target digit --out new", "did you mean 'digits'"),
        ("train --plugin lwf --target digits --out new", "needs a source"),
        ("train --plugin natural --target digits --network small --out new", "small-resnet"),
        ("train --plugin natural --target digits --set steps --out new", "write it as name=value"),
        ("train --plugin natural --target digits --set steps=1 --set steps=2 --out new", "given twice"),
        ("train --plugin natural --target digits --set stepz=1 --out new", "did you mean 'steps'"),
        ("train --plugin natural --target digits --set steps=many --out new", "steps"),
        ("train --plugin natural --target cifar10 --out new", "data/cifar-10-batches-py missing"),
        ("selftest --model AA_ResNet18 --norms L9", "unknown norm 'L9'"),
        ("leaderboard nowhere", "nowhere"),
        ("leaderboard --check", "no leaderboard"),
        ("publish nowhere", "nowhere"),
        ("list everything", "everything"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], words: str, complaint: str
) -> None:
    try:
        status: object = main(words.split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2, error
    assert complaint in error
    assert error.startswith("transferbench: error: ")
    assert error.count("\n") == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kind", ["models", "networks", "datasets", "methods", "attacks", "suites"])
def test_lists_start_each_line_with_the_id(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    ids = [line.split()[0] for line in lines]
    assert ids == sorted(ids)


def test_a_dry_run_prints_the_plan_and_makes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "letters-to-digits", "--dry-run", "--seeds", "0,1"]) == 0
    out = capsys.readouterr().out
    suite = suites.load("letters-to-digits")
    (block,), (measured,) = suite.training, suite.protocol.source_only
    rows, attacks = 2 * len(block.rows), 1 + len(measured.also)
    # Of both seeds and sources: an attack, its two controls, and random signs once; every row is shown those of its own
    # source and the other's attacks; 2 x 3 chains of sources, 8 of every row (4 of them the curve's).
    counts = {
        "train": 2 * 2 + rows,
        "attack": 2 * 2 * 3 + 8 * rows,
        "craft": 2 * 2 * (3 * attacks + 1),
        "judge": rows * (3 * attacks + 1 + attacks),
        "query": rows * 2 * len(measured.queries),
        "clean": rows,
    }
    words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    assert f"{sum(counts.values())} jobs ({words}) for {rows + 4} networks" in out
    assert list(here.iterdir()) == []


def test_eval_reports_everything_and_a_second_one_is_free(victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", str(victim), "--source", str(victim), "--norms", "Linf,L2", "--n", "20", "--out", "e"]
    assert main([*words, "--eps", "Linf=0.2,L2=0.4"]) == 0
    first = capsys.readouterr()
    for expected in ("sha256", "digits test, first 20", "class counts", "seed     0", "Linf    0.2", "L2      0.4"):
        assert expected in first.out
    assert "apgd-ce x1 broke" in first.out
    assert "controls: random-sign" in first.out
    assert "secrecy of the weights buys" in first.out
    record = json.loads((Path("e") / "records" / "mine.json").read_text())
    assert record["chains"][0]["attacks"] == [{"id": "apgd-ce"}, {"id": "apgd-t"}]
    assert main([*words, "--eps", "Linf=0.2,L2=0.4"]) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "[1/" not in second.err, "nothing was run again"


def test_selftest_says_what_was_planted_and_found(victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--model", str(victim), "--eps", "Linf=0.1,L2=0.4,L1=1.5", "--n", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Linf:0.1", "L2:0.4", "L1:1.5"]
    for line in lines:
        words = line.split()
        assert int(words[1]) == int(words[3]) > 0


def test_train_writes_a_victim_that_eval_takes(victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--plugin", "lwf", "--source", str(victim), "--target", "digits", "--out", "new"]
    assert main([*words, "--set", "steps=10", "--set", "batch_size=32"]) == 0
    assert "validation accuracy" in capsys.readouterr().out
    with (Path("new") / "log.csv").open() as file:
        log = list(csv.DictReader(file))
    assert [row["step"] for row in log] == ["0", "4", "5", "9"]
    assert {row["phase"] for row in log} == {"head", "all"}
    assert all(float(row["ce"]) > 0 and float(row["features"]) >= 0 for row in log)
    assert main(words) == 2
    assert "the training of something else is there" in capsys.readouterr().err
    assert (
        main(["eval", "--model", "new", "--norms", "Linf", "--eps", "Linf=0.1", "--attacks", "fgsm,pgd", "--n", "10"])
        == 0
    )
    assert "pgd x1 broke" in capsys.readouterr().out
    assert (Path("runs") / "eval" / "leaderboard.csv").is_file()


def untrained(folder: Path, chance: bool) -> str:
    """A folder of 60 crops in two classes; a victim that says 0 to all of them, or is right on most of them."""
    from PIL import Image

    for label, name in enumerate(("left", "right")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(30):
            grey = 90 + 75 * label if not chance else 128
            Image.new("RGB", (2, 2), (grey + number % 7, grey, grey)).save(folder / "images" / name / f"{number}.png")
    (folder / "brightness.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(12, 2)\n"
        "        with torch.no_grad():\n"
        "            self.head.weight.copy_(torch.stack([-torch.ones(12), torch.ones(12)]) / 12)\n"
        "            self.head.bias.copy_(torch.tensor([0.5, -0.5]))\n"
        "    def forward(self, x):\n"
        "        return self.head(x.flatten(1))\n"
        "def net():\n"
        "    return Net().eval()\n"
        "net.input_shape, net.classes = (3, 2, 2), ['left', 'right']\n"
    )
    return "python:brightness:net"


@pytest.mark.parametrize("chance", [True, False])
def test_accuracy_at_chance_stops_before_any_attack(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, chance: bool
) -> None:
    sys.modules.pop("brightness", None)
    words = ["eval", "--model", untrained(here, chance), "--dataset", "folder:images", "--eps", "Linf=0.1", "--norms"]
    words += ["Linf", "--out", "e", "--attacks", "fgsm"]
    status = main(words)
    out, error = capsys.readouterr()
    if not chance:
        assert status == 0, error
        assert "60/60" in out
        assert "declares no fingerprint" in out
        return
    assert status == 2
    assert "30 of 60" in error
    assert "--allow-low-accuracy" in error
    assert not (here / "e" / "records").exists(), "nothing was attacked"
    assert main([*words, "--allow-low-accuracy"]) == 0
    assert "accuracy-at-chance" in capsys.readouterr().out


def test_a_folder_that_names_other_classes_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules.pop("brightness", None)
    model = untrained(here, False)
    (here / "images" / "left").rename(here / "images" / "up")
    assert main(["eval", "--model", model, "--dataset", "folder:images", "--eps", "Linf=0.1", "--norms", "Linf"]) == 2
    assert "knows it as 'left'" in capsys.readouterr().err


def test_cards_are_shown(victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for id, expected in (
        ("RB_Carmon2019", "robustbench:cifar10/Linf/Carmon2019Unlabeled"),
        ("AA_ResNet18", "399f52da9f914c323fa5"),
        ("pretr_L1", "preact-resnet18"),
        ("torchvision:mobilenet_v2", "Res256Crop224"),
        (str(victim), "dataset: digits"),
        (str(victim / "README.md"), "dataset: digits"),
    ):
        assert main(["card", id]) == 0
        out = capsys.readouterr().out
        assert out.startswith("---\n")
        assert expected in out
    assert main(["card", str(victim)]) == 0
    assert capsys.readouterr().out == (victim / "README.md").read_text()


def test_a_config_file_gives_hyper_parameters_and_set_goes_before_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--plugin", "natural", "--target", "digits", "--out", "new", "--config", "c.yaml"]
    for content, complaint in (
        ("steps: 4\nbatchsize: 8\n", "did you mean 'batch_size'"),
        ("steps: [4]\n", "name: value"),
        ("- steps\n", "name: value"),
        ("steps: {\n", "not readable as YAML"),
        ("lr: no\n", "line 1: no would be read as false"),
        ("steps: 4\nsteps: 5\n", "line 2: the key 'steps' is there twice"),
        ("steps: 020\n", "would be read as 16"),
    ):
        Path("c.yaml").write_text(content)
        assert main(words) == 2
        assert complaint in capsys.readouterr().err
    assert not Path("new").exists()
    Path("c.yaml").write_text("steps: 4\nbatch_size: 8\nlr: 1e-3\n")
    assert main([*words, "--set", "steps=3"]) == 0
    card = (Path("new") / "README.md").read_text()
    assert "steps: 3\n" in card
    assert "lr: 0.001\n" in card


@pytest.mark.parametrize(
    "words",
    [
        "eval --model letters-madry --eps Linf=0.1 --eps Linf=0.2",
        "eval --model letters-madry --norms Linf --norms L2",
        "eval --model letters-madry --attacks pgd --attacks fgsm",
        "run letters-to-digits --seeds 0 --seeds 1 --dry-run",
        "run letters-to-digits --n 5 --n 6 --dry-run",
        "train --plugin lwf --plugin eat",
    ],
)
def test_an_option_is_given_once(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert "is given twice: write it once, several values with commas" in capsys.readouterr().err
