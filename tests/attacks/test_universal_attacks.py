"""Universal deltas: closed forms on linear layers, losses recomputed, resumption, networks of torchvision."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from support.nets import Small
from torch import Tensor, nn

from transferbench import attacks, data
from transferbench.attacks.encoder_universal import low_frequencies
from transferbench.base.checkpoint import NO_CHECKPOINT
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.engine.source_model import SourceModel
from transferbench.engine.universal import UniversalCrafting
from transferbench.models import networks
from transferbench.models.features import Layers, find_layers

LINF = ThreatModel.parse("Linf", "0.1")
EVERY = ("l4a", "ssp", "fff", "x-transfer", "adv-encoder")


def crafting(
    source: Any, spec: AttackSpec, shape: tuple[int, ...], pool: Tensor | None, checkpoint: Any = NO_CHECKPOINT
) -> UniversalCrafting:
    attack = attacks.build(spec, LINF, 10)
    return UniversalCrafting(source, attack, shape, pool, (0, "Linf", "0.1"), "cpu", checkpoint)


class OneLayer(nn.Module):
    """A convolution of the whole image: its activation is linear in the delta."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer1, self.layer2, self.layer3 = nn.Conv2d(1, 1, 8, bias=False), nn.Identity(), nn.Identity()
        self.head = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.layer2(self.layer1(x))).flatten(1))


@pytest.fixture(scope="module")
def linear() -> SourceModel:
    model = OneLayer().eval()
    return SourceModel(model, Layers(("layer1", "layer2", "layer3"), "head"))


def test_the_square_of_one_linear_unit_is_raised_by_the_signs_of_its_weights(linear: SourceModel) -> None:
    """On images in the middle of the box nothing is clipped: the best delta is eps times the signs, one way round."""
    pool = torch.full((4, 1, 8, 8), 0.5)
    weight = linear.model.get_submodule("layer1").weight.detach()[0]
    start = float((weight * 0.5).sum())
    for spec in (AttackSpec.of("l4a", layer="layer1", steps=120), AttackSpec.of("ssp", layer="layer1", steps=120)):
        delta = crafting(linear, spec, (1, 8, 8), pool).run()[0]
        side = torch.sign((weight * delta).sum())
        assert torch.allclose(delta, 0.1 * side * weight.sign(), atol=1e-6), spec.id
        if spec.id == "l4a":
            assert float(side) == math.copysign(1, start), "the larger square is on the images' own side"


def test_without_data_the_delta_alone_is_driven(linear: SourceModel) -> None:
    weight = linear.model.get_submodule("layer1").weight.detach()[0]
    attack = crafting(linear, AttackSpec.of("fff", steps=40), (1, 8, 8), None)
    delta = attack.run()[0]
    side = torch.sign((weight * delta).sum())
    # A saturated delta is halved and driven up again.
    assert torch.equal(delta.sign(), side * weight.sign())
    assert float(delta.abs().max()) <= 0.1 + 1e-7


def test_losses_are_those_of_the_papers(small: Small) -> None:
    source, x = SourceModel(small.model.cpu(), find_layers(small.model)), small.x[:6].cpu()
    delta = 0.1 * (torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5)
    moved = (x + delta).clamp(0, 1)

    def loss(spec: AttackSpec) -> float:
        attack = attacks.build(spec, LINF, 10)
        with torch.no_grad():
            return float(attack.loss(delta, x, source, attack.start((1, 8, 8), 3)))

    def features(images: Tensor, name: str) -> Any:
        with torch.no_grad():
            return source(images, name)[name].numpy().astype(np.float64)

    low, second = features(moved, "stem"), features(moved, "low")
    assert loss(AttackSpec.of("l4a")) == pytest.approx(np.mean(low**2), rel=1e-5)
    fuse = np.mean(low**2) + 0.5 * np.mean(second**2)
    assert loss(AttackSpec.of("l4a", mode="fuse", lam=0.5)) == pytest.approx(fuse, rel=1e-5)
    clean, other = features(x, "middle"), features(moved, "middle")
    assert loss(AttackSpec.of("ssp")) == pytest.approx(np.mean((other**2 - clean**2) ** 2), rel=1e-4)
    unit = [
        f / np.linalg.norm(f, axis=1, keepdims=True)
        for f in (features(x, "penultimate"), features(moved, "penultimate"))
    ]
    assert loss(AttackSpec.of("x-transfer")) == pytest.approx(-np.mean(np.sum(unit[0] * unit[1], 1)), rel=1e-5)
    similar = unit[0] @ unit[1].T / 0.1
    contrast = np.mean(np.log(np.exp(similar).sum(1)) - np.diag(similar))
    spectrum = np.fft.fft2(delta.numpy().astype(np.float64))
    frequency = np.fft.fftfreq(8, 1 / 8)
    inside = np.hypot(frequency[:, None], frequency[None]) <= 1
    smooth = np.fft.ifft2(spectrum * inside).real
    assert np.allclose(low_frequencies(delta).numpy(), smooth, atol=1e-6)
    assert loss(AttackSpec.of("adv-encoder")) == pytest.approx(5 * contrast - np.mean(smooth**2), rel=1e-4)


def test_three_steps_are_those_of_numpy(linear: SourceModel) -> None:
    """Sign ascent of the mean square of w . clip(x + d), with the gradient that clipping leaves."""
    pool = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    weight = linear.model.get_submodule("layer1").weight.detach()[0].numpy().astype(np.float64)
    attack = attacks.build(AttackSpec.of("l4a", layer="layer1", steps=3, step=0.3, batch=2), LINF, 10)
    made = UniversalCrafting(linear, attack, (1, 8, 8), pool, (0, "Linf", "0.1"), "cpu", NO_CHECKPOINT)
    deltas: list[np.ndarray] = []
    step = attack.step

    def recording(state: Any, gradient: Tensor) -> Tensor:
        deltas.append(state["delta"][0].numpy().astype(np.float64))
        moved: Tensor = step(state, gradient)
        return moved

    attack.step = recording
    found = made.run()[0].numpy()
    delta, x = deltas[0], pool[0].numpy().astype(np.float64)
    for _ in range(3):
        seen = np.clip(x + delta, 0, 1)
        gradient = 2 * np.sum(weight * seen) * weight * ((x + delta >= 0) & (x + delta <= 1))
        delta = np.clip(delta + 0.03 * np.sign(gradient), -0.1, 0.1)
    assert np.allclose(found, delta, atol=1e-6)


@pytest.mark.parametrize("id", EVERY)
def test_a_delta_stays_in_the_ball_is_the_same_again_and_after_an_interruption(small: Small, id: str) -> None:
    source = SourceModel(small.model.cpu(), find_layers(small.model))
    pool = data.load("letters", "train").first(40).images
    spec = AttackSpec.of(id, steps=6, deltas=2, batch=1 if id == "fff" else 4)
    saved: list[dict[str, Any]] = []

    class Recording:
        def load(self) -> Any:
            return None

        def offer(self, make: Any) -> None:
            made = make()
            saved.append(
                {"done": list(made["done"]), "state": {name: part.clone() for name, part in made["state"].items()}}
            )

    whole = crafting(source, spec, (1, 8, 8), pool, Recording()).run()
    assert whole.shape == (2, 1, 8, 8)
    assert float(whole.abs().max()) <= 0.1 + 1e-7
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(crafting(source, spec, (1, 8, 8), pool).run(), whole)
    for place in (2, 5, 8):

        class Continued:
            load = partial(lambda at: saved[at], place)

            def offer(self, make: Any) -> None:
                pass

        assert torch.equal(crafting(source, spec, (1, 8, 8), pool, Continued()).run(), whole)


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18@64", "torchvision:mobilenet_v2@64", "torchvision:efficientnet_b0@64"]
)
def test_networks_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    built = networks.build(name, 4)
    source = SourceModel(built.model.eval(), built.layers)
    pool = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert source(pool, "stem")["stem"].dim() == 4
    for id in EVERY:
        delta = crafting(source, AttackSpec.of(id, steps=2, batch=1 if id == "fff" else 2), (3, 64, 64), pool).run()
        assert delta.shape == (1, 3, 64, 64)
        assert 0 < float(delta.abs().max()) <= 0.1 + 1e-7


def test_bad_values_are_refused_and_a_network_without_stages_by_name() -> None:
    for text, complaint in (
        ("l4a:mode=all", "is not one of base, fuse, ugs"),
        ("ssp:images=test", "is not one of target, source, gaussian"),
        ("fff:images=target", "is not one of none, gaussian"),
        ("x-transfer:steps=0", "steps=0 must be above 0"),
        ("adv-encoder:batch=1", "leaves no other image"),
    ):
        id, _, setting = text.partition(":")
        name, _, value = setting.partition("=")
        params: dict[str, Any] = {name: int(value) if value.isdigit() else value}
        with pytest.raises(InputError, match=complaint):
            attacks.build(AttackSpec.of(id, **params), LINF, 10)
    flat = SourceModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), Layers((), "1"))
    with pytest.raises(InputError, match="no stages"):
        crafting(flat, AttackSpec.of("ssp", steps=1), (1, 8, 8), torch.rand(2, 1, 8, 8)).run()
