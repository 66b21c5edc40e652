"""A public network as attacks use it that hold it alone: a copy where one agrees, itself elsewhere."""

from __future__ import annotations

import torch
from support.nets import Around, Small
from torch import Tensor

from transferbench import attacks, data
from transferbench.base.checkpoint import NO_CHECKPOINT
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.data import Dataset
from transferbench.engine.crafting import Crafting
from transferbench.engine.memory import Rows
from transferbench.engine.source_model import SourceModel
from transferbench.models.features import Layers, find_layers


def craft(source: SourceModel, shard: Dataset, spec: AttackSpec) -> Tensor:
    threat = ThreatModel.parse("Linf", "0.1")
    attack = attacks.build(spec, threat, len(shard.classes))
    return Crafting(source, attack, threat, shard, 0, Rows(64, 16), NO_CHECKPOINT).run()


def test_a_copy_crafts_the_points_of_the_network(small: Small) -> None:
    layers = find_layers(small.model)
    copied = SourceModel.prepare(small.model, layers, small.x[:16])
    plain = SourceModel(small.model, layers)
    assert copied.is_copy
    assert not plain.is_copy
    assert copied.rows > 0
    with torch.no_grad():
        for name in ("penultimate", "logits", "stem", "low", "middle", "late"):
            assert torch.allclose(copied(small.x, name)[name], plain(small.x, name)[name], atol=1e-4), name
        assert torch.allclose(copied(small.x, "logits")["logits"], small.model(small.x), atol=1e-4)
    shard = data.load("letters", "test").first(24).on(small.x.device)
    for spec in (AttackSpec.of("pretrained-neuron", neurons=2, n_iter=5), AttackSpec.of("source-pgd", k=5)):
        ours, theirs = craft(copied, shard, spec), craft(plain, shard, spec)
        # The sign of a gradient that is zero but for rounding may be another.
        assert float(torch.isclose(ours, theirs, atol=1e-6).float().mean()) > 0.98


class Mixing(Around):
    """Its answers depend on the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x - x.mean(0))


def test_a_network_that_cannot_be_copied_is_used_as_it_is(small: Small) -> None:
    mixing = Mixing(small.model).eval()
    source = SourceModel.prepare(mixing, find_layers(mixing), small.x[:16], copyable=False)
    assert not source.is_copy
    headless = SourceModel.prepare(small.model, Layers((), ""), small.x[:16])
    assert headless.is_copy, "its logits come from a copy; features are refused when asked for"
