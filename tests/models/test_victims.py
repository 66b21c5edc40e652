from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.nets import Linear, Small
from torch import nn

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, trained, victims, weights
from transferbench.models.cards import ModelCard
from transferbench.models.catalogue import robustbench as known
from transferbench.models.features import Penultimate
from transferbench.models.loaders import robustbench_package, torchvision_models
from transferbench.models.victim import Victim


@pytest.fixture
def folder(tmp_path: Path, small: Small) -> Path:
    card = ModelCard(
        id="mine",
        network="small-resnet",
        dataset="letters",
        classes=tuple("ABCDEFGHIJ"),
        input_shape=(1, 8, 8),
        method="natural",
    )
    trained.save(tmp_path / "mine", small.model.state_dict(), card)
    return tmp_path / "mine"


def test_a_trained_victim_comes_back_as_it_was(folder: Path, small: Small) -> None:
    for name in (folder, folder / "README.md"):
        victim = victims.load(str(name))
        assert torch.equal(victim.model(small.x), small.model(small.x))
        assert not any(module.training for module in victim.model.modules())
        assert victim.sha256 == sha256_of(folder / "model.safetensors")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(Path(__file__).parent / "evil-was-here"), "w"))  # type: ignore[return-value]


def test_a_truncated_torch_file_is_refused(tmp_path: Path, small: Small) -> None:
    torch.save(small.model.state_dict(), tmp_path / "a.pt")
    weights.load_strictly(small.model, weights.read(tmp_path / "a.pt"), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or cut short"):
        weights.read(tmp_path / "a.pt")


def test_names_that_differ_are_shown(small: Small) -> None:
    state = small.model.state_dict()
    state["amodel.x"] = state.pop("head.bias")
    with pytest.raises(InputError, match=r"missing \(first: \['head.bias'\]\).*first: \['amodel.x'\]"):
        weights.load_strictly(small.model, state, Path("w"))


def test_weights_that_are_not_the_cards_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(bytes(changed))
    with pytest.raises(InputError, match="its card says"):
        victims.load(str(folder))


def test_a_card_of_another_architecture_is_refused(folder: Path) -> None:
    """Also where the weights would fit behind a prefix: a resizing layer in front is another network."""
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("network: small-resnet", "network: resized:8-4:small-resnet"))
    with pytest.raises(InputError, match="names are missing"):
        victims.load(str(folder))


def test_unknown_models_are_named() -> None:
    with pytest.raises(InputError, match="did you mean 'AA_ResNet18'"):
        victims.load("AA_Resnet18")
    with pytest.raises(InputError, match="no such folder"):
        victims.load("some/where")


def test_the_references_resnet_loads_and_looks_at_pixels() -> None:
    victim = victims.load("AA_ResNet18")
    assert victim.num_classes == 10
    assert victim.sha256.startswith("399f52da9f91")
    assert victim.model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


# RobustBench: a real ResNet-18 entry, in every dress that its files come in.
R18 = "RB_Sehwag2021Proxy_R18@cifar10/Linf"


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(5)
    return robustbench_package.construct(known.resolve(R18)).eval()


def stored(model_dir: Path, content: Any, id: str = R18) -> Path:
    path = model_dir / known.resolve(id).paths[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.model.{name}": tensor for name, tensor in state.items()}},
        lambda state: {
            "state_dict": state,
            "epoch": 7,
            "best": np.float64(0.5),
            "args": argparse.Namespace(lr=0.1, norm="Linf"),
        },
    ],
)
def test_robustbench_files_load_strictly_in_any_dress(
    tmp_path: Path, resnet: nn.Module, dress: Callable[[weights.StateDict], Any]
) -> None:
    path = stored(tmp_path, dress(resnet.state_dict()))
    victim = victims.load("RB_Sehwag2021Proxy_R18", tmp_path)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(victim.model(x), resnet(x))
    assert victim.id == R18
    assert victim.sha256 == victim.card.sha256 == sha256_of(path)
    assert (len(victim.layers.stages), victim.layers.head) == (4, "linear")
    assert not any(parameter.requires_grad for parameter in victim.model.parameters())


def test_a_prefix_is_taken_off_whole_or_not_at_all(tmp_path: Path, resnet: nn.Module) -> None:
    state = {f"amodule.{name}": tensor for name, tensor in resnet.state_dict().items()}
    stored(tmp_path, state)
    with pytest.raises(InputError, match=r"not the network's \(first: \['amodule"):
        victims.load(R18, tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"<html><title>Google Drive - Quota exceeded", "HTML page"),
        (pickle.dumps(Evil()), "unsafe, it would call io.open"),
        ({"state_dict": {"conv1.weight": torch.zeros(1)}}, r"names are missing \(first: \['bn1.bias'"),
    ],
)
def test_a_robustbench_file_that_is_none_is_named(tmp_path: Path, content: Any, complaint: str) -> None:
    stored(tmp_path, content)
    with pytest.raises(InputError, match=complaint):
        victims.load(R18, tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, resnet: nn.Module) -> None:
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    state["linear.bias"][3] = float("nan")
    stored(tmp_path, state)
    with pytest.raises(InputError, match=r"linear.bias holds a NaN"):
        victims.load(R18, tmp_path)


def test_missing_weights_say_what_was_looked_for_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        victims.load("RB_Carmon2019", tmp_path / "zoo")
    text = str(raised.value)
    for part in (
        "RB_Carmon2019Unlabeled@cifar10/Linf",
        str(tmp_path / "zoo/cifar10/Linf/Carmon2019Unlabeled.pt"),
        "--model-dir",
        "--download",
    ):
        assert part in text
    with pytest.raises(InputError, match="timm's own"):
        victims.load("RB_Debenedetti2022Light_XCiT-S12", tmp_path / "zoo")
    assert list(tmp_path.iterdir()) == []


class Constants(nn.Module):
    """As some of RobustBench's: normalisation in buffers, a network inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mu", torch.tensor(0.5))
        self.register_buffer("count", torch.tensor(3.0))
        self.register_buffer("sigma", torch.tensor(1.0), persistent=False)


def test_only_the_constructors_constants_may_be_missing() -> None:
    model = Constants(nn.Linear(2, 2))
    state = model.state_dict()
    bare = {name: tensor for name, tensor in state.items() if name != "mu"}
    assert weights.match_names(model, bare, (), ("mu", "sigma")).keys() == state.keys()
    weights.load_strictly(model, weights.match_names(model, bare, (), ("mu", "sigma")), Path("w"))
    del bare["count"]
    with pytest.raises(InputError, match=r"\['count', 'mu'\]"):
        weights.load_strictly(model, weights.match_names(model, bare, (), ("mu", "sigma")), Path("w"))
    spared = {**state, "inner.scores": torch.zeros(1)}
    weights.load_strictly(model, weights.match_names(model, spared, (".scores",)), Path("w"))


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)])


def test_an_ensemble_takes_a_file_for_each_of_its_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = known.resolve("RB_Chen2020Adversarial")
    assert entry.paths == tuple(f"cifar10/Linf/Chen2020Adversarial.pt_m{k}.pt" for k in range(3))
    torch.manual_seed(0)
    wanted = Several()
    monkeypatch.setattr(robustbench_package, "construct", lambda _: Several())
    for k, path in enumerate(entry.paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": wanted.models[k].state_dict()}, tmp_path / path)
    victim = victims.load("RB_Chen2020Adversarial", tmp_path)
    got = victim.model.state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in wanted.state_dict().items())
    assert victim.layers.head == "", "an ensemble has no one penultimate feature"
    (tmp_path / entry.paths[2]).unlink()
    with pytest.raises(InputError, match=r"pt_m2\.pt"):
        victims.load("RB_Chen2020Adversarial", tmp_path)


DECK = "RB_Diffenderfer2021Winning_LRR_CARD_Deck@cifar10/corruptions"


@pytest.mark.slow
def test_an_ensemble_for_corruptions_is_read_from_its_six_files(tmp_path: Path) -> None:
    entry = known.resolve(DECK)
    wanted = robustbench_package.construct(entry).eval()
    assert len(entry.paths) == 6
    for k, path in enumerate(entry.paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        state = wanted.models[k].state_dict()  # type: ignore[union-attr,index]
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / path)
    victim = victims.load(DECK, tmp_path)
    assert victim.card.method == "robustbench-corruptions"
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(victim.model(x), wanted(x))
    assert "needs its 6 files below --model-dir" in known.lines()[DECK]


def test_a_constructor_that_moves_constants_to_a_gpu_needs_none() -> None:
    robustbench_package.model_dicts()
    from robustbench.model_zoo.architectures.bit_rn import ResNetV2

    with robustbench_package._OnCpu():
        model = ResNetV2([1, 1, 1, 1], 1, head_size=10)
        assert torch.equal(torch.ones(2).cuda() + 1, torch.full((2,), 2.0))
    assert model.mean.device.type == "cpu"
    assert model(torch.rand(1, 3, 64, 64))[0].shape == (1, 10)


def test_a_file_with_several_networks_gives_the_last(tmp_path: Path, resnet: nn.Module) -> None:
    entry = known.resolve("RB_Andriushchenko2020Understanding")
    torch.manual_seed(1)
    model = robustbench_package.construct(entry)
    path = tmp_path / entry.paths[0]
    path.parent.mkdir(parents=True)
    torch.save({"best": resnet.state_dict(), "last": model.state_dict()}, path)
    victim = victims.load(entry.name, tmp_path)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(victim.model(x), model.eval()(x))
    assert victim.card.weights_notes == ("entry last, which RobustBench takes (also there: best)",)


def downloads(monkeypatch: pytest.MonkeyPatch, *contents: Any) -> list[str]:
    """gdown.download writes the contents one after the other; an exception is raised, None means no file."""
    import gdown

    asked: list[str] = []

    def download(id: str, output: str, quiet: bool) -> str | None:
        content = contents[len(asked)]
        asked.append(id)
        if isinstance(content, Exception):
            raise content
        if content is None:
            return None
        if isinstance(content, bytes):
            Path(output).write_bytes(content)
        else:
            torch.save(content, output)
        return output

    monkeypatch.setattr(gdown, "download", download)
    return asked


def test_a_download_is_checked_and_moved(tmp_path: Path, resnet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = downloads(monkeypatch, resnet.state_dict())
    victims.load(R18, tmp_path / "zoo", download=True)
    assert asked == list(known.resolve(R18).files)
    files = [path for path in (tmp_path / "zoo").rglob("*") if path.is_file()]
    assert files == [tmp_path / "zoo" / known.resolve(R18).paths[0]]
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]
    victims.load(R18, tmp_path / "zoo", download=True)
    assert len(asked) == 1, "what is there is not fetched again"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<!doctype html>sign in", "HTML page"),
        (b"", "is empty"),
        (b"PK\x03\x04cut short", "damaged or cut short"),
        ({"fc.weight": torch.zeros(1)}, "names are missing"),
        (None, "gave no file"),
        (OSError("no route to host"), r"download failed \(no route to host\)"),
    ],
)
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, complaint: str
) -> None:
    downloads(monkeypatch, content)
    with pytest.raises(InputError, match=complaint):
        victims.load(R18, tmp_path / "zoo", download=True)
    assert list(tmp_path.iterdir()) == []


def test_half_an_ensemble_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustbench_package, "construct", lambda _: Several())
    downloads(monkeypatch, nn.Linear(2, 2).state_dict(), b"<html>", b"")
    with pytest.raises(InputError, match="HTML page"):
        victims.load("RB_Chen2020Adversarial", tmp_path / "zoo", download=True)
    assert list(tmp_path.iterdir()) == []


# torchvision
def fake_weights(path: Path) -> Any:
    """A weights enum's member whose file is the one at the path, hash in its name."""
    from torchvision.models import ResNet18_Weights

    named = path.with_name(f"resnet18-{sha256_of(path)[:8]}.pth")
    path.rename(named)
    real = ResNet18_Weights.IMAGENET1K_V1
    return SimpleNamespace(name="IMAGENET1K_V1", url=f"https://example.org/{named.name}", transforms=real.transforms)


def test_torchvisions_weights_are_checked_by_the_hash_in_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    torch.manual_seed(2)
    net = torchvision.models.resnet18()
    torch.save(net.state_dict(), tmp_path / "w")
    fake = fake_weights(tmp_path / "w")
    monkeypatch.setattr(torchvision_models, "_resolve", lambda _: ("resnet18", fake))
    victim = victims.load("torchvision:resnet18", tmp_path)
    x = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.equal(victim.model(x), net.eval()((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)))
    assert (victim.id, victim.card.preprocessing) == ("torchvision:resnet18@IMAGENET1K_V1", "Res256Crop224")
    assert victim.layers.stages == tuple(f"model.layer{k}" for k in range(1, 5))
    file = next(tmp_path.glob("resnet18-*"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"damaged|not torchvision's"):
        victims.load("torchvision:resnet18", tmp_path)


@pytest.mark.parametrize(
    ("id", "complaint"),
    [
        ("torchvision:resnet18", r"resnet18-f37072fd.pth .*--download"),
        ("torchvision:resnet50@IMAGENET1K_V2", r"resnet50-11ad3fa6.pth"),
        ("torchvision:resnet50@IMAGENET1K_V3", "did you mean 'IMAGENET1K_V2'"),
        ("torchvision:resnet19", "unknown torchvision network 'resnet19'"),
        ("pretr_Linf", "pretr_Linf.pth .*robust-finetuning"),
    ],
)
def test_other_public_models_say_what_they_need(tmp_path: Path, id: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        victims.load(id, tmp_path)


def test_eats_networks_load_from_their_own_files(tmp_path: Path) -> None:
    model = networks.build("preact-resnet18", 10).model.eval()
    twice = {f"layer1.0.model_preact_hl1.{k}.weight": torch.zeros(1) for k in range(2)}
    torch.save({**model.state_dict(), **twice}, tmp_path / "pretr_L1.pth")
    victim = victims.load("pretr_L1", tmp_path)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(victim.model(x), model(x))
    assert {norm: str(eps) for norm, eps in victim.card.threats.items()} == {"Linf": "8/255", "L2": "0.5", "L1": "12"}


# Files and functions of the user's own
def test_a_file_for_a_named_network(tmp_path: Path) -> None:
    model = networks.build("preact-resnet18", 7).model.eval()
    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "w.pth")
    victim = victims.load(f"file:preact-resnet18={tmp_path / 'w.pth'}")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(victim.model(x), model(x))
    assert victim.num_classes == 7
    with pytest.raises(InputError, match="--network"):
        victims.load(f"file:{tmp_path / 'w.pth'}")
    with pytest.raises(InputError, match=r"names are missing \(first: \['head.bias'"):
        victims.load(f"file:madry-wrn-32-10={tmp_path / 'w.pth'}")
    with pytest.raises(InputError, match="no such file"):
        victims.load(f"file:preact-resnet18={tmp_path / 'v.pth'}")


SOURCE = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
net.input_shape, net.classes, net.fingerprint = (3, 2, 2), 3, "v1"
def loose():
    return net()
loose.input_shape, loose.classes = (3, 2, 2), ["a", "b", "c"]
def bare():
    return net()
def wrong():
    return 1
wrong.input_shape, wrong.classes = (3, 2, 2), 3
"""


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models_for_a_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    prefix = "python:my_models_for_a_test"
    one, two = victims.load(f"{prefix}:net"), victims.load(f"{prefix}:net")
    assert one.sha256 == two.sha256
    assert (one.num_classes, one.card.input_shape, one.layers.head) == (3, (3, 2, 2), "1")
    loose = victims.load(f"{prefix}:loose")
    assert loose.card.classes == ("a", "b", "c")
    assert loose.sha256 != victims.load(f"{prefix}:loose").sha256, "without a fingerprint nothing is ever met again"
    for name, complaint in (("bare", "input_shape"), ("wrong", "returned int"), ("none", "no function 'none'")):
        with pytest.raises(InputError, match=complaint):
            victims.load(f"{prefix}:{name}")
    with pytest.raises(InputError, match="cannot import"):
        victims.load("python:no_such_module_at_all:net")
    with pytest.raises(InputError, match="write it as"):
        victims.load("python:my_models_for_a_test")


@pytest.mark.parametrize(
    ("shape", "classes", "complaint"),
    [
        ((1, 2, 2), ("cat", "pick-up truck", "2"), None),
        ((1, 2, 2), ("Cat", "Pick up_Truck", "worm"), None),
        ((1, 2, 2), ("0", "1", "2"), None),
        ((1, 2, 2), ("0", "2", "1"), "class 1"),
        ((1, 2, 2), ("dog", "pick-up truck", "2"), "class 0 of mine is 'dog', toy knows it as 'cat'"),
        ((1, 2, 2), ("cat", "worm", "2"), "class 1"),
        ((1, 2, 2), ("cat", "pick-up truck"), "3 classes, mine has 2"),
        ((3, 2, 2), ("0", "1", "2"), "shape"),
    ],
)
def test_data_that_contradict_the_card_are_refused(
    shape: tuple[int, ...], classes: tuple[str, ...], complaint: str | None
) -> None:
    card = ModelCard(
        id="toy", network="x", dataset="x", classes=("cat", "pick-up truck", "2"), input_shape=(1, 2, 2), method="x"
    )
    victim = Victim(card, Linear(torch.zeros(3, 4), torch.zeros(3)), networks.Layers((), ""), "0" * 64)
    if complaint is None:
        victim.check_fits("mine", shape, classes)
    else:
        with pytest.raises(InputError, match=complaint):
            victim.check_fits("mine", shape, classes)


@pytest.mark.slow
@pytest.mark.parametrize("entry", known.entries(), ids=lambda entry: entry.name)
def test_every_robustbench_constructor_takes_its_own_names_back(entry: known.Entry, tmp_path: Path) -> None:
    """Each of the 206 is built without a GPU and a network, and most are read from a file of their own state under the
    prefixes that their kind has."""
    model = robustbench_package.construct(entry)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    if entry.ensemble or sum(parameter.numel() for parameter in model.parameters()) > 60e6:
        pytest.skip("an ensemble, or a file of more than 240 MB")
    stored(
        tmp_path,
        {
            "state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
            "last": model.state_dict(),
        },
        entry.name,
    )
    victim = victims.load(entry.name, tmp_path)
    got = victim.model.state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in model.state_dict().items())
    if victim.layers.head:
        head = victim.model.get_submodule(victim.layers.head)
        x = torch.rand(1, *victim.card.input_shape)
        with torch.no_grad():
            features = Penultimate(victim.model, victim.layers)(x)
            assert torch.allclose(head(features), victim.model(x), atol=1e-5), "the head gives the logits"
