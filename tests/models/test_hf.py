"""Image classifiers of Hugging Face: folders as transformers writes them, repositories below the folder of models."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.image_folders import write_images

from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.data.preprocessing import Preprocessing
from transferbench.models import hub, networks, trained, victims
from transferbench.models.features import record_features
from transferbench.models.image_processors import of_transformers
from transferbench.models.networks import transformers_nets

PROCESSOR = {
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 0.5],
}  # fmt: skip
MEAN, STD = (torch.tensor(PROCESSOR[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
SMALL = {
    "vit": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
            "image_size": 32, "patch_size": 8},
    "deit": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
             "image_size": 32, "patch_size": 8},
    "swin": {"embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "image_size": 32, "patch_size": 2,
             "window_size": 4},
    "convnext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
}  # fmt: skip


# What needs no transformers.
@pytest.mark.parametrize(
    ("change", "text", "side"),
    [
        ({}, "BicubicRes32", 32),
        ({"resample": 2, "size": 32}, "Res32", 32),
        ({"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
         "BicubicRes36Crop32", 32),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, "BicubicRes256Crop224", 224),
        ({"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224},
         "BicubicRes256x256Crop224", 224),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, "BicubicRes256Crop224", 224),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, "BicubicRes384", 384),
    ],
)  # fmt: skip
def test_what_happens_to_an_image_is_read(change: dict[str, Any], text: str, side: int) -> None:
    found = of_transformers({**PROCESSOR, **change})
    assert (found.preprocessing, found.side) == (text, side)
    assert found.normalisation.std == (0.25, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"do_rescale": False}, "leaves pixels in 0..255"),
        ({"rescale_factor": 1 / 127.5}, "is not 1/255"),
        ({"resample": 1}, "resampling 1; bilinear"),
        ({"size": {"height": 32, "width": 64}}, "is not square"),
        ({"size": {"shortest_edge": 32}}, "keeps the images' proportions"),
        ({"image_mean": None}, "not as transformers writes it"),
        ({"image_std": [0, 1, 1]}, "write it as mean/std"),
        ({"do_resize": False}, "neither resizes nor crops"),
        ({"auto_map": {"AutoImageProcessor": "evil.Processor"}}, "names code of the repository"),
    ],
)
def test_what_has_no_notation_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        of_transformers({**PROCESSOR, **change})
    assert str(raised.value).isprintable()


class Hub:
    """A repository in a folder, in the place of the hub's client: the same functions, with the same arguments."""

    def __init__(self, folder: Path, commit: str = "a" * 40) -> None:
        self.folder, self.commit, self.asked = folder, commit, []

    def model_info(self, repo_id: str, *, revision: str | None = None) -> Any:
        self.asked.append((repo_id, revision))
        return SimpleNamespace(
            sha=self.commit, siblings=[SimpleNamespace(rfilename=n) for n in os.listdir(self.folder)]
        )

    def download(self, repo_id: str, filename: str, *, revision: str, local_dir: Path) -> None:
        assert revision == self.commit, "what was resolved is what is fetched"
        Path(local_dir).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / filename, local_dir)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    folder = tmp_path / "remote"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors", "evil.py", "pytorch_model.bin"):
        (folder / name).write_text("{}")
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    found = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.download)
    return found


def test_a_repository_is_fetched_when_asked_at_its_commit(repository: Hub, tmp_path: Path) -> None:
    models = tmp_path / "models"
    with pytest.raises(InputError, match=r"there are no files at .*--download, or give"):
        hub.snapshot("someone/net", models, False)
    assert not repository.asked, "nothing is asked without --download"
    found = hub.snapshot("someone/net@main", models, True)
    assert repository.asked == [("someone/net", "main")]
    assert found.id == f"hf:someone/net@{'a' * 40}"
    assert found.note == f"revision {'a' * 40} of someone/net"
    wanted = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(os.listdir(found.folder)) == wanted, "what is not read is not fetched"
    assert hub.snapshot("someone/net", models, True) == found, "what is there is not fetched again"
    assert hub.snapshot(f"someone/net@{'a' * 40}", models, False) == found
    assert len(repository.asked) == 1
    repository.commit = "b" * 40
    assert hub.snapshot("someone/net@main", models, True).revision == "b" * 40
    with pytest.raises(InputError, match=r"several revisions are in .*name one, @aaaa"):
        hub.snapshot("someone/net", models, True)


def test_a_download_that_fails_leaves_nothing(repository: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the connection\nwas lost")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    (tmp_path / "models").mkdir()
    with pytest.raises(InputError, match=r"the download failed \(the connection\); nothing was kept"):
        hub.snapshot("someone/net", tmp_path / "models", True)
    assert not list((tmp_path / "models").iterdir())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", repository.download)
    (repository.folder / "model.safetensors").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match="an HTML page, not weights"):
        hub.snapshot("someone/net", tmp_path / "models", True)
    assert not list((tmp_path / "models").iterdir())
    for name in ("../net", "someone/..", "a/b/c", "", "someone/net@"):
        with pytest.raises(InputError, match="a repository is written <owner>/<name>"):
            hub.snapshot(name, tmp_path / "models", True)


def test_without_the_package_a_network_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_nets, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"need the package transformers: pip install 'transferbench\[transformers\]'"):
        networks.build(transformers_nets.id_of(32, {"model_type": "vit"}), 3)
    for id in ("transformers", "transformers:x", "transformers:32:[1]", "transformers:32:{"):
        with pytest.raises(InputError, match="ids of transformers are written by the model hf:"):
            networks.build(id, 3)


# What needs it: the extra `transformers`.
def folder_of(kind: str, folder: Path, **more: Any) -> Any:
    """A folder as transformers writes it. Returns its model."""
    transformers = pytest.importorskip("transformers")
    labels = {number: f"name {number}" for number in range(4)}
    config = transformers.CONFIG_MAPPING[kind](**SMALL[kind], id2label=labels, **more)
    if kind == "deit":
        config.architectures = ["DeiTForImageClassification"]
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    torch.manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1) if tensor.dim() < 2 else tensor.data.normal_(0, 0.05)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_logits_and_layers_are_transformers(kind: str, tmp_path: Path) -> None:
    model = folder_of(kind, tmp_path / "net")
    victim = victims.load(f"hf:{tmp_path / 'net'}")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), record_features(victim.model, victim.layers, victim.layers.stages) as features:
        assert torch.equal(victim.model(x), model((x - MEAN) / STD).logits)
    assert victim.card.classes == ("name 0", "name 1", "name 2", "name 3")
    assert victim.card.preprocessing == "BicubicRes32"
    assert len(features.stages) >= 3
    head = victim.model.get_submodule(victim.layers.head)
    assert torch.equal(head(features.penultimate[victim.layers.head]), victim.model(x))
    # The card alone builds the network.
    built = networks.build(victim.card.network, 4)
    built.model.eval().load_state_dict(victim.model.state_dict())
    with torch.no_grad():
        assert torch.allclose(built.model(x), victim.model(x), atol=1e-6)
    assert built.layers == victim.layers


@pytest.mark.slow
def test_the_pixels_are_those_of_transformers_own_processor(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**PROCESSOR, "image_processor_type": "ViTImageProcessor"})
    )
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")["pixel_values"][0]
    found = of_transformers(PROCESSOR)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in found.normalisation)
    pixels = Preprocessing.parse(found.preprocessing)(image)
    # Resized as bytes by another code: a value may be rounded to its neighbour.
    assert float(((own * std + mean) - pixels).abs().max()) < 2.5 / 255


@pytest.mark.slow
def test_damaged_and_other_folders_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder_of("vit", folder)
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()

    def refused(complaint: str) -> None:
        with pytest.raises(InputError, match=complaint) as raised:
            victims.load(f"hf:{folder}")
        assert str(raised.value).isprintable()

    changes: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = [
        (lambda c: {**c, "auto_map": {"AutoModel": "evil.Model"}}, "with auto_map, which is not read"),
        (lambda c: {**c, "model_type": "clip"}, "type 'clip': image classifiers of"),
        (lambda c: {**c, "model_type": ["vit"]}, "type .*: image classifiers of"),
        (lambda c: {**c, "quantization_config": {"bits": 4}}, "with quantization_config"),
        (lambda c: {**c, "problem_type": "multi_label_classification"}, "a multi-label model"),
        (lambda c: {**c, "id2label": {"0": "yes"}}, "it has one logit"),
        (lambda c: {**c, "id2label": {"1": "a", "2": "b"}}, "does not number the classes"),
        (lambda c: {**c, "hidden_size": "wide"}, "does not build this configuration"),
        (lambda c: {**c, "num_hidden_layers": 2}, "not the network's .first: ..vit"),
        (lambda c: {**c, "num_hidden_layers": 4}, "names are missing"),
        (lambda c: {**c, "intermediate_size": 64}, "another shape|does not load"),
        (lambda c: {**c, "image_size": 64}, "gives images of 32, config.json is for 64"),
    ]
    for change, complaint in changes:
        (folder / "config.json").write_text(json.dumps(change(config)))
        refused(complaint)
    (folder / "config.json").write_text(json.dumps(config)[:-9])
    refused("config.json cannot be read .it is damaged or cut short")
    (folder / "config.json").write_text("[1]")
    refused("no JSON object")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(whole[:-9])
    refused("damaged or cut short")
    name = "classifier.weight"
    save_file({**state, name: state[name] * float("nan")}, folder / "model.safetensors")
    refused("classifier.weight holds a NaN")
    (folder / "model.safetensors").unlink()
    refused("no weights in")
    torch.save(state, folder / "pytorch_model.bin")
    assert victims.load(f"hf:{folder}").num_classes == 4
    (folder / "preprocessor_config.json").unlink()
    refused("there is no preprocessor_config.json")


@pytest.mark.slow
def test_an_adapter_has_the_names_of_any_version(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = folder_of("vit", tmp_path / "net")
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"]))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.2)
    tuned.eval().save_pretrained(tmp_path / "lora")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = tuned((x - MEAN) / STD).logits
    file = tmp_path / "lora" / "adapter_model.safetensors"
    state = load_file(file)
    # As peft wrote it with transformers 4.
    older = {
        name.replace("vit.layers.", "vit.encoder.layer.").replace(
            ".attention.q_proj", ".attention.attention.query"
        ): tensor
        for name, tensor in state.items()
    }
    assert older.keys() != state.keys()
    for content in (state, older):
        save_file(content, file)
        victim = victims.load(f"peft:{tmp_path / 'lora'}=hf:{tmp_path / 'net'}")
        with torch.no_grad():
            assert torch.allclose(victim.model(x), expected, atol=1e-5)


@pytest.mark.slow
def test_a_victim_that_was_trained_from_one_needs_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of("vit", tmp_path / "net")
    write_images(tmp_path / "images", 40, 36)
    monkeypatch.chdir(tmp_path)
    words = "train --plugin lwf --source hf:net --target folder:images --set steps=2 --set batch_size=4 --out mine"
    assert main(words.split()) == 0
    shutil.rmtree("net")
    shutil.move("mine", "elsewhere")
    victim = trained.load(Path("elsewhere"))
    assert victim.card.network.startswith("normalised:0.5,0.4,0.3/0.25,0.5,0.5:transformers:32:{")
    assert victim.card.source == "hf:net"
    few = "--norms Linf --eps Linf=0.1 --attacks fgsm --n 3 --allow-low-accuracy"
    assert main(f"eval --model elsewhere --dataset folder:images {few}".split()) == 0
