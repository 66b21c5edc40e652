"""LoRA adapters over a named base: the merged network is PEFT's own."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from transferbench.base.errors import InputError
from transferbench.models import networks, victims

CONFIG: dict[str, Any] = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["conv1"], "modules_to_save": ["head"],
    "base_model_name_or_path": None, "use_dora": False, "loftq_config": {}, "init_lora_weights": True, "bias": "none",
}  # fmt: skip


def base(folder: Path) -> nn.Module:
    torch.manual_seed(0)
    model = networks.build("small-resnet", 10).model.eval()
    torch.save(model.state_dict(), folder / "base.pt")
    return model


def adapter(folder: Path, **change: Any) -> dict[str, torch.Tensor]:
    """An adapter of the first convolution of a stage, with a classifier of three classes."""
    torch.manual_seed(1)
    state = {
        "base_model.model.stage1.conv1.lora_A.weight": torch.randn(2, 16, 3, 3),
        "base_model.model.stage1.conv1.lora_B.weight": torch.randn(16, 2, 1, 1),
        "base_model.model.head.weight": torch.randn(3, 48),
        "base_model.model.head.bias": torch.randn(3),
    }
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **change}))
    save_file(state, folder / "adapter_model.safetensors")
    return state


def loaded(folder: Path) -> Any:
    return victims.load(f"peft:{folder / 'lora'}=file:small-resnet={folder / 'base.pt'}")


def test_the_matrices_are_multiplied_and_added(tmp_path: Path) -> None:
    model, state = base(tmp_path), adapter(tmp_path / "lora")
    victim = loaded(tmp_path)
    first, second = (state[f"base_model.model.stage1.conv1.lora_{one}.weight"] for one in "AB")
    x = torch.rand(2, 1, 8, 8)
    # A convolution by A, then one of 1x1 by B, is the convolution by their product.
    inner = model.stage1.conv1
    hook = inner.register_forward_hook(
        lambda _, inputs, output: output + 3 * F.conv2d(F.conv2d(inputs[0], first, padding=1), second)
    )
    model.head.weight = nn.Parameter(state["base_model.model.head.weight"])
    model.head.bias = nn.Parameter(state["base_model.model.head.bias"])
    assert torch.allclose(victim.model(x), model(x), atol=1e-4)
    hook.remove()
    assert victim.num_classes == 3
    assert victim.card.network == "small-resnet"
    assert "LoRA adapter lora merged into file:base" in victim.card.weights_notes


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"peft_type": "IA3"}, "an adapter of type 'IA3': plain LoRA is read"),
        ({"use_dora": True}, "a LoRA adapter with use_dora"),
        ({"velora_config": {"x": 1}}, "a LoRA adapter with velora_config"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changed the base"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "a pattern that is no module's name"),
        ({"lora_alpha": "six"}, "without lora_alpha"),
    ],
)
def test_other_adapters_are_refused_by_name(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    base(tmp_path)
    adapter(tmp_path / "lora", **change)
    with pytest.raises(InputError, match=complaint) as raised:
        loaded(tmp_path)
    assert str(raised.value).isprintable()


def test_an_adapter_of_another_network_or_a_damaged_one_is_one_line(tmp_path: Path) -> None:
    base(tmp_path)
    state = adapter(tmp_path / "lora")
    file = tmp_path / "lora" / "adapter_model.safetensors"
    stem = "base_model.model.stage1.conv1.lora_"
    cases: list[tuple[dict[str, torch.Tensor], str]] = [
        ({"stage1.lora_A.weight": torch.zeros(2, 2)}, "no name of PEFT's"),
        ({name.replace("stage1", "layer1"): tensor for name, tensor in state.items()}, "no part layer1.conv1"),
        ({name: tensor for name, tensor in state.items() if "_B" not in name}, "the adapter no stage1.conv1.lora_B"),
        ({name: tensor for name, tensor in state.items() if "_A" not in name}, "no pairs of lora_A and lora_B"),
        ({**state, f"{stem}A.weight": torch.zeros(3, 16, 3, 3)}, "do not make a weight"),
        ({**state, f"{stem}A.weight": state[f"{stem}A.weight"] / 0}, "a NaN or an infinity"),
        ({**state, "base_model.model.head.bias": torch.zeros(4)}, "head.bias has the shape"),
        ({**state, "base_model.model.head.weight": torch.zeros(1, 48)}, "one logit"),
    ]
    for content, complaint in cases:
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, file)
        with pytest.raises(InputError, match=complaint) as raised:
            loaded(tmp_path)
        assert str(raised.value).isprintable()
    save_file(state, file)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(InputError, match="damaged or cut short"):
        loaded(tmp_path)
    with pytest.raises(InputError, match="names no base: write peft:"):
        victims.load(f"peft:{tmp_path / 'lora'}")
    with pytest.raises(InputError, match="is no folder"):
        victims.load("peft:nowhere=letters-madry")
    save_file(state, file)
    with pytest.raises(InputError, match=r"a LoRA adapter of PEFT, without its base: write the model as peft:"):
        victims.load(f"file:small-resnet={file}")


def test_a_classifier_that_is_written_several_times_is_one(tmp_path: Path) -> None:
    """As PEFT writes it with bias="all" and modules_to_save: as the module's, its copy's, and the base's."""
    base(tmp_path)
    state = adapter(tmp_path / "lora")
    head = "base_model.model.head"
    copies = {
        f"{head}.modules_to_save.bias": state[f"{head}.bias"],
        f"{head}.original_module.bias": torch.zeros(10),
    }
    file = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({**state, **{name: tensor.clone() for name, tensor in copies.items()}}, file)
    assert torch.equal(loaded(tmp_path).model.head.bias, state[f"{head}.bias"])
    save_file({**state, f"{head}.modules_to_save.bias": state[f"{head}.bias"] + 1}, file)
    with pytest.raises(InputError, match=r"two tensors in it that differ are head\.bias"):
        loaded(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": ["qkv", "fc1"], "modules_to_save": ["head"]},
        {"target_modules": ["qkv", "proj"], "use_rslora": True, "rank_pattern": {"blocks.0.attn.qkv": 2},
         "alpha_pattern": {"blocks.1.attn.qkv": 3}},
        {"target_modules": ["qkv"], "bias": "all"},
        {"target_modules": ["patch_embed.proj"]},
        {"target_modules": ["qkv"], "bias": "all", "modules_to_save": ["head"]},
    ],
)  # fmt: skip
def test_the_merged_network_is_pefts(tmp_path: Path, change: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32, patch_size=8).eval()
    torch.save(model.state_dict(), tmp_path / "base.pt")
    tuned = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, lora_alpha=8, **change)).eval()
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.1)
    tuned.save_pretrained(tmp_path / "lora")
    assert any("lora_A" in name for name in load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    victim = victims.load(f"peft:{tmp_path / 'lora'}=file:timm:vit_tiny_patch16_224@32/8={tmp_path / 'base.pt'}")
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(victim.model(x), tuned((x - 0.5) / 0.5), atol=1e-4)
