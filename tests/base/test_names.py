"""Any folder's name becomes an id that a card takes, or is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferbench.base.errors import InputError
from transferbench.base.names import file_stem, short_network, victim_name
from transferbench.models.cards import ModelCard


def card(id: str) -> ModelCard:
    return ModelCard(id=id, network="n", dataset="d", classes=("a", "b"), input_shape=(1,), method="m")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/lwf", "lwf"),
        ("my victim", "my_victim"),
        ("v1 (2)", "v1_2"),
        ("epoch=3-val_acc=0.91.ckpt", "epoch_3-val_acc_0.91.ckpt"),
        ("_x_", "_x_"),
        (".hidden", "hidden"),
        ("modèle", "modèle"),
        ("mode\u0300le", "modèle"),
        ("模型", "模型"),
        ("a\nb", "a_b"),
        ("a:b", "a_b"),
        ("x/.", "x"),
        ("x/y/..", "x"),
    ],
)
def test_names_of_folders(folder: str, name: str) -> None:
    assert victim_name(Path(folder)) == name


def test_this_folder_and_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "above" / "this").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "this")
    assert [victim_name(Path(text)) for text in (".", "..", "./new")] == ["this", "above", "new"]


@pytest.mark.parametrize("folder", ["/", "???", "___", "...", "( )"])
def test_what_has_no_name_is_refused(folder: str) -> None:
    with pytest.raises(InputError, match="no letter or digit"):
        victim_name(Path(folder))


@given(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_every_name_is_an_id_and_a_file(name: str) -> None:
    try:
        id = victim_name(Path("runs") / name)
    except InputError:
        return
    assert card(id).id == id
    for stem in (file_stem(id), file_stem(name)):
        assert 0 < len(os.fsencode(stem)) <= 180
        assert "/" not in stem
        assert not stem.startswith(".")


def test_long_names_stay_apart() -> None:
    first, second = (victim_name(Path("x" * 300 + end)) for end in "ab")
    assert first != second
    assert file_stem("RB_Carmon2019Unlabeled@cifar10/Linf") == "RB_Carmon2019Unlabeled@cifar10_Linf"


def test_a_configuration_is_named_by_its_type() -> None:
    id = 'normalised:0.5/0.5:transformers:32:{"hidden_size":16,"model_type":"vit","patch_size":8}'
    assert short_network(id) == "normalised:0.5/0.5:transformers:32:vit"
    assert short_network("torchvision:resnet18") == "torchvision:resnet18"
