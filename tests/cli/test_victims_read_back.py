"""What `train` makes can be attacked with the line that it prints, whatever it was trained from."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from transferbench.cli.main import main
from transferbench.models import trained

MODULE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear({pixels}, 32, bias=False)
        self.head = nn.Linear(32, 10, bias=False)
    def forward(self, x):
        return self.head(torch.relu(self.body(x.flatten(1))))
def net():
    torch.manual_seed(0)
    return Net().eval()
net.input_shape, net.classes = (1, {side}, {side}), 10
"""
SHORT = ["--set", "steps=60", "--set", "batch_size=32", "--set", "lr=0.1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "larger", "odd"):
        sys.modules.pop(name, None)
    return tmp_path


def module(name: str, side: int = 8) -> str:
    Path(f"{name}.py").write_text(MODULE.format(pixels=side * side, side=side))
    return f"python:{name}:net"


VICTIMS = [
    ("python", "ft1", "finetune"),
    ("python", "my victim (2)", "probe"),
    ("larger", "runs/a b", "finetune"),
    ("letters-madry", "RB_mine", "probe"),
    ("letters-madry", "letters-natural", "finetune"),
    ("file", "file:x", "probe"),
    ("letters-natural", "it's $HOME", "finetune"),
    ("letters-natural", ".", "probe"),
]
OTHERS = {"finetune": "probe", "probe": "finetune"}


@pytest.mark.parametrize(
    ("source", "out", "plugin"),
    [
        *VICTIMS[:4],
        *(pytest.param(*victim, marks=pytest.mark.slow) for victim in VICTIMS[4:]),
        *(pytest.param(source, out, OTHERS[plugin], marks=pytest.mark.slow) for source, out, plugin in VICTIMS),
    ],
)
def test_the_printed_line_works_as_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], source: str, out: str, plugin: str
) -> None:
    if source in ("python", "larger"):
        source = module("mine") if source == "python" else module("larger", 12)
    elif source == "file":
        assert main(["train", "--plugin", "natural", "--target", "digits", *SHORT, "--out", "w"]) == 0
        source = "file:small-resnet=w/model.safetensors"
    hidden = ["--set", "hidden=16"] if plugin == "probe" else []
    words = ["train", "--plugin", plugin, "--source", source, "--target", "digits", *SHORT, *hidden, "--out", out]
    assert main(words) == 0, capsys.readouterr().err
    *_, line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("attack it: ")]
    typed = shlex.split(line.removeprefix("attack it: ").partition(" with --eps")[0])
    assert typed[:2] == ["transferbench", "eval"]
    more = ["--eps", "Linf=0.1", "--norms", "Linf", "--n", "8", "--attacks", "fgsm", "--allow-low-accuracy"]
    assert main([*typed[1:], *more, "--out", str(here / "e")]) == 0, capsys.readouterr().err
    assert trained.load(Path(out)).card.id


@pytest.mark.parametrize("plugin", ["natural", "scratch"])
def test_a_function_has_no_random_weights(here: Path, capsys: pytest.CaptureFixture[str], plugin: str) -> None:
    words = ["train", "--plugin", plugin, "--source", module("mine"), "--target", "digits", *SHORT, "--out", "x"]
    assert main(words) == 2
    assert "it has no random ones" in capsys.readouterr().err
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def net(:\n", "cannot import odd (SyntaxError: invalid syntax, odd.py line 1)"),
        ("raise SystemExit('no')\n", "cannot import odd (SystemExit: no)"),
        ("import nowhere_at_all\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        (
            "def net():\n    raise KeyError('w')\nnet.input_shape, net.classes = (1, 8, 8), 10\n",
            "net() raised KeyError",
        ),
        ("def net(): return 1\nnet.input_shape, net.classes = (1, 8, 8), 10\n", "returned int"),
        ("def net(): pass\nnet.input_shape, net.classes = 16, 10\n", "input_shape is 16"),
        ("def net(): pass\nnet.input_shape, net.classes = (1, 0, 8), 10\n", "input_shape is (1, 0, 8)"),
        ("def net(): pass\nnet.input_shape, net.classes = (1, 8.5, 8), 10\n", "input_shape is"),
        ("def net(): pass\nnet.input_shape, net.classes = (1, 8, 8), 1\n", "classes is 1"),
        ("def net(): pass\nnet.input_shape, net.classes = (1, 8, 8), 'abc'\n", "classes is 'abc'"),
        ("def net(): pass\nnet.input_shape, net.classes = (1, 8, 8), ['a', 'a']\n", "classes is ['a', 'a']"),
        ("net = 3\n", "no function 'net'"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "train"])
def test_a_function_that_is_no_model(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str, command: str
) -> None:
    Path("odd.py").write_text(text)
    words = {
        "eval": ["eval", "--model", "python:odd:net", "--dataset", "digits", "--out", "x"],
        "train": ["train", "--plugin", "finetune", "--source", "python:odd:net", "--target", "digits", "--out", "x"],
    }[command]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
    assert not Path("x").exists()


@pytest.mark.parametrize("id", ["python:", "python:a", "python:a b:c", "python:a:b c", "python:../x:y", "python:a::b"])
def test_what_names_no_function(here: Path, capsys: pytest.CaptureFixture[str], id: str) -> None:
    assert main(["eval", "--model", id, "--dataset", "digits"]) == 2
    assert "write it as python:<module>:<function>" in capsys.readouterr().err


def test_numbers_of_numpy_are_numbers(here: Path) -> None:
    import numpy as np

    from transferbench.models import python_function

    module("mine")
    text = (
        Path("mine.py")
        .read_text()
        .replace(", 10\n", ", np.int64(10)\n")
        .replace("import torch", "import numpy as np, torch")
    )
    Path("mine.py").write_text(text)
    assert python_function.call("python:mine:net").classes == tuple(map(str, range(10)))
    assert np.int64(10) == 10


@pytest.mark.parametrize("out", ["???", "/", "( )"])
def test_a_folder_whose_name_is_no_name(here: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    assert main(["train", "--plugin", "natural", "--target", "digits", *SHORT, "--out", out]) == 2
    assert "no letter or digit" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_a_card_runs_no_code_that_the_user_has_not_named(tmp_path: Path) -> None:
    """In processes of their own: whoever names the function in a process has agreed to it there."""
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nprint('code ran')\n"
        "def make():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()\n"
        "make.input_shape, make.classes, make.fingerprint = (1, 8, 8), 10, '1'\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "transferbench.cli", *words], cwd=tmp_path, capture_output=True, text=True
        )

    settings = ("--set", "steps=3", "--set", "batch_size=8")
    trained = run("train", "--plugin", "finetune", "--source", "python:mine:make", "--target", "digits", *settings,
                  "--out", "ft1")  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    (line,) = [line for line in trained.stdout.splitlines() if line.startswith("attack it: ")]
    command = shlex.split(line.removeprefix("attack it: transferbench "))
    assert "--trust-code" in command
    words = [*command, "--n", "4", "--attacks", "fgsm", "--norms", "Linf", "--allow-low-accuracy"]
    refused = run(*[word for word in words if word != "--trust-code"])
    assert (refused.returncode, "code ran" in refused.stdout) == (2, False)
    assert "--trust-code runs it" in refused.stderr
    assert run(*words).returncode == 0
