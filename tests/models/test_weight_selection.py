"""Which state dict of a file is taken, and what is taken off its names: never silently."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from transferbench.base.atomic_files import sha256_of
from transferbench.base.errors import InputError
from transferbench.models import networks, victims, weights
from transferbench.models.networks.normalised import MEAN, STD, Normalised
from transferbench.models.victim import Victim

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
        lambda s: {"epoch": 3, "arch": "x", "state_dict": s, "optimizer": OPTIMISER, "state_dict_ema": other(s)},
        "state_dict", "entry state_dict of several (also there: state_dict_ema",
    ),
    "timm-ema-first": (lambda s: {"state_dict_ema": other(s), "state_dict": s}, "state_dict", "state_dict_ema"),
    "deit": (lambda s: {"model": s, "model_ema": other(s), "scaler": {"scale": torch.ones(1)}}, "model", "model_ema"),
    "dm-improves-at": (
        lambda s: {"model_state_dict": s, "unaveraged_model_state_dict": other(s), "optimizer_state_dict": OPTIMISER},
        "model_state_dict", "also there: unaveraged_model_state_dict",
    ),
    "mmengine": (lambda s: {"meta": {}, "state_dict": s, "ema_state_dict": other(s)}, "state_dict", "ema_state_dict"),
    "best-beside": (lambda s: {"best": other(s), "model": s}, "model", "also there: best"),
    "nested": (lambda s: {"model": {"state_dict": s, "epoch": 1}, "ema": {"shadow": other(s)}}, "model/state_dict",
               "also there: ema/shadow"),
    "two-networks": (lambda s: {"model": s, "discriminator": {"weight": torch.zeros(3)}}, "", ""),
    "lightning": (
        lambda s: {"state_dict": behind("model.", s), "optimizer_states": [OPTIMISER], "loops": {"x": torch.ones(1)}},
        "", "prefix model. removed",
    ),
    "lightning-teacher": (
        lambda s: {"state_dict": {**behind("model.", s), **behind("teacher.", other(s))}}, "state_dict",
        "left out: another copy of the network behind teacher. (#teacher. takes it)",
    ),
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


def test_the_default_is_the_first_of_the_documented_names(tmp_path: Path) -> None:
    text = " ".join((Path(__file__).parents[2] / "docs" / "models.md").read_text().split())
    order = re.findall(r"`(\w+)`", text.partition("Of several the first of ")[2].partition(" is taken")[0])
    assert len(order) == 9
    state = net().state_dict()
    for first, second in itertools.pairwise(order):
        assert select(tmp_path / "w.pt", {second: other(state), first: state}).place == first


@pytest.mark.parametrize(
    ("layout", "entry"),
    [
        ("timm", "state_dict_ema"),
        ("deit", "model_ema"),
        ("dm-improves-at", "unaveraged_model_state_dict"),
        ("best-beside", "best"),
        ("nested", "ema/shadow"),
        ("lightning-teacher", "teacher."),
        ("lightning-teacher", "state_dict/teacher."),
    ],
)
def test_the_entry_that_is_named_is_taken(tmp_path: Path, layout: str, entry: str) -> None:
    state = net().state_dict()
    content = LAYOUTS[layout][0](state)
    default, named = select(tmp_path / "w.pt", content), select(tmp_path / "w.pt", content, entry)
    assert all(torch.equal(named.state[name], tensor) for name, tensor in other(state).items())
    assert named.sha256 != default.sha256
    assert named.place.endswith(entry)


@pytest.mark.parametrize(
    ("content", "entry", "complaint"),
    [
        (lambda s: {"best": s, "last": other(s)}, None, "several state dicts fit.*--weights-key: best, last"),
        (lambda s: {"student": s, "teacher": other(s)}, None, "several state dicts fit.*student, teacher"),
        (
            lambda s: {"state_dict": s},
            "state_dict_ema",
            "no state dict 'state_dict_ema' that fits; there is state_dict",
        ),
        (lambda s: s, "ema.", r"not behind 'ema.', but \[''\]"),
        (lambda s: behind("backbone.", s), None, "names are behind 'backbone.': say #backbone. to take these"),
        (lambda s: behind("amodule.", s), None, "names are behind 'amodule.'"),
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


def test_two_names_are_never_made_one(tmp_path: Path) -> None:
    """Where a wrapper's part tells two entries apart it stays."""
    state = net().state_dict()
    selection = select(tmp_path / "w.pt", {**state, **behind("module.", other(state))})
    assert torch.equal(selection.state["0.weight"], state["0.weight"])
    assert "another copy of the network behind module." in " ".join(selection.notes)


def madry(state: State, mean: tuple[float, ...]) -> dict[str, Any]:
    """A checkpoint of the robustness library: the network twice, its normalisation in the file."""
    constants = {"new_mean": torch.tensor(mean).view(3, 1, 1), "new_std": torch.tensor(STD).view(3, 1, 1)}
    parts = {
        **behind("module.normalizer.", constants),
        **behind("module.model.", state),
        **behind("module.attacker.normalize.", constants),
        **behind("module.attacker.model.", state),
    }
    return {"model": parts, "optimizer": OPTIMISER, "epoch": 3, "schedule": None}


def test_the_robustness_librarys_files_load_where_their_normalisation_is_the_networks(tmp_path: Path) -> None:
    state, path = net().state_dict(), tmp_path / "w.pt"
    selection = select(path, madry(state, MEAN), model=Normalised(net()))
    assert torch.equal(selection.state["model.0.weight"], state["0.weight"])
    assert "the file's normalisation is the network's" in selection.notes
    with pytest.raises(InputError, match=r"normalisation .*new_mean = \[0.5, 0.5, 0.5\], the network has \[0.485"):
        select(path, madry(state, (0.5, 0.5, 0.5)), model=Normalised(net()))
    with pytest.raises(InputError, match=r"new_mean = \[0.485, .*the network has \[0.0, 0.0, 0.0\]"):
        select(path, madry(state, MEAN))


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
    first, second = (victims.load(f"file:small-resnet={path}{entry}") for entry in ("", "#state_dict_ema"))
    for victim, state in ((first, plain), (second, averaged)):
        assert torch.equal(victim.model.state_dict()["head.weight"], state["head.weight"])
    assert (first.id, second.id) == (
        "file:epoch_3-val_acc_0.91__1_@state_dict",
        "file:epoch_3-val_acc_0.91__1_@state_dict_ema",
    )
    assert first.sha256 != second.sha256
    assert first.card.weights_notes[0].startswith("entry state_dict of several (also there: state_dict_ema;")
    assert "module. taken out of the names" in first.card.weights_notes
    with pytest.raises(InputError, match="no state dict 'ema' that fits; there is state_dict, state_dict_ema"):
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
    assert networks.unstated("small-resnet") == ""
