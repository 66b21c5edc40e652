"""RoLI, and training of a part of the weights: head, biases, LoRA, adapters; on convolutions and on transformers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.nets import Small
from support.trainings import LAYERS, SHORT, StoppedError, StopsAfter, same, settings, state_of
from torch import nn
from torch.nn.utils import parametrize

from transferbench import data, methods
from transferbench.base import keyed_random
from transferbench.base.errors import InputError
from transferbench.methods import Network
from transferbench.models import adapters, heads, low_rank, networks, trained, victims
from transferbench.models.cards import ModelCard
from transferbench.models.features import Layers
from transferbench.models.victim import Victim
from transferbench.training import loop
from transferbench.training.batches import Loader
from transferbench.training.victim import Recipe, train_victim

ATTACK = {"k": 2, "eps": "0.1", "lr": 0.05, "freeze_bn": "stats"}


@pytest.fixture
def source(small: Small) -> Network:
    return Network(small.model, LAYERS)


def fit(id: str, source: Network, given: dict[str, Any], options: loop.FitOptions = loop.FIT_OPTIONS) -> loop.Trained:
    splits = data.load("digits", "train"), data.load("digits", "val")
    return loop.fit(methods.build(id, {**settings(id), **given}), source, lambda: source, *splits, options)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("tune", ["all", "head", "bias", "lora", "adapter"])
@pytest.mark.parametrize("id", ["madry", *(pytest.param(id, marks=pytest.mark.slow) for id in ("trades", "eat"))])
def test_what_is_tuned_changes_and_nothing_else(id: str, tune: str, source: Network) -> None:
    before = state_of(source)
    after = state_of(fit(id, source, {"tune": tune, "freeze_bn": "stats", "lora_rank": 2, "lr": 0.05}).network)
    head = {"head.weight", "head.bias"}
    convolutions = {name for name, value in before.items() if value.dim() == 4 and not name.startswith("stem")}
    expected = {
        "all": {name for name in before if "running" not in name and "num_batches" not in name},
        "head": head,
        "bias": {name for name in before if name.endswith("bias")} | head,
        "lora": convolutions | head,
        "adapter": head,
    }[tune]
    if tune == "adapter":
        added = {name for name in after if ".adapter." in name}
        assert len(added) == 8 * 4, "two convolutions in each of four blocks, a bottleneck of four tensors behind each"
        after = {name.replace(".inner.", "."): value for name, value in after.items() if name not in added}
    assert after.keys() == before.keys(), "a plain network"
    assert changed(before, after) == expected


@pytest.mark.parametrize(
    "tune", ["lora", *(pytest.param(one, marks=pytest.mark.slow) for one in ("head", "bias", "adapter"))]
)
def test_parts_resume_to_the_same_bits(tune: str, source: Network, tmp_path: Path) -> None:
    given = {"tune": tune, "optimiser": "adamw", "ema": 0.5}
    unbroken, broken = fit("madry", source, given), None
    while broken is None:
        try:
            broken = fit("madry", source, given, loop.FitOptions(checkpoint=StopsAfter(tmp_path / "c", 1)))
        except StoppedError:
            continue
    assert same(state_of(unbroken.network), state_of(broken.network))


def test_every_part_of_lora_and_of_an_adapter_has_a_gradient_within_two_steps(source: Network) -> None:
    for tune in ("lora", "adapter"):
        method = methods.build("madry", {**settings("madry"), "tune": tune})
        student = method.student(source, lambda: source, 10)
        before = state_of(student)
        loader = Loader(data.load("digits", "train"), method.params)
        training = loop._Training(method, student, source, loader, loop.FIT_OPTIONS, 8)
        steps = loop._PhaseSteps(training, method.main(2), 0)
        list(steps.run())
        part = low_rank.is_part if tune == "lora" else adapters.is_part
        parts = {name for name in before if part(name)}
        assert len(parts) >= 20
        assert parts <= changed(before, state_of(student))


class Attends(nn.Module):
    """Attention in the three forms that libraries have."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.qkv, self.query, self.key = nn.Linear(6, 18), nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attention(x, x, x)[0]
        query, key, value = self.qkv(x).chunk(3, dim=2)
        x = F.scaled_dot_product_attention(query, key, value) + self.key(x) * self.query(x)
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def test_lora_adds_its_product_to_queries_and_values() -> None:
    torch.manual_seed(0)
    model = Attends().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(4, 5, 6)
    plain = model(x)
    low_rank.insert(model, Layers((), "head"), 2, 3.0)
    assert torch.equal(model(x), plain), "B is 0 at the start"
    factors = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in factors.items():
            if low_rank.is_part(name):
                parameter.copy_(torch.randn(parameter.shape))
    expected = {name: value.double().numpy().copy() for name, value in before.items()}
    for place, rows in (
        ("attention.in_proj_weight", ((0, 6), (12, 18))),
        ("qkv.weight", ((0, 6), (12, 18))),
        ("query.weight", ((0, 6),)),
    ):
        module, _, own = place.rpartition(".")
        for number, (start, stop) in enumerate(rows):
            stem = f"{module}.parametrizations.{own}.0"
            up, down = (factors[f"{stem}.{part}.{number}"].detach().double().numpy() for part in ("up", "down"))
            expected[place][start:stop] += 3.0 / 2 * np.matmul(up, down)
    moved = model(x)
    low_rank.merge(model)
    assert not torch.equal(moved, plain)
    assert torch.allclose(model(x), moved, atol=1e-6)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    found = model.state_dict()
    assert found.keys() == before.keys()
    for name, value in expected.items():
        assert np.allclose(found[name].numpy(), value, atol=1e-5), name


def test_lora_of_a_convolution_is_two_convolutions() -> None:
    """Into r channels with the kernel, then 1x1, beside the convolution itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(54, 2))
    low_rank.insert(model, Layers((), "3"), 2, 5.0)
    x = torch.randn(2, 4, 6, 6)
    layer: Any = model[1]
    update = layer.parametrizations.weight[0]
    with torch.no_grad():
        update.up[0].copy_(torch.randn(6, 2))
    inner = F.conv2d(x, update.down[0].view(2, 4, 3, 3), stride=2, padding=1)
    beside = F.conv2d(inner, update.up[0].view(6, 2, 1, 1))
    own = F.conv2d(x, layer.parametrizations.weight.original, layer.bias, stride=2, padding=1)
    assert torch.allclose(layer(x), own + 2.5 * beside, atol=1e-5)
    assert not parametrize.is_parametrized(model[0]), "the first convolution is left alone"


def test_an_adapter_adds_its_bottleneck() -> None:
    torch.manual_seed(0)
    for maps, layer, x in (
        (True, nn.Conv2d(3, 8, 3), torch.randn(2, 3, 5, 5)),
        (False, nn.Linear(4, 8), torch.randn(2, 4)),
    ):
        adapted = adapters.Adapted(layer, adapters.Bottleneck(8, 4, maps))
        assert torch.equal(adapted(x), layer(x)), "nothing at the start"
        down: Any = adapted.adapter.down
        up: Any = adapted.adapter.up
        with torch.no_grad():
            up.weight.copy_(torch.randn(up.weight.shape))
            up.bias.copy_(torch.randn(up.bias.shape))
        h = layer(x).movedim(1, -1)
        inner = h @ down.weight.flatten(1).T + down.bias
        inner = inner.clamp(min=0) if maps else inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        expected = h + inner @ up.weight.flatten(1).T + up.bias
        assert torch.allclose(adapted(x), expected.movedim(-1, 1), atol=1e-5)


def test_a_network_without_a_place_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="Linear has no place for adapters"):
        adapters.insert(nn.Linear(3, 2), 8)
    with pytest.raises(InputError, match="Flatten has no attention"):
        low_rank.insert(nn.Flatten(), Layers((), "head"), 2, 1.0)
    with pytest.raises(InputError, match="write it as adapter:8"):
        networks.build("adapter:0:small-resnet", 3)
    with pytest.raises(InputError, match="from a source"):
        methods.build("madry", {"tune": "lora", "from_scratch": True})
    with pytest.raises(InputError, match="needs a source"):
        loop.fit(
            methods.build("madry", {**SHORT, "tune": "head"}), None, lambda: None, data.load("digits", "train"), None
        )  # type: ignore[arg-type, return-value]


def test_heads_begin_as_they_are_told() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(400, 300))
    heads.initialise(model, Layers((), "1"), "focal")
    assert torch.allclose(model[1].bias, torch.full((300,), -4.59512), atol=1e-5)
    assert float(model[1].weight.detach().std()) == pytest.approx((2 / 300) ** 0.5, rel=0.02)
    heads.initialise(model, Layers((), "1"), "zero")
    assert not model[1].weight.any()
    assert not model[1].bias.any()
    with pytest.raises(InputError, match="head_init"):
        methods.build("renofeation", {"head_init": "zero"})


def adversarial_probe(source: Network, params: Any, steps: int) -> nn.Module:
    """A linear head on the frozen network, trained at the end points of PGD, by plain SGD with momentum."""
    with torch.random.fork_rng():
        torch.manual_seed(keyed_random.stream("init", params.seed))
        model = copy.deepcopy(methods.build("madry", {"head_init": "focal"}).student(source, lambda: source, 10).model)
    model.eval().requires_grad_(False)
    head: Any = model.head
    momenta = [torch.zeros_like(head.weight), torch.zeros_like(head.bias)]
    batches = Loader(data.load("digits", "train"), params).from_step(0)
    for step, batch in zip(range(steps), batches, strict=False):
        x = (batch.x + 0.1 * (2 * keyed_random.uniform(batch.noise, (1, 8, 8)) - 1)).clamp(0, 1)
        for _ in range(params.k):
            x.requires_grad_()
            gradient = torch.autograd.grad(F.cross_entropy(model(x), batch.y, reduction="sum"), x)[0]
            x = (x.detach() + 0.25 * 0.1 * gradient.sign()).clamp(batch.x - 0.1, batch.x + 0.1).clamp(0, 1)
        head.requires_grad_()
        gradients = torch.autograd.grad(F.cross_entropy(model(x), batch.y), [head.weight, head.bias])
        head.requires_grad_(False)
        warm = int(params.warm_up * steps)
        late = 0.5 * (1 + np.cos(np.pi * (step - warm) / (steps - warm)))
        rate = params.probe_lr * ((step + 1) / warm if step < warm else late)
        for number, (parameter, gradient) in enumerate(zip((head.weight, head.bias), gradients, strict=True)):
            momenta[number] = 0.9 * momenta[number] + gradient
            parameter -= rate * momenta[number]
    return model


def test_roli_begins_its_second_phase_at_an_adversarially_trained_head(source: Network) -> None:
    given = {"steps": 7, "probe_steps": 6, "lr": 0.0}
    params = methods.build("roli", {**settings("roli"), **given}).params
    expected = adversarial_probe(source, params, 6).state_dict()
    found = fit("roli", source, {**given, "freeze_bn": "stats"}).network.model.state_dict()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-4), name
    natural = fit("roli", source, {**given, "eps": "0.0001", "freeze_bn": "stats"}).network.model.state_dict()
    assert not torch.allclose(natural["head.weight"], expected["head.weight"], atol=2e-4), "the attack matters"
    whole = fit("roli", source, {"steps": 7, "probe_steps": 6, "lr": 0.01, "warm_up": 0.0}).network.model.state_dict()
    assert not torch.equal(whole["stage2.conv1.weight"], expected["stage2.conv1.weight"])


def test_a_first_phase_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(InputError, match="probe_steps"):
        methods.build("roli", {"steps": 5, "probe_steps": 5})


VIT = "timm:vit_tiny_patch16_224@32/8"


@pytest.fixture(scope="module")
def transformer() -> Network:
    torch.manual_seed(0)
    return Network(*networks.build(VIT, 5)[:2])


@pytest.mark.parametrize(
    ("id", "given"),
    [
        ("roli", {"tune": "lora"}),
        pytest.param("roli", {}, marks=pytest.mark.slow),
        pytest.param("aff", {}, marks=pytest.mark.slow),
        pytest.param("madry", {"tune": "adapter"}, marks=pytest.mark.slow),
        pytest.param("madry", {"tune": "bias"}, marks=pytest.mark.slow),
    ],
)
def test_a_transformer_goes_through(id: str, given: dict[str, Any], transformer: Network, tmp_path: Path) -> None:
    """A ViT-Tiny on coloured digits of 32x32: trained, saved, loaded from its card alone."""
    digits = data.load("digits", "train").select(range(24))
    images = F.interpolate(digits.images, scale_factor=4).repeat(1, 3, 1, 1)
    coloured = replace(digits, images=images)
    card = ModelCard(
        id="vit", network=VIT, dataset="x", classes=tuple("abcde"), input_shape=(3, 32, 32), method="unknown"
    )
    source = Victim.frozen(card, transformer.model, transformer.layers, "0" * 64)
    method = methods.build(
        id, {**settings(id), "eps": "0.1", "steps": 4, "batch_size": 8, "lr": 1e-3, "optimiser": "adamw", **given}
    )
    model, written, _ = train_victim(Recipe("v", id, "digits", ""), method, source, (coloured, None))
    trained.save(tmp_path / "v", model.state_dict(), written)
    loaded = victims.load(str(tmp_path / "v"))
    assert loaded.card.network == ("adapter:8:" if given.get("tune") == "adapter" else "") + VIT
    assert torch.equal(loaded.model(images[:4]), model(images[:4]))
    before, after = transformer.model.state_dict(), model.state_dict()
    moved = {
        name
        for name, value in before.items()
        if name in after and "head" not in name and not torch.equal(value, after[name])
    }
    if given.get("tune") == "lora":
        assert moved == {name for name in before if name.endswith("qkv.weight")}
    elif given.get("tune") == "bias":
        assert moved == {name for name in before if name.endswith("bias") and "head" not in name}
    elif given.get("tune") != "adapter":
        assert len(moved) > 100
