"""A set of one image has no other image to take a perturbation from."""

from __future__ import annotations

import pytest
import torch

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.base.specifications import ThreatModel
from transferbench.engine import controls
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.networks import PublicNetwork
from transferbench.scheduling.crafted_plan import AttackersSource, source_only_shards
from transferbench.suites import SourceOnly


def controls_of(*shards: ImagesInput) -> list[object]:
    network = PublicNetwork("letters-madry")
    text = {"eps": "0.1", "attack": "source-mi", "control": "random-sign:draws=1"}
    protocol = SourceOnly.model_validate(text)
    made = source_only_shards(network, AttackersSource(network), protocol, list(shards), 0)
    ids = [one.craft.attack.as_dict() for one in made]
    return sorted({str(spec["id"]) for spec in ids if "of" in spec})


def test_a_shard_of_one_image_has_no_other_one() -> None:
    one, rest = ImagesInput("digits", "", 256, 257), ImagesInput("digits", "", 0, 256)
    assert controls_of(rest) == ["other-image", "shuffled"]
    assert controls_of(ImagesInput("digits", "", 0, 1)) == ["shuffled"]
    assert controls_of(rest, one) == ["shuffled"], "of all images or of none"
    shard = data.load("digits", "test").first(1)
    with pytest.raises(InputError, match="two images"):
        controls.changed_points(
            "other-image", shard, torch.zeros(1, 1, *shard.shape), ThreatModel.parse("Linf", "0.1"), 0
        )
