"""Which state dict of a file is taken, and what is taken off its names: never silently."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, victims, weights
from transferbench.models.victim import Victim
from transferbench.models.weights import entries

State = dict[str, torch.Tensor]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


def other(state: State) -> State:
    """The same names with other numbers."""
    return {name: tensor + 1 for name, tensor in state.items()}


def behind(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def select(path: Path, content: Any, entry: str | None = None, model: nn.Module | None = None) -> weights.Selection:
    torch.save(content, path)
    return weights.select(weights.open_file(path), model or net(), entry)


OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}

# As the projects write them: (content from the network's state, entry that is taken, part of a note).
LAYOUTS: dict[str, tuple[Callable[[State], Any], str, str]] = {
    "plain": (lambda s: s, "", ""),
    "robust-finetuning": (lambda s: {"state_dict": s, "optim": OPTIMISER}, "", ""),
    "pytorch-cifar": (lambda s: {"net": behind("module.", s), "acc": 95.0, "epoch": 3}, "", "module. taken out"),
    "timm": (
        lambda s: {"epoch": 3, "arch": "x", "state_dict": other(s), "optimizer": OPTIMISER, "state_dict_ema": s},
        "state_dict_ema", "entry state_dict_ema, as timm's load_checkpoint does (also there: state_dict;",
    ),
    "deit": (
        lambda s: {"model": s, "model_ema": other(s), "optimizer": OPTIMISER, "epoch": 3, "args": Namespace(lr=0.1)},
        "model", "entry model, as --eval of DeiT and ConvNeXt does (also there: model_ema;",
    ),
    "torchvision-references": (
        lambda s: {"model": other(s), "optimizer": OPTIMISER, "epoch": 3, "args": Namespace(),
                   "model_ema": {**behind("module.", s), "n_averaged": torch.tensor(9)}},
        "model_ema", "entry model_ema, as torchvision's references do with --model-ema (also there: model;",
    ),
    "averaged-beside": (
        lambda s: {"model_state_dict": s, "unaveraged_model_state_dict": other(s), "optimizer_state_dict": OPTIMISER},
        "model_state_dict", "also there: unaveraged_model_state_dict",
    ),
    "mmengine": (lambda s: {"meta": {}, "state_dict": s, "ema_state_dict": other(s)}, "state_dict", "ema_state_dict"),
    "lightning-average": (
        lambda s: {"state_dict": behind("model.", s), "current_model_state": behind("model.", other(s)),
                   "pytorch-lightning_version": "2.6.0"},
        "state_dict", "the average, as Lightning does",
    ),
    "twice-the-same": (lambda s: {"best": s, "last": dict(s)}, "", ""),
    "two-networks": (lambda s: {"model": s, "discriminator": {"weight": torch.zeros(3)}}, "", ""),
    "lightning": (
        lambda s: {"state_dict": behind("model.", s), "optimizer_states": [OPTIMISER], "loops": {"x": torch.ones(1)}},
        "", "prefix model. removed",
    ),
    "lightning-backbone": (
        lambda s: {"state_dict": behind("backbone.", s), "pytorch-lightning_version": "2.5.0"},
        "", "prefix backbone. removed",
    ),
    "lightning-parts": (
        lambda s: {"state_dict": {**behind("net.", s), "criterion.weight": s["0.bias"], "net.val_acc.tp": s["0.bias"]}},
        "", "left out: 2 other names (first: criterion.weight)",
    ),
    "wrappers-in-turn": (lambda s: {"state_dict": behind("module.model._orig_mod.net.", s)}, "", "model.net. removed"),
    "numbers-among-names": (lambda s: {**s, "epoch": 3, "best_acc": 0.5}, "", ""),
    "compiled": (lambda s: behind("_orig_mod.", s), "", "_orig_mod. taken out of the names"),
    "compiled-parallel": (lambda s: behind("module._orig_mod.", s), "", "_orig_mod. taken out"),
    "compiled-parts": (lambda s: {n.replace("0.", "0._orig_mod."): s[n] for n in s}, "", "_orig_mod. taken out"),
    "parallel-parts": (lambda s: {n.replace("0.", "0.module."): s[n] for n in s}, "", "module. taken out"),
    "fsdp": (lambda s: behind("_fsdp_wrapped_module.", s), "", "_fsdp_wrapped_module."),
    "averaged": (lambda s: {**behind("module.", s), "n_averaged": torch.tensor(9)}, "", "left out: 1 other names"),
    "thop": (lambda s: {**s, "total_ops": s["0.bias"], "0.total_params": s["0.bias"]}, "", "left out: 2 other names"),
    "list": (lambda s: [s, OPTIMISER], "", ""),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_weights_and_says_what_was_chosen(tmp_path: Path, layout: str) -> None:
    make, entry, note = LAYOUTS[layout]
    state = net().state_dict()
    selection = select(tmp_path / "w.pt", make(state))
    assert selection.state.keys() == state.keys()
    assert all(torch.equal(selection.state[name], tensor) for name, tensor in state.items())
    assert selection.place == entry
    assert note in " / ".join(selection.notes)
    assert bool(selection.notes) == bool(note), "nothing is said where nothing was chosen"
    whole = sha256_of(tmp_path / "w.pt")
    assert (selection.sha256 == whole) == (entry == ""), "two networks of one file are not found by one hash"


def test_docs_name_every_library_that_has_a_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for library in entries.LIBRARIES:
        assert f"`{library.takes}`" in text
        assert library.why in " ".join(text.split()), library.why


AMBIGUOUS: dict[str, tuple[Callable[[State], Any], str]] = {
    "ema": (lambda s: {"model": s, "model_ema": other(s)}, "model, model_ema"),
    "optimal": (lambda s: {"model": s, "optimal_model": other(s)}, "model, optimal_model"),
    "epochs": (lambda s: {"model": s, "kept": {7: other(s)}}, "model, kept/7"),
    "deep": (lambda s: {"model": s, "a": {"b": {"c": {"d": {"ema": other(s)}}}}}, "model, a/b/c/d/ema"),
    "named-as-training": (lambda s: {"model": s, "ema_optimizer": {"shadow": other(s)}}, "model, ema_optimizer/shadow"),
    "best-last": (lambda s: {"best": s, "last": other(s)}, "best, last"),
    "distillation": (lambda s: {"student": s, "teacher": other(s)}, "student, teacher"),
    "nested": (lambda s: {"model": {"state_dict": s}, "ema": {"shadow": other(s)}}, "model/state_dict, ema/shadow"),
    "lightning-teacher": (
        lambda s: {"state_dict": {**behind("model.", s), **behind("teacher.", other(s))}},
        "state_dict/model., state_dict/teacher.",
    ),
    "lightning-callback": (
        lambda s: {
            "state_dict": behind("model.", s),
            "callbacks": {"EMA": {"ema_state_dict": behind("model.", other(s))}},
            "pytorch-lightning_version": "2.5.0",
        },
        "state_dict, callbacks/EMA/ema_state_dict",
    ),
    "ema-behind-a-prefix": (lambda s: {**s, **behind("ema.module.", other(s))}, "the whole file, ema."),
}


@pytest.mark.parametrize("layout", AMBIGUOUS)
def test_of_two_networks_that_fit_none_is_guessed(tmp_path: Path, layout: str) -> None:
    make, keys = AMBIGUOUS[layout]
    state = net().state_dict()
    with pytest.raises(InputError, match=rf"several networks fit.*--weights-key.*: {keys}$") as raised:
        select(tmp_path / "w.pt", make(state))
    assert str(raised.value).isprintable()
    for key in keys.removeprefix("the whole file, ").split(", "):
        taken = select(tmp_path / "w.pt", make(state), key).state["0.weight"]
        assert torch.equal(taken, state["0.weight"]) or torch.equal(taken, other(state)["0.weight"])


@pytest.mark.parametrize(
    ("layout", "entry"),
    [
        ("timm", "state_dict"),
        ("deit", "model_ema"),
        ("averaged-beside", "unaveraged_model_state_dict"),
        ("mmengine", "ema_state_dict"),
    ],
)
def test_the_entry_that_is_named_is_taken(tmp_path: Path, layout: str, entry: str) -> None:
    state = net().state_dict()
    content = LAYOUTS[layout][0](state)
    default, named = select(tmp_path / "w.pt", content), select(tmp_path / "w.pt", content, entry)
    assert all(torch.equal(named.state[name], tensor) for name, tensor in other(state).items())
    assert named.sha256 != default.sha256
    assert named.place == entry
    assert f"entry {entry}, as asked for" in named.notes


def test_a_prefix_that_is_named_is_taken(tmp_path: Path) -> None:
    state = net().state_dict()
    content = {"state_dict": {**behind("model.", state), **behind("teacher.", other(state))}}
    first, second = (select(tmp_path / "w.pt", content, key) for key in ("teacher.", "state_dict/model."))
    assert torch.equal(first.state["0.weight"], other(state)["0.weight"])
    assert torch.equal(second.state["0.weight"], state["0.weight"])
    assert (first.place, second.place) == ("state_dict/teacher.", "state_dict/model.")
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("content", "entry", "complaint"),
    [
        (lambda s: {"state_dict": s}, "state_dict_ema", "no state dict 'state_dict_ema'; there is state_dict"),
        (lambda s: s, "ema.", r"not behind 'ema.', but \[''\]"),
        (lambda s: {**behind("backbone.", s), "neck.weight": s["0.bias"]}, None, r"'neck.weight'.*#backbone. leaves"),
        (lambda s: {n.replace("0.", "amodule0."): s[n] for n in s}, None, r"names are missing \(first: \['0.bias'"),
        (lambda s: {f"module{n}": s[n] for n in s}, None, r"names are missing \(first: \['0.bias'"),
        (lambda s: {**s, "head.weight": s["0.bias"]}, None, r"0 names are missing .*1 are not .*'head.weight'"),
        (lambda s: {**behind("model.", s), "head.weight": s["0.bias"]}, None, r"'head.weight'.*#model. leaves"),
        (lambda s: {"0.weight": s["0.weight"]}, None, r"7 names are missing \(first: \['0.bias'"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_choices(
    tmp_path: Path, content: Callable[[State], Any], entry: str | None, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        select(tmp_path / "w.pt", content(net().state_dict()), entry)
    assert str(raised.value).isprintable()


def test_a_prefix_that_is_named_leaves_the_rest_out(tmp_path: Path) -> None:
    state = net().state_dict()
    content = {**behind("backbone.", state), "projector.weight": torch.zeros(2)}
    selection = select(tmp_path / "w.pt", content, "backbone.")
    assert torch.equal(selection.state["0.weight"], state["0.weight"])
    assert "left out: 1 other names (first: projector.weight)" in selection.notes


# Averages of the parameters alone, as people and torch_ema keep them.
AVERAGES: dict[str, Callable[[nn.Module], Any]] = {
    "ema/shadow": lambda net: {"shadow": {name: one.detach() + 1 for name, one in net.named_parameters()}},
    "ema/shadow_params": lambda net: {"shadow_params": [one.detach() + 1 for one in net.parameters()], "decay": 0.9},
    "ema": lambda net: Average(),
    "ema/ema_pytorch": lambda net: {
        "ema_pytorch": {
            "initted": torch.tensor(True),
            "step": torch.tensor(7),
            **behind("online_model.", net.state_dict()),
            **behind("ema_model.", other(net.state_dict())),
        }
    },
}


class Average:
    """An object that is pickled whole."""


@pytest.mark.parametrize("place", AVERAGES)
def test_an_average_without_buffers_is_not_passed_over(tmp_path: Path, place: str) -> None:
    content = {"model": net().state_dict(), "ema": AVERAGES[place](net()), "optimizer": OPTIMISER}
    with pytest.raises(InputError, match=rf"may be an average of its parameters \({place}\).*the path\): model$"):
        select(tmp_path / "w.pt", content)
    assert torch.equal(select(tmp_path / "w.pt", content, "model").state["0.bias"], net().state_dict()["0.bias"])


def test_the_entry_of_the_files_library_that_does_not_fit_is_not_passed_over(tmp_path: Path) -> None:
    state = net().state_dict()
    content = {"state_dict": state, "state_dict_ema": behind("fused.", {"w": state["0.weight"]}), "arch": "x"}
    with pytest.raises(InputError, match=r"its library takes state_dict_ema .*the path\): state_dict$"):
        select(tmp_path / "w.pt", content)
    assert torch.equal(select(tmp_path / "w.pt", content, "state_dict").state["0.bias"], state["0.bias"])


def test_an_optimiser_is_none_of_the_networks_whatever_its_name(tmp_path: Path) -> None:
    torch.save({"model": net().state_dict(), "opt": OPTIMISER, "sgd": [OPTIMISER]}, tmp_path / "w.pt")
    assert list(weights.open_file(tmp_path / "w.pt").entries) == ["model"]


def test_the_same_parameters_once_more_are_no_choice(tmp_path: Path) -> None:
    same = {
        "average_acc": np.float64(0.9),
        "shadow": [one.detach() for one in net().parameters()],
        "best": dict(net().named_parameters()),
    }
    selection = select(tmp_path / "w.pt", {"model": net().state_dict(), "ema": same})
    assert selection.notes == ()


def test_two_names_are_never_made_one(tmp_path: Path) -> None:
    """Where a wrapper's part tells two entries apart it stays."""
    state = net().state_dict()
    content = {**state, **behind("module.", other(state))}
    with pytest.raises(InputError, match=r"several networks fit.*: the whole file, module\.$"):
        select(tmp_path / "w.pt", content)
    assert torch.equal(select(tmp_path / "w.pt", content, "module.").state["0.weight"], other(state)["0.weight"])


def test_only_one_of_two_networks_has_the_shapes(tmp_path: Path) -> None:
    state = net().state_dict()
    wider = {name: torch.zeros(*tensor.shape, 2) for name, tensor in state.items()}
    selection = select(tmp_path / "w.pt", {"teacher": wider, "student": state})
    assert torch.equal(selection.state["0.weight"], state["0.weight"])


# A normalisation inside.
SMALL_NET = "torchvision:shufflenet_v2_x0_5"
CIFAR = (torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616]))


def sensitive() -> nn.Module:
    """A network of random weights whose answer depends on its input, as a trained one's."""
    inner: nn.Module = torchvision.models.shufflenet_v2_x0_5(num_classes=4).eval()
    for module in inner.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.01)  # type: ignore[union-attr, operator]
    return inner


def constants(mean: torch.Tensor, std: torch.Tensor, names: tuple[str, str] = ("mean", "std")) -> State:
    return {names[0]: mean.view(-1, 1, 1), names[1]: std.view(-1, 1, 1)}


def robustness(state: State, mean: torch.Tensor, std: torch.Tensor) -> dict[str, Any]:
    """A checkpoint of MadryLab's robustness: the network twice, its normalisation in the file."""
    new = constants(mean, std, ("new_mean", "new_std"))
    parts = {
        **behind("module.normalizer.", new),
        **behind("module.model.", state),
        **behind("module.attacker.normalize.", new),
        **behind("module.attacker.model.", state),
    }
    return {"model": parts, "optimizer": OPTIMISER, "epoch": 3, "schedule": None}


NORMALISED: dict[str, Callable[[State], Any]] = {
    "robustness": lambda s: robustness(s, *CIFAR),
    "sequential": lambda s: {**behind("0.", constants(*CIFAR)), **behind("1.", s)},
    "sequential-parallel": lambda s: {"net": behind("module.", {**behind("0.", constants(*CIFAR)), **behind("1.", s)})},
    "normalize": lambda s: {**behind("normalize.", dict(zip(("mean", "std"), CIFAR, strict=True))),
                            **behind("model.", s)},
    "mu-sigma": lambda s: {"state_dict": {**constants(*CIFAR, ("mu", "sigma")), **behind("backbone.", s)}},
}  # fmt: skip


@pytest.mark.parametrize("form", NORMALISED)
def test_a_normalisation_in_the_file_becomes_the_victims(tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    inner = sensitive()
    torch.save(NORMALISED[form](inner.state_dict()), tmp_path / "w.pt")
    victim = victims.load(f"file:{SMALL_NET}={tmp_path / 'w.pt'}")
    x = torch.rand(2, 3, 32, 32)
    mean, std = (values.view(3, 1, 1) for values in CIFAR)
    assert torch.equal(victim.model(x), inner((x - mean) / std))
    assert not torch.allclose(victim.model(x), inner(x), atol=1e-3)
    text = "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616"
    assert victim.card.network == f"normalised:{text}:{SMALL_NET}"
    assert f"normalisation {text} of the file, in place of the network's" in victim.card.weights_notes
    assert not any("ImageNet" in note for note in victim.card.weights_notes)


@pytest.mark.parametrize(("key", "normalised"), [("student.", False), ("teacher.1.", True)])
def test_a_network_that_is_named_gets_its_own_normalisation(tmp_path: Path, key: str, normalised: bool) -> None:
    inner = sensitive()
    state = inner.state_dict()
    teacher = {**behind("teacher.0.", constants(*CIFAR)), **behind("teacher.1.", other(state))}
    selection = select(tmp_path / "w.pt", {"state_dict": {**behind("student.", state), **teacher}}, key, inner)
    assert (selection.normalisation is not None) is normalised


@pytest.mark.parametrize(
    "beside",
    [
        {"mean": CIFAR[0], "std": CIFAR[1]},
        {"mean": CIFAR[0].tolist(), "std": CIFAR[1].tolist()},
        {"config": {"normalize": {"mean": (CIFAR[0] * 255).tolist(), "std": (CIFAR[1] * 255).tolist()}}},
    ],
)
def test_a_normalisation_beside_the_weights_is_not_passed_over(tmp_path: Path, beside: dict[str, Any]) -> None:
    inner = sensitive()
    torch.save({"state_dict": inner.state_dict(), **beside}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"a normalisation beside its weights \(.*mean\)") as raised:
        victims.load(f"file:{SMALL_NET}={tmp_path / 'w.pt'}")
    for network in (part for part in str(raised.value).split() if part.startswith("normalised:")):
        victims.load(f"file:{network}={tmp_path / 'w.pt'}")
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    torch.save({"state_dict": inner.state_dict(), **imagenet}, tmp_path / "w.pt")
    assert victims.load(f"file:{SMALL_NET}={tmp_path / 'w.pt'}").card.network == SMALL_NET, "it is the network's own"


def test_networks_that_an_attacker_holds_are_dropped(tmp_path: Path) -> None:
    """robustness saves its attacker, and whatever a custom attack holds: a surrogate, another normalisation."""
    inner = sensitive()
    content = robustness(inner.state_dict(), *CIFAR)
    content["model"] |= {
        **behind("module.attacker.surrogate.", other(inner.state_dict())),
        **behind("module.attacker.input_norm.", constants(CIFAR[1], CIFAR[0])),
        "module.attacker.delta": torch.zeros(3, 8, 8),
    }
    torch.save(content, tmp_path / "w.pt")
    victim = victims.load(f"file:{SMALL_NET}={tmp_path / 'w.pt'}")
    x = torch.rand(2, 3, 32, 32)
    mean, std = (values.view(3, 1, 1) for values in CIFAR)
    assert torch.equal(victim.model(x), inner((x - mean) / std))


def test_a_normalisation_stands_in_front_of_a_network_without_one(tmp_path: Path) -> None:
    state = small(0)
    one = dict(zip(("mean", "std"), (torch.tensor([0.1307]), torch.tensor([0.3081])), strict=True))
    torch.save({**behind("norm.", one), **behind("net.", state)}, tmp_path / "w.pt")
    victim = victims.load(f"file:small-resnet={tmp_path / 'w.pt'}")
    plain = networks.build("small-resnet", 10).model.eval()
    plain.load_state_dict(state)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(victim.model(x), plain((x - 0.1307) / 0.3081))
    assert victim.card.network == "normalised:0.1307/0.3081:small-resnet"
    assert victim.layers.head == "model.head"


@pytest.mark.parametrize(
    ("content", "network", "complaint"),
    [
        (lambda s: robustness(s, *CIFAR), f"resized:16-32:{SMALL_NET}", "may have another: say which"),
        (lambda s: {**behind("0.", constants(*CIFAR)), **behind("1.", constants(CIFAR[1], CIFAR[0])),
                    **behind("2.", s)}, SMALL_NET, "two normalisations in the file"),
        (lambda s: {**behind("0.", s), **behind("1.", constants(*CIFAR))}, SMALL_NET, r"'1.mean'.*#0. leaves these"),
        (lambda s: {**behind("net.", s), **behind("noise.", constants(*CIFAR))}, SMALL_NET, r"'noise.mean'"),
        (lambda s: {**behind("net.", s), **behind("target_scaler.", constants(*CIFAR))}, SMALL_NET, r"'target_scaler"),
        (lambda s: {"plain": s, "wrapped": {**behind("0.", constants(*CIFAR)), **behind("1.", s)}},
         SMALL_NET, "several networks fit, which differ.*: plain, wrapped"),
        (lambda s: {**behind("net.", s), **behind("other.1.", s), **behind("other.0.", constants(*CIFAR))},
         SMALL_NET, r"several networks fit, which differ.*: net., other.1."),
        (lambda s: {**behind("0.", constants(CIFAR[0] * 255, CIFAR[1] * 255)), **behind("1.", s)},
         SMALL_NET, "normalisation of pixels in 0..255"),
        (lambda s: {**behind("0.", constants(CIFAR[0], CIFAR[1] * 0)), **behind("1.", s)},
         SMALL_NET, "a normalisation that is none"),
        (lambda s: {**behind("0.", {"mean": CIFAR[0]}), **behind("1.", s)}, SMALL_NET, r"'0.mean'"),
    ],
)  # fmt: skip
def test_a_normalisation_that_is_not_clear_is_refused(
    tmp_path: Path, content: Callable[[State], Any], network: str, complaint: str
) -> None:
    torch.save(content(torchvision.models.shufflenet_v2_x0_5(num_classes=4).state_dict()), tmp_path / "w.pt")
    with pytest.raises(InputError, match=complaint) as raised:
        victims.load(f"file:{network}={tmp_path / 'w.pt'}")
    assert str(raised.value).isprintable()


def test_what_the_network_states_wins_over_the_file(tmp_path: Path) -> None:
    inner = sensitive()
    torch.save(NORMALISED["sequential"](inner.state_dict()), tmp_path / "w.pt")
    victim = victims.load(f"file:normalised:none:{SMALL_NET}={tmp_path / 'w.pt'}")
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(victim.model(x), inner(x))
    assert any("left out: the network's id states one" in note for note in victim.card.weights_notes)


def test_classes_that_the_file_names_are_the_victims(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(10)]
    torch.save({"state_dict": small(0), "class_to_idx": {name: 9 - k for k, name in enumerate(names)}}, tmp_path / "w")
    victim = victims.load(f"file:small-resnet={tmp_path / 'w'}")
    assert victim.card.classes == tuple(reversed(names))
    assert "classes named as the file's class_to_idx says" in victim.card.weights_notes


def test_parts_of_a_network_are_read_through_their_index(tmp_path: Path) -> None:
    state = small(3)
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for part, own in parts.items():
        weights.write({name: state[name] for name in own}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    places = {name: part for part, own in parts.items() for name in own}
    index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places}))
    victim = victims.load(f"file:small-resnet={index}")
    assert all(torch.equal(tensor, state[name]) for name, tensor in victim.model.state_dict().items())
    before = victim.sha256
    weights.write({name: state[name] + 1 for name in parts["model-00002-of-00002.safetensors"]},
                  tmp_path / "model-00002-of-00002.safetensors")  # fmt: skip
    assert victims.load(f"file:small-resnet={index}").sha256 != before, "every part counts"
    with pytest.raises(InputError, match="one part of several: name their index"):
        victims.load(f"file:small-resnet={tmp_path / 'model-00001-of-00002.safetensors'}")
    with pytest.raises(InputError, match=r"this is a folder: .*\(model-00001-of-00002.safetensors, .*index.json"):
        victims.load(f"file:small-resnet={tmp_path}")
    (tmp_path / "index.bin").symlink_to(index)
    for content, complaint in (
        ({"weight_map": {"a": "../w.safetensors"}}, "names a file outside its folder"),
        ({"weight_map": {"a": "gone.safetensors"}}, "gone.safetensors is not beside it"),
        ({"weight_map": {**places, "more": "model-00001-of-00002.safetensors"}}, r"name different tensors .*'more'"),
        ({"weight_map": {"a": "model.safetensors.index.json"}}, "an index that names another one"),
        ({"weight_map": {"a": "index.bin"}}, "an index that names another one, index.bin"),
        ({"weight_map": {}}, "that names none"),
        ({"weight_map": 3, "total_size": 3}, "that names none"),
    ):
        index.write_text(json.dumps(content))
        with pytest.raises(InputError, match=complaint) as raised:
            weights.open_file(index)
        assert str(raised.value).isprintable()
    index.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places})[:-5])
    with pytest.raises(InputError, match="damaged or cut short"):
        weights.open_file(index)
    index.write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
    with pytest.raises(InputError, match="names 'a' twice"):
        weights.open_file(index)


# Through a model's id.
def small(seed: int, classes: int = 10) -> State:
    torch.manual_seed(seed)
    model = networks.build("small-resnet", classes).model
    return {name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in model.state_dict().items()}  # fmt: skip


def test_the_choice_is_on_the_victims_card(tmp_path: Path) -> None:
    plain, averaged = small(0), small(1)
    path = tmp_path / "epoch=3-val_acc=0.91 (1).ckpt"
    torch.save({"state_dict": behind("module.", plain), "state_dict_ema": averaged}, path)
    first, second = (victims.load(f"file:small-resnet={path}{entry}") for entry in ("", "#state_dict"))
    for victim, state in ((first, averaged), (second, plain)):
        assert torch.equal(victim.model.state_dict()["head.weight"], state["head.weight"])
    assert (first.id, second.id) == (
        "file:epoch_3-val_acc_0.91__1_@state_dict_ema",
        "file:epoch_3-val_acc_0.91__1_@state_dict",
    )
    assert first.sha256 != second.sha256
    assert first.card.weights_notes[0].startswith("entry state_dict_ema, as timm's load_checkpoint does (also there:")
    assert "module. taken out of the names" in second.card.weights_notes
    with pytest.raises(InputError, match="no state dict 'ema'; there is state_dict, state_dict_ema"):
        victims.load(f"file:small-resnet={path}#ema")


def test_a_file_with_the_sign_in_its_name_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "w#1"
    torch.save(small(0), path)
    assert victims.load(f"file:small-resnet={path}").id == "file:w_1"


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (torch.zeros(1, 64), r"head has the shape \(1, 64\): a classifier has one row for each of at least 2"),
        (torch.zeros(0, 64), r"shape \(0, 64\)"),
        (torch.tensor(1.0), r"shape \(\)"),
        (torch.zeros(64), r"shape \(64,\)"),
        (torch.zeros(1).expand(1_000_001, 1), r"shape \(1000001, 1\)"),
    ],
)
def test_a_head_that_is_none_is_refused(tmp_path: Path, head: torch.Tensor, complaint: str) -> None:
    torch.save({**small(0), "head.weight": head}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=complaint):
        victims.load(f"file:small-resnet={tmp_path / 'w.pt'}")


# The activation, which weights do not name.
def calibrated(activation: str) -> Victim:
    """E-AT's network with affine parameters like a trained one's, its running means made by the activation."""
    torch.manual_seed(3)
    model = networks.build(f"preact-resnet18:{activation}", 10).model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                module.weight.uniform_(0.2, 0.8)
                module.bias.uniform_(-0.5, 0.1)
        model(torch.rand(8, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="module")
def trained_with() -> dict[str, nn.Module]:
    models = {activation: calibrated(activation) for activation in ("relu", "softplus1", "3prelu2")}
    for model in models.values():
        for name, buffer in model.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.fill_(1000)
    return models


def test_weights_trained_with_relu_never_load_as_softplus(tmp_path: Path, trained_with: dict[str, nn.Module]) -> None:
    relu = trained_with["relu"]
    torch.save({"state_dict": relu.state_dict()}, tmp_path / "pretr_Linf.pth")
    path = tmp_path / "pretr_Linf.pth"
    x = torch.rand(2, 3, 32, 32)
    victim = victims.load(f"file:preact-resnet18:relu={path}")
    assert torch.equal(victim.model(x), relu(x))
    assert victim.card.network == "preact-resnet18:relu"
    assert victim.card.weights_notes == ()
    for id in (f"file:preact-resnet18={path}", f"file:preact-resnet18:softplus1={path}", "pretr_Linf"):
        with pytest.raises(
            InputError, match=r"trained with the activation relu.*name the network preact-resnet18:relu"
        ):
            victims.load(id, tmp_path)


def test_a_card_that_names_another_activation_is_refused(tmp_path: Path, trained_with: dict[str, nn.Module]) -> None:
    digest = weights.write(trained_with["relu"].state_dict(), tmp_path / "model.safetensors")
    card = (
        "---\nlicense: mit\ntransferbench:\n  id: mine\n  network: NETWORK\n  dataset: cifar10\n"
        f"  classes: [{', '.join('abcdefghij')}]\n  input_shape: [3, 32, 32]\n  method: eat\n"
        f"  weights: model.safetensors\n  sha256: {digest}\n---\n"
    )
    (tmp_path / "README.md").write_text(card.replace("NETWORK", "preact-resnet18"))
    with pytest.raises(InputError, match="trained with the activation relu"):
        victims.load(str(tmp_path))
    (tmp_path / "README.md").write_text(card.replace("NETWORK", "preact-resnet18:relu"))
    assert victims.load(str(tmp_path)).card.network == "preact-resnet18:relu"


def test_an_activation_that_is_assumed_is_said(tmp_path: Path, trained_with: dict[str, nn.Module]) -> None:
    softplus = trained_with["softplus1"]
    torch.save(softplus.state_dict(), tmp_path / "w.pth")
    victim = victims.load(f"file:preact-resnet18={tmp_path / 'w.pth'}")
    assert "activation softplus1 (the default" in victim.card.weights_notes[0]
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(victim.model(x), softplus(x))
    with pytest.raises(InputError, match="trained with the activation softplus1"):
        victims.load(f"file:preact-resnet18:relu={tmp_path / 'w.pth'}")


def test_a_three_piece_activation_is_told_from_the_others(tmp_path: Path, trained_with: dict[str, nn.Module]) -> None:
    torch.save(trained_with["3prelu2"].state_dict(), tmp_path / "w.pth")
    for own in ("relu", "3prelu1", "3psmooth0.5"):
        with pytest.raises(InputError, match=r"trained with the activation .*3prelu2"):
            victims.load(f"file:preact-resnet18:{own}={tmp_path / 'w.pth'}")
    assert victims.load(f"file:preact-resnet18:3prelu2={tmp_path / 'w.pth'}").card.weights_notes == ()


@pytest.mark.parametrize(
    "activation", ["3prelu", "3prelu0", "3psmooth-1", "3p1", "gelu", "softplus0", "softplus1.5", ""]
)
def test_an_activation_that_the_network_does_not_have_is_refused(activation: str) -> None:
    with pytest.raises(InputError, match=r"the activation is relu, softplus<beta> .*3prelu<d> or 3psmooth<d>"):
        networks.build(f"preact-resnet18:{activation}", 10)
    assert torch.isfinite(networks.build("preact-resnet18:softplus10", 10).model.eval()(torch.rand(1, 3, 32, 32))).all()


def test_a_normalisation_that_is_assumed_is_said() -> None:
    assert "ImageNet's mean" in networks.unstated("torchvision:resnet18")
    assert "ImageNet's mean" in networks.unstated("resized:32-224:torchvision:resnet18")
    assert networks.unstated("normalised:0.5/0.5:torchvision:resnet18") == ""
    assert "timm's configuration" in networks.unstated("timm:vit_tiny_patch16_224@32/8")
    assert networks.unstated("small-resnet") == ""
