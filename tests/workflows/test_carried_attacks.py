"""`all` stands for what a source can carry, on the command line and in Python; what cannot be had is refused first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import transferbench
from transferbench import data
from transferbench.base.errors import InputError
from transferbench.engine.source_model import SourceModel
from transferbench.models.features import find_layers
from transferbench.suites import SourceOnly
from transferbench.workflows.carried_attacks import carried, require_images


def flat(classes: int) -> nn.Module:
    """A network without stages and convolutions."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def protocol(*ids: str, queries: tuple[str, ...] = ()) -> SourceOnly:
    values = {"eps": "0.1", "attack": ids[0], "also": ids[1:], "control": "random-sign", "queries": queries}
    return SourceOnly.model_validate(values)


def test_all_is_what_the_network_has_layers_for() -> None:
    model = flat(5)
    network = SourceModel(model, find_layers(model))
    wanted = [protocol("source-ilpd", "source-pgd", "fff", "x-transfer", queries=("simba-ods",))]
    (kept,), notes = carried(network, "flat", wanted, every=True)
    assert [part.id for part in kept.parts] == ["source-pgd", "x-transfer", "random-sign"]
    assert [note.split()[2] for note in notes] == ["source-ilpd", "fff"]
    with pytest.raises(InputError, match=r"attack source-ilpd with flat: .* stages"):
        carried(network, "flat", wanted, every=False)


def test_query_attacks_begin_at_points_of_images() -> None:
    model = flat(5)
    network = SourceModel(model, find_layers(model))

    def start(*ids: str, queries: tuple[str, ...] = ("square-start",)) -> str:
        ((kept,), _) = carried(network, "flat", [protocol(*ids, queries=queries)], every=False)
        return kept.starting.id

    assert start("x-transfer", "source-mi", "source-pgd") == "source-mi"
    assert start("x-transfer", queries=("simba-ods",)) == "x-transfer"
    with pytest.raises(InputError, match="square-start begins at crafted points"):
        start("x-transfer")


def test_images_that_cannot_be_had_are_refused() -> None:
    test = data.load("digits", "test").first(4)

    def source(dataset: str) -> Any:
        return SimpleNamespace(id="given", card=SimpleNamespace(dataset=dataset))

    for images in ("target", "source", "gaussian", "none"):
        require_images(images, source("letters"), test, None)
    with pytest.raises(InputError, match="nothing says what given was trained on"):
        require_images("source", source("unknown"), test, None)
    require_images("target", source("unknown"), test, None)
    wide = SimpleNamespace(id="digits", preprocessing="", shape=(3, 8, 8))
    with pytest.raises(InputError, match=r"shape \(1, 8, 8\), those attacked of \(3, 8, 8\)"):
        require_images("source", source("letters"), wide, None)  # type: ignore[arg-type]


def test_in_python_all_is_what_the_network_has_layers_for() -> None:
    test = data.load("digits", "test").first(2)
    words: dict[str, Any] = {"threats": {"Linf": 0.1}, "attacks": "fgsm"}
    asked = "source-mi:n_iter=1,source-ilpd"
    with pytest.raises(InputError, match="attack source-ilpd with Sequential"):
        transferbench.evaluate(flat(10), test.pixels, test.labels, source=flat(5), attacks_source=asked, **words)
    with pytest.raises(InputError, match=r"attacker_images .*source="):
        transferbench.evaluate(flat(10), test.pixels, test.labels, attacker_images=test.pixels, **words)
