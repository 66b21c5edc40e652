from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from conftest import Small

from transferbench import victims
from transferbench.cards import ModelCard
from transferbench.types import InputError
from transferbench.victims import trained, weights


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
    trained.save(tmp_path / "mine", small.model, card)
    return tmp_path / "mine"


def test_a_trained_victim_comes_back_as_it_was(folder: Path, small: Small) -> None:
    for name in (folder, folder / "README.md"):
        victim = victims.load(str(name))
        assert torch.equal(victim.model(small.x), small.model(small.x))
        assert not any(module.training for module in victim.model.modules())
        assert victim.sha256 == weights.sha256_of(folder / "model.safetensors")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(Path(__file__).parent / "evil-was-here"), "w"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pt", b"", "is empty"),
        ("a.pt", b"<!DOCTYPE html><html>quota", "HTML page"),
        ("a.pt", b"\n  <html>", "HTML page"),
        ("a.pt", pickle.dumps(Evil()), "damaged or unsafe"),
        ("a.pt", pickle.dumps({"state_dict": {"x": 1}}), "no dictionary of tensors|damaged or unsafe"),
        ("a.safetensors", b"\x10\x00\x00\x00", "damaged or unsafe"),
    ],
)
def test_what_is_no_weights_file_is_named_as_what_it_is(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        weights.read(tmp_path / name)
    assert not (Path(__file__).parent / "evil-was-here").exists()


def test_a_truncated_torch_file_is_refused(tmp_path: Path, small: Small) -> None:
    torch.save(small.model.state_dict(), tmp_path / "a.pt")
    weights.load_strictly(small.model, weights.read(tmp_path / "a.pt"), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or unsafe"):
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
