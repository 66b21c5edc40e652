"""timm's ViT-Tiny and ConvNeXt with random weights go through train, eval and the source-only attacks."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from support.image_folders import write_images

from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.models import networks, trained
from transferbench.models.cards import ModelCard

NETWORKS = {
    "vit-tiny": "timm:vit_tiny_patch16_224@32/8",
    "convnext": "timm:convnext_atto@32",
    "small-vit": "timm:test_vit@32",
}
METHODS = {
    "finetune": "",
    "lwf": "",
    "delta": "",
    "renofeation": "--set swa_snapshots=1",
    "eat": "--set at_iter=1 --set l_eps=0.03,1",
    "igam": "--set teacher_steps=1 --set teacher_batch_size=4",
}
FEW = [("small-vit", "delta")]
"""The smallest part that goes through everything; all others are slow."""
CASES = [
    pytest.param(network, method, marks=() if (network, method) in FEW else pytest.mark.slow)
    for network in NETWORKS
    for method in METHODS
    if network != "small-vit" or (network, method) in FEW
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of three classes."""
    write_images(tmp_path / "images", 32, 32)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("network", "method"), CASES)
def test_a_network_of_timm_is_trained_attacked_and_attacked_through_its_source(
    network: str, method: str, folder: Path
) -> None:
    torch.manual_seed(0)
    id = NETWORKS[network]
    torch.save({"state_dict": networks.build(id, 5).model.state_dict()}, "w.pt")
    source = f"file:{id}=w.pt"
    words = f"train --plugin {method} --source {source} --target folder:images --set steps=2 --set batch_size=4"
    assert main([*words.split(), *METHODS[method].split(), "--out", "trained"]) == 0
    log = list(csv.DictReader(Path("trained/log.csv").read_text().splitlines()))
    assert all(np.isfinite(float(row["loss"])) for row in log if row.get("loss"))
    # On another machine: the folder alone.
    shutil.move("trained", "elsewhere")
    card = trained.load(Path("elsewhere")).card
    assert card.network == id
    assert card.versions["timm"] == timm.__version__
    attacks = "apgd-ce:n_iter=2,pretrained-neuron:neurons=1:n_iter=2,source-pgd:k=2"
    words = f"eval --model elsewhere --source {source} --norms Linf --eps Linf=8/255 --n 6 --allow-low-accuracy"
    assert main([*words.split(), "--attacks", attacks, "--out", "run"]) == 0
    record = json.loads(next(Path("run/records").glob("*.json")).read_text())
    assert record["network"] == id
    assert {one["attack"]["id"] for one in record["crafted"]} >= {"pretrained-neuron", "source-pgd"}
    assert not {"mixes-rows", "randomised", "state-between-calls"} & set(record["flags"])


def test_a_network_with_two_heads_is_refused_by_what_needs_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    id = "timm:deit_tiny_distilled_patch16_224@32/16"
    torch.save(networks.build(id, 3).model.state_dict(), "w.pt")
    words = f"train --plugin finetune --source file:{id}=w.pt --target folder:images --set batch_size=4 --out trained"
    assert main(words.split()) == 2
    assert "no single linear layer at its end" in capsys.readouterr().err
    assert not Path("trained/model.safetensors").exists()
    words = f"eval --model file:{id}=w.pt --source file:{id}=w.pt --dataset folder:images --norms Linf --eps Linf=0.1"
    assert main(words.split()) == 2
    assert "no penultimate feature" in capsys.readouterr().err
    assert not Path("runs").exists(), "before anything is attacked"


def test_a_victim_of_another_version_says_which_one_it_needs(tmp_path: Path) -> None:
    built = networks.build("timm:test_vit@32", 3)
    state = {name.replace(".mlp.", ".feed_forward."): tensor for name, tensor in built.model.state_dict().items()}
    card = ModelCard(
        id="old",
        network="timm:test_vit@32",
        dataset="unknown",
        classes=("a", "b", "c"),
        input_shape=(3, 32, 32),
        method="finetune",
        versions={"timm": "0.9.16"},
    )
    trained.save(tmp_path, state, card)
    with pytest.raises(InputError, match=rf"are missing.*trained with timm 0.9.16 .installed is {timm.__version__}"):
        trained.load(tmp_path)
