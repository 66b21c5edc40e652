"""Which networks a method can train: the table of docs/methods.md asks the methods, `list methods` reads files."""

from __future__ import annotations

import pytest
from support import method_networks

from transferbench.base import registry
from transferbench.models import networks
from transferbench.workflows import catalogue

_OF_NEED = {"named stages": "convolutions, no stages", "batch norm": "transformer"}
"""A kind of network that lacks what is needed."""


def test_list_says_what_the_methods_themselves_refuse() -> None:
    lines = catalogue.lines("methods")
    lacking = {need: method_networks.KINDS[kind]() for need, kind in _OF_NEED.items()}
    for id, (method, given) in method_networks.variants().items():
        if given:
            continue
        refused = {need for need, network in lacking.items() if not method_networks.trains(method, {}, network)}
        said = {need for need in _OF_NEED if f"; the network needs {need}" in lines[id]}
        assert said == refused, id
    literals = [registry.literal(entry, "NEEDS").get(id) for id, entry in registry.entries("methods").items()]
    assert {need for need in literals if need} == set(_OF_NEED)


def test_an_error_that_is_no_refusal_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = registry.find("methods", "twins").load()
    monkeypatch.setattr(module.twin_norms, "insert", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method_networks.trains("twins", {}, method_networks.KINDS["transformer"]())


def test_the_kinds_are_what_they_are_called() -> None:
    made = {kind: make() for kind, make in method_networks.KINDS.items()}
    assert len(networks.build("small-resnet", 10)[1].stages) == 4
    assert [kind for kind, one in made.items() if not one.layers.stages] == [
        "convolutions, no stages",
        "linear layers alone",
    ]
    assert [kind for kind, one in made.items() if not one.layers.head] == ["two heads (distilled DeiT)"]
