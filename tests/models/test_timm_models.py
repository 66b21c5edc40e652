"""timm's networks and weights: pixels, logits and layers against timm itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models._hub import save_config_for_hf
from torch import nn

from transferbench.base.errors import InputError
from transferbench.data.preprocessing import Preprocessing
from transferbench.models import networks, victims
from transferbench.models.features import record_features, spatial_dropout
from transferbench.models.image_processors import of_timm

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 501, 3), dtype=np.uint8))


def scrambled(model: nn.Module) -> Any:
    """The model with weights that all matter, in eval mode."""
    torch.manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.01, 0.03) if tensor.dim() < 2 else tensor.data.normal_(0, 0.1)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "resnet18.a1_in1k", "convnext_atto", "swinv2_tiny_window8_256", "beit_base_patch16_224"],
)
def test_the_pixels_are_those_of_timms_own_transform(name: str) -> None:
    config = timm.get_pretrained_cfg(name)
    processed = of_timm(config)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in processed.normalisation)
    own = (Preprocessing.parse(processed.preprocessing)(IMAGE) - mean) / std
    assert torch.allclose(
        own, create_transform(**resolve_data_config(pretrained_cfg=config.to_dict()))(IMAGE), atol=1e-6
    )


def test_squashed_images_have_both_sides_resized_before_the_crop() -> None:
    config = timm.get_pretrained_cfg("resnet18")
    config.crop_mode, config.crop_pct, config.interpolation = "squash", 0.9, "bilinear"
    processed = of_timm(config)
    assert processed.preprocessing == "Res248x248Crop224"
    data = resolve_data_config(pretrained_cfg=config.to_dict())
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in processed.normalisation)
    own = (Preprocessing.parse(processed.preprocessing)(IMAGE) - mean) / std
    assert torch.allclose(own, create_transform(**data)(IMAGE), atol=1e-6)
    config.crop_mode = "border"
    with pytest.raises(InputError, match="the crop border, which is not built here"):
        of_timm(config)
    with pytest.raises(InputError, match=r"preprocessing 'Res256x200Crop224': write it as"):
        Preprocessing.parse("Res256x200Crop224")


def test_the_weights_beside_the_models_are_timms(tmp_path: Path) -> None:
    inner = scrambled(timm.create_model("test_vit"))
    folder = tmp_path / "timm"
    folder.mkdir()
    name = f"test_vit.{timm.get_pretrained_cfg('test_vit').tag}"
    save_file(inner.state_dict(), folder / f"{name}.safetensors")
    victim = victims.load("timm:test_vit", tmp_path)
    assert victim.id == f"timm:{name}"
    assert victim.card.input_shape == (3, 160, 160)
    assert victim.card.dataset == "imagenet"
    x = torch.rand(2, 3, 160, 160)
    config = timm.get_pretrained_cfg("test_vit")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    assert torch.allclose(victim.model(x), inner((x - mean) / std), atol=1e-6)
    assert victims.card("timm:test_vit").network == f"timm:{name}"
    assert victims.canonical("timm:test_vit", victim) == f"timm:{name}"
    with pytest.raises(
        InputError, match=r"pos_embed has shape.*weights are for images of 160; resized:32:timm:test_vit takes"
    ):
        victims.load("timm:test_vit@32", tmp_path)
    with pytest.raises(InputError, match=r"model timm:test_efficientnet.*no weights at .*--download"):
        victims.load("timm:test_efficientnet", tmp_path)


def test_a_folder_of_timm_has_its_own_normalisation_size_and_names(tmp_path: Path) -> None:
    """The layout of timm's repositories; timm writes the configuration."""
    inner = scrambled(timm.create_model("resnet18", num_classes=4))
    inner.pretrained_cfg.update(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), input_size=(3, 64, 64), crop_pct=1.0)
    (tmp_path / "net").mkdir()
    save_config_for_hf(inner, tmp_path / "net" / "config.json", {"label_names": ["a", "b", "c", "d"]})
    save_file(inner.state_dict(), tmp_path / "net" / "model.safetensors")
    victim = victims.load(f"hf:{tmp_path / 'net'}")
    x = torch.rand(2, 3, 64, 64)
    assert torch.allclose(victim.model(x), inner((x - 0.5) / 0.25), atol=1e-6)
    assert victim.card.classes == ("a", "b", "c", "d")
    assert victim.card.preprocessing.endswith("Res64Crop64")
    assert victim.card.network == "normalised:0.5,0.5,0.5/0.25,0.25,0.25:timm:resnet18@64"
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    for change, complaint in (
        ({"architecture": "hf-hub:someone/evil"}, "write it as timm:<name>"),
        ({"architecture": "no_such_net"}, "unknown timm network"),
        ({"num_classes": "many"}, "its config.json is not as timm writes it"),
        ({"pretrained_cfg": 3}, "its config.json is not as timm writes it"),
        ({"model_args": {"act_layer": "x"}}, "builds the network with act_layer"),
        ({"num_classes": 5}, "fc.weight has shape"),
    ):
        (tmp_path / "net" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=complaint) as raised:
            victims.load(f"hf:{tmp_path / 'net'}")
        assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        ("timm:vit_tiny_patch16", "unknown timm network 'vit_tiny_patch16'; did you mean"),
        ("timm:resnet18.no_tag", "unknown tag of resnet18: 'no_tag'"),
        ("timm:resnet18@0", "write it as timm:<name>"),
        ("timm:hf-hub:timm/resnet18", "write it as timm:<name>"),
        ("timm:resnet18@32/4", "timm cannot build it so"),
        ("timm:vit_tiny_patch16_224@33/4", None),
        ("torchvision:resnet18@big", "write the side of its images"),
        ("torchvision:vit_b_16@33", "images of 33 do not divide into its patches"),
        ("normalised:0.5/0:timm:resnet18", "normalisation '0.5/0': write it as mean/std"),
        ("normalised:0.5,0.5/1,1:timm:resnet18", "takes images of 3 channels"),
        ("normalised:resnet18", "write it as normalised:<mean>/<std>:<network>"),
    ],
)
def test_a_network_that_timm_does_not_have_is_refused(id: str, complaint: str | None) -> None:
    if complaint is None:
        assert networks.build(id, 3).input_shape == (3, 33, 33)
        return
    with pytest.raises(InputError, match=complaint) as raised:
        networks.build(id, 3)
    assert str(raised.value).isprintable()


def test_a_network_of_torchvision_takes_images_of_the_side_that_is_named(tmp_path: Path) -> None:
    """A network that was trained on small images is another victim than one that resizes them."""
    torch.manual_seed(0)
    inner = scrambled(torchvision.models.shufflenet_v2_x0_5(num_classes=3))
    torch.save({"net": inner.state_dict(), "acc": 95.0}, tmp_path / "w.pt")
    victim = victims.load(f"file:normalised:none:torchvision:shufflenet_v2_x0_5@32={tmp_path / 'w.pt'}")
    assert victim.card.input_shape == (3, 32, 32)
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(victim.model(x), inner(x), atol=1e-6)
    assert networks.input_shape("torchvision:vit_b_16@64") == (3, 64, 64)
    swag = victims.card("torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1")
    assert swag.network == "torchvision:vit_b_16@384"
    assert networks.input_shape(swag.network) == swag.input_shape


def test_a_model_for_images_of_another_side_resizes_them_itself(tmp_path: Path) -> None:
    folder = tmp_path / "timm"
    folder.mkdir()
    inner = scrambled(timm.create_model("test_vit"))
    config = timm.get_pretrained_cfg("test_vit")
    save_file(inner.state_dict(), folder / f"test_vit.{config.tag}.safetensors")
    plain = victims.load("timm:test_vit", tmp_path)
    with pytest.raises(InputError, match=r"has \(3, 32, 32\): --model resized:32:<model> resizes them"):
        plain.check_fits("cifar10", (3, 32, 32), plain.card.classes)
    victim = victims.load("resized:32:timm:test_vit", tmp_path)
    x = torch.rand(2, 3, 32, 32)
    larger = torch.nn.functional.interpolate(x, size=(160, 160), mode="bilinear", align_corners=False)
    assert torch.equal(victim.model(x), plain.model(larger))
    assert victim.card.input_shape == (3, 32, 32)
    assert victim.id == f"resized:32:{plain.id}"
    assert any(
        "resized to 160 by the network, bilinear (its own preprocessing is" in n for n in victim.card.weights_notes
    )
    built = networks.build(victim.card.network, 1000)
    built.model.eval().load_state_dict(victim.model.state_dict())
    assert torch.equal(built.model(x), victim.model(x))
    assert victims.load("resized:160:timm:test_vit", tmp_path).id == plain.id
    with pytest.raises(InputError, match="write it as resized:<side of the images>:<model>"):
        victims.load("resized:timm:test_vit", tmp_path)


# Features.
def test_two_heads_are_no_single_one() -> None:
    layers = networks.build("timm:deit_tiny_distilled_patch16_224@32/8", 3).layers
    assert layers.head == ""
    assert len(layers.stages) == 12


def test_a_file_of_a_network_with_two_heads_has_its_number_of_classes(tmp_path: Path) -> None:
    inner = scrambled(timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7, img_size=32, patch_size=8))
    torch.save(inner.state_dict(), tmp_path / "w.pt")
    victim = victims.load(f"file:normalised:none:timm:deit_tiny_distilled_patch16_224@32/8={tmp_path / 'w.pt'}")
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(victim.model(x), inner(x), atol=1e-6)
    assert victim.num_classes == 7


@pytest.mark.parametrize("id", ["timm:vit_tiny_patch16_224@32/8", "timm:swin_s3_tiny_224@56", "timm:convnext_atto@32"])
def test_channels_are_the_second_dimension_of_every_stages_features(id: str) -> None:
    """Against the widths that timm itself states of every stage."""
    built = networks.build(id, 3)
    model = built.model.eval()
    widths = {f"model.{row['module']}": row["num_chs"] for row in model.model.feature_info}
    with torch.no_grad(), record_features(model, built.layers, built.layers.stages) as features:
        model(torch.rand(2, *built.input_shape))
    assert {name: output.shape[1] for name, output in features.stages.items()} == widths


@pytest.mark.parametrize("id", ["timm:vit_tiny_patch16_224@32/8", "timm:swin_s3_tiny_224@56"])
def test_dropout_of_a_stage_takes_whole_channels_of_tokens(id: str) -> None:
    built = networks.build(id, 3)
    model = built.model.train()
    seen: list[torch.Tensor] = []
    with spatial_dropout(model, built.layers, 0.5), torch.no_grad():
        last = model.get_submodule(built.layers.stages[0])
        handle = last.register_forward_hook(lambda _, __, output: seen.append(output))
        model(torch.rand(2, *built.input_shape))
        handle.remove()
    dropped = (seen[0] == 0).flatten(1, -2)
    assert torch.equal(dropped.any(1), dropped.all(1)), "a channel is dropped at every position or at none"
    assert 0.2 < float(dropped.all(1).float().mean()) < 0.8
