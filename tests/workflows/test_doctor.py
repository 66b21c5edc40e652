"""`doctor` reports whatever a machine lacks: exit status 0, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from transferbench.base import registry
from transferbench.cli.main import main
from transferbench.models.loaders import embedded

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ["--data-dir", "data", "--model-dir", "models"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["doctor", "--json", *words]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    found: dict[str, Any] = json.loads(out.out)
    return found


def by_id(states: list[dict[str, Any]]) -> dict[str, str]:
    return {one["id"]: one["state"] for one in states}


def place(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_a_machine_without_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys)
    assert found["version"] == metadata.version("transferbench")
    installed = {one["name"]: one["version"] for one in found["packages"]}
    assert installed["torch"] == metadata.version("torch")
    assert found["devices"]["torch"] == torch.__version__
    assert len(found["devices"]["gpus"]) == torch.cuda.device_count()
    assert set(found["extras"]) >= {"dev", "docs", "tf", "transformers", "peft"}
    assert found["data_folder"] == {"path": "data", "problem": "there is no such folder"}
    states = by_id(found["data"])
    assert states.keys() == registry.entries("data").keys()
    assert {id for id, state in states.items() if state == "ready"} == {"letters", "digits", "folder"}
    assert {state for state in states.values() if state != "ready"} == {"missing"}
    assert by_id(found["weights"]) == dict.fromkeys((*embedded.IDS, "AA_ResNet18", "EfficientNet_Lite0"), "ready")


def test_files_are_found_where_the_commands_look(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data" / "cifar-10-batches-py").mkdir(parents=True)
    place(here / "data", "CUB_200_2011/images.txt")
    ensemble = next(one for one in registry_entries() if len(one.paths) > 1)
    place(here / "models", "cifar10/Linf/Carmon2019Unlabeled.pt", ensemble.paths[0], "resnet18-f37072fd.pth")
    place(here / "models", "pretr_L2.pth", "timm/resnet18.a1_in1k.safetensors", "notes.pth", f"hf/a/b/{'0' * 40}/x")
    found = report(capsys)
    data, weights = by_id(found["data"]), by_id(found["weights"])
    assert (data["cifar10"], data["cub200"], data["cifar100"]) == ("found", "incomplete", "missing")
    assert {id for id, state in weights.items() if state == "found"} == {
        "RB_Carmon2019Unlabeled@cifar10/Linf", "torchvision:resnet18", "pretr_L2", "timm:resnet18.a1_in1k",
        f"hf:a/b@{'0' * 40}",
    }  # fmt: skip
    assert weights[ensemble.name] == "incomplete"
    (here / "models" / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt").unlink()
    assert main(["eval", "--model", "RB_Carmon2019"]) == 2
    # The same path as in the command's own message.
    assert "models/cifar10/Linf/Carmon2019Unlabeled.pt" in capsys.readouterr().err
    (path,) = next(one["expected"] for one in found["weights"] if one["id"].startswith("RB_Carmon2019"))
    assert path == "models/cifar10/Linf/Carmon2019Unlabeled.pt"


def registry_entries() -> tuple[Any, ...]:
    from transferbench.models.catalogue import robustbench

    return robustbench.entries()


def test_folders_that_are_none(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    (here / "loop").symlink_to("loop")
    for name, words, state in (
        ("file", "it is a file, not a folder", "missing"),
        ("loop", "it cannot be read", "unreadable"),
        ("n" * 300, "it cannot be read", "unreadable"),
    ):
        found = report(capsys, "--data-dir", name, "--model-dir", name)
        assert words in found["data_folder"]["problem"]
        assert words in found["model_folder"]["problem"]
        assert by_id(found["data"])["cifar10"] == state
        monkeypatch.setenv("TRANSFERBENCH_DATA", name)
        assert main(["doctor", "--data-dir", name, "--model-dir", name]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if words in line]
        assert sum(name in line and "the benchmarks of a checkout" in line for line in lines) == 1
        assert len(lines) == 3


def test_folders_without_permission(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so that the refusal is made by hand where the tests run as root."""
    (here / "data").mkdir()
    (here / "models").mkdir()
    if os.geteuid():
        (here / "data").chmod(0)
        (here / "models").chmod(0)
    else:

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        for module, name in ((os, "scandir"), (os, "listdir"), (Path, "stat")):
            monkeypatch.setattr(module, name, refused)
    found = report(capsys, *FOLDERS)
    monkeypatch.undo()
    assert found["data_folder"]["problem"] == "it cannot be read (Permission denied)"
    assert by_id(found["data"])["imagenet"] == "unreadable"
    assert by_id(found["weights"])["RB_Standard@cifar10/Linf"] == "unreadable"


def test_packages_that_are_absent_too_old_or_damaged(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = metadata.version
    changed = {"numpy": "1.26.4", "pandas": "not-a-version", "scipy": None}

    def version(name: str) -> Any:
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return changed[name] if name in changed else true(name)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.partition(" to repair:\n")[2].splitlines()
    problems = {line.split(":")[0].strip(): line for line in lines}
    assert problems.keys() >= {"numpy", "pandas", "scipy", "timm"}
    assert "another version is needed: pip install 'numpy>=2" in problems["numpy"]
    assert "cannot be compared" in problems["pandas"]
    assert "names no version" in problems["scipy"]
    assert "not installed" in problems["timm"]


@pytest.mark.parametrize(
    ("environment", "option"),
    [
        ({"LC_ALL": "no_SUCH.locale"}, ""),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "--json"),
    ],
)
def test_a_torch_that_does_not_load_odd_names_a_strange_locale_and_no_working_folder(
    tmp_path: Path, environment: dict[str, str], option: str
) -> None:
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text('raise OSError("libcudart.so.13: not found")')
    odd = b"mod\xe8le\x1b[2J"
    os.makedirs(os.path.join(os.fsencode(tmp_path), b"models", b"hf", odd, odd, odd))
    (tmp_path / "gone").mkdir()
    words = f"{sys.executable} -m transferbench.cli doctor --model-dir {tmp_path / 'models'} {option}"
    done = subprocess.run(
        ["sh", "-c", f"cd gone && rmdir ../gone && {words}"],
        cwd=tmp_path,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join((str(tmp_path / "broken"), str(ROOT)))},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"\x1b" not in done.stdout
    assert b"torch cannot be imported (OSError: libcudart.so.13: not found)" in done.stdout
    assert b"hf:mod" in done.stdout
