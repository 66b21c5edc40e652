"""`inspect` names what a file is, the networks that it fits, and a command that works."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from transferbench.cli.main import main
from transferbench.models import architectures, networks
from transferbench.workflows import inspect_checkpoint

State = dict[str, torch.Tensor]


def network() -> torch.nn.Module:
    return networks.build("small-resnet", 10).model


def small(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return networks.build("small-resnet", 10).model.state_dict()


def behind(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def lines(path: Path, content: Any) -> list[str]:
    torch.save(content, path)
    return list(inspect_checkpoint.inspect(path).lines)


NORMALISED = {"norm.mean": torch.tensor([0.1307]), "norm.std": torch.tensor([0.3081])}
FORMS: dict[str, tuple[Callable[[], Any], str]] = {
    "plain": (small, "names: 74 tensors, 0.07 million numbers, float32, int64"),
    "parallel": (lambda: {"net": behind("module.", small()), "acc": 93.5}, "form: pytorch-cifar, DataParallel"),
    "timm": (
        lambda: {"arch": "x", "version": 2, "state_dict": small(), "state_dict_ema": small(1)},
        "form: timm; state_dict_ema is taken, as timm's load_checkpoint does",
    ),
    "lightning": (
        lambda: {"state_dict": behind("net.", small()), "pytorch-lightning_version": "2.5.0", "global_step": 7},
        "holds: state_dict (74 entries), pytorch-lightning_version = '2.5.0', global_step = 7",
    ),
    "names beside": (
        lambda: {"noise.mean": torch.zeros(1), "noise.std": torch.ones(1), **behind("net.", small())},
        "names: noise.mean normalises no input of the whole network",
    ),
    "an average beside": (
        lambda: {"model": small(), "ema": {"shadow_params": [one + 1 for one in network().parameters()]}},
        "model: 74 tensors, 0.07 million numbers, float32, int64",
    ),
    "normalised": (
        lambda: {**NORMALISED, **behind("net.", small())},
        "names: normalisation inside: 0.1307/0.3081 (mean/std)",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_printed_command_evaluates_the_file(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, line = FORMS[form]
    found = lines(Path("w.pt"), make())
    assert line in found
    assert "fits exactly: small-resnet" in found
    said = next(one for one in found if one.startswith("evaluate it: "))
    assert said.endswith("(of 10 classes, as cifar10)")
    words = shlex.split(said.removeprefix("evaluate it: ").partition(" (")[0].replace("DATASET", "digits"))
    few = "--n 4 --norms Linf --eps Linf=0.1 --attacks fgsm --allow-low-accuracy"
    assert main([*words[1:], *few.split()]) == 0
    assert main(["inspect", "w.pt"]) == 0
    assert capsys.readouterr().out.splitlines()[-len(found) :] == found


def test_the_choices_between_two_networks_are_in_the_command(tmp_path: Path) -> None:
    found = lines(tmp_path / "w.pt", {"model": small(), "model_ema": small(1)})
    assert "with --weights-key and one of model, model_ema (of 10" in found[-1]
    found = lines(tmp_path / "w.pt", {"state_dict": {**behind("model.", small()), **behind("ema.", small(1))}})
    assert "with --weights-key and one of state_dict/ema., state_dict/model." in found[-1]


def test_networks_of_other_libraries_are_found(tmp_path: Path) -> None:
    resnet = torchvision.models.resnet18(num_classes=7)
    found = lines(tmp_path / "w.pt", {"state_dict": behind("module.", resnet.state_dict())})
    fits = next(line for line in found if line.startswith("fits exactly: ")).removeprefix("fits exactly: ").split(", ")
    assert {"torchvision:resnet18", "timm:resnet18"} <= {*fits}
    assert any("only its training tells which one it is" in line for line in found)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=32, patch_size=4)
    found = lines(tmp_path / "w.pt", vit.state_dict())
    assert any("--network timm:vit_tiny_patch16_224@32/4" in line for line in found)


def test_what_fits_nearly_is_named_with_its_first_difference(tmp_path: Path) -> None:
    state = small()
    state["stem.0.weight"] = torch.zeros(16, 3, 3, 3)
    found = lines(tmp_path / "w.pt", state)
    assert "fits exactly: none of the networks of this index" in found
    near = next(line for line in found if line.startswith("nearly: small-resnet: "))
    assert near.endswith("1 have other shapes (first: stem.0.weight [16, 3, 3, 3], not [16, 1, 3, 3])")
    assert "python:<module>:<function>" in found[-1]
    del state["stem.0.weight"]
    found = lines(tmp_path / "w.pt", {**state, "more.weight": torch.zeros(2)})
    near = next(line for line in found if line.startswith("nearly: small-resnet: "))
    assert "1 names are missing (first: stem.0.weight); 1 are not the network's (first: more.weight)" in near


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"<!DOCTYPE html>", "HTML page"), (b"", "the file is empty"), (b"PK\x03\x04", "damaged or cut short")],
)
def test_what_is_no_file_of_weights_is_one_line(
    content: bytes, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    assert main(["inspect", str(tmp_path / "w.pt")]) == 2
    assert complaint in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no card, config.json or adapter_config.json" in capsys.readouterr().err


def test_an_adapter_needs_its_base(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    assert "peft:" in inspect_checkpoint.inspect(folder).lines[-1]
    found = lines(folder / "adapter_model.bin", {"base_model.model.fc.lora_A.weight": torch.zeros(2, 3),
                                                 "base_model.model.fc.lora_B.weight": torch.zeros(3, 2)})  # fmt: skip
    assert "form: LoRA adapter of PEFT" in found
    assert f"peft:{folder}=BASE" in found[-1]


def test_the_index_is_that_of_the_installed_packages() -> None:
    rows = {row.id: row for row in architectures.index()}
    assert len(rows) > 1000
    for id in ("small-resnet", "aa-resnet18", "torchvision:mobilenet_v2", "torchvision:vit_b_16", "timm:convnext_atto"):
        shapes = [
            {name: tuple(tensor.shape) for name, tensor in built.model.state_dict().items()}
            for built in (networks.build_without_weights(id, count) for count in (10, 11))
        ]
        assert architectures.described(id, *shapes) == rows[id], "make index renews it"


def test_a_normalisation_beside_the_weights_is_named(tmp_path: Path) -> None:
    found = lines(tmp_path / "w.pt", {"state_dict": small(), "mean": [0.1307], "std": [0.3081]})
    assert any(
        "beside its weights (mean)" in line and "normalised:0.1307/0.3081:small-resnet" in line for line in found
    )


def test_two_normalisations_do_not_end_the_inspection(tmp_path: Path) -> None:
    other = {"norm2.mean": torch.tensor([0.5]), "norm2.std": torch.tensor([0.5])}
    found = lines(tmp_path / "w.pt", {**NORMALISED, **other, **behind("net.", small())})
    assert any("names: two normalisations in the file" in line for line in found)
