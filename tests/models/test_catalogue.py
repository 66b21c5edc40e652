"""Public models by name: all of RobustBench's resolve, the index is the installed package's, cards round-trip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transferbench.base.errors import InputError
from transferbench.models import cards, catalogue, make_index, victims
from transferbench.models.catalogue import classes, robustbench


def test_the_index_is_that_of_the_installed_package() -> None:
    assert [{**vars(entry), "files": list(entry.files)} for entry in robustbench.entries()] == make_index.index()
    assert list(classes.of("imagenet")) == make_index.imagenet_classes()


def test_every_model_of_robustbench_resolves_by_its_full_id() -> None:
    assert len(robustbench.entries()) == 206
    ids = {entry.id for entry in robustbench.entries()}
    for entry in robustbench.entries():
        assert robustbench.resolve(entry.name) is entry
        assert robustbench.resolve(f"RB_{entry.id}@{entry.dataset}/{entry.threat}") is entry
        # robust-finetuning's spelling, unless it is somebody else's id in full.
        spelt = f"{entry.id}_{entry.threat}"
        if spelt in ids:
            continue
        other = robustbench.resolve(f"RB_{spelt}")
        assert (other.id, other.threat) == (entry.id, entry.threat)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("RB_Carmon2019", "RB_Carmon2019Unlabeled@cifar10/Linf"),
        ("RB_Carmon2019Unlabeled", "RB_Carmon2019Unlabeled@cifar10/Linf"),
        ("RB_Standard", "RB_Standard@cifar10/Linf"),
        ("RB_Standard@cifar10/L2", "RB_Standard@cifar10/L2"),
        ("RB_Standard_L2", "RB_Standard@cifar10/L2"),
        ("RB_Standard_corruptions", "RB_Standard@cifar10/corruptions"),
        ("RB_Standard@imagenet", "RB_Standard_R50@imagenet/Linf"),
        ("RB_Salman2020Do_R18", "RB_Salman2020Do_R18@imagenet/Linf"),
        ("RB_Engstrom2019Robustness@imagenet", "RB_Engstrom2019Robustness@imagenet/Linf"),
        ("RB_Rice2020Overfitting@cifar100", "RB_Rice2020Overfitting@cifar100/Linf"),
        ("RB_Rice2020Overfitting", "RB_Rice2020Overfitting@cifar10/Linf"),
        # An exact id beats every longer one that begins with it.
        ("RB_Wu2020Adversarial", "RB_Wu2020Adversarial@cifar10/Linf"),
    ],
)
def test_short_ids(given: str, expected: str) -> None:
    assert robustbench.resolve(given).name == expected


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("RB_Rade2021Helper", "ambiguous: RB_Rade2021Helper_.*, RB_Rade2021Helper_"),
        ("RB_Carmon2020Unlabeled", "did you mean 'Carmon2019Unlabeled'"),
        ("RB_Carmon2019@mnist", "unknown RobustBench data set 'mnist'"),
        ("RB_Carmon2019@cifar10/L1", "unknown RobustBench threat 'L1'"),
        ("RB_Carmon2019@cifar100", "unknown RobustBench model 'Carmon2019'"),
        ("RB_", "unknown RobustBench model ''"),
    ],
)
def test_ids_that_name_none_or_several(given: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        robustbench.resolve(given)


def test_reading_and_writing_a_public_card_changes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    for id in (*catalogue.lines(), "AA_ResNet18", "pretr_Linf", "pretr_L2", "pretr_L1"):
        card = catalogue.card(id) if id.startswith(("torchvision:", "RB_")) else victims.card(id)
        if id.startswith("torchvision:"):
            assert card is None
            continue
        assert card is not None
        assert card.id == id
        assert len(card.classes) == {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[card.dataset]
        assert set(card.threats) == {"Linf", "L2", "L1"}
        path.write_text(cards.write(card))
        assert cards.read(path) == card
        assert cards.write(cards.read(path)) == path.read_text()


def test_class_names_are_those_of_the_official_files() -> None:
    names = classes.of("cifar100")
    assert len(set(names)) == 100
    assert list(names) == sorted(names), "CIFAR-100 numbers its fine labels alphabetically"
    assert classes.of("cifar10")[:3] == ("airplane", "automobile", "bird")
    assert list(classes.of("imagenet")) == sorted(classes.of("imagenet"))


def test_the_catalogue_needs_no_torch() -> None:
    code = (
        "import sys; from transferbench.models import catalogue; catalogue.lines(); catalogue.card('RB_Carmon2019'); "
    )
    code += "sys.exit('torch' in sys.modules or 'robustbench' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
