from __future__ import annotations

import pytest

from transferbench.base import dataset_id
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError


@pytest.mark.parametrize(
    ("text", "base", "items"),
    [
        ("cifar100", "cifar100", ()),
        ("cifar100[0-49]", "cifar100", ("0-49",)),
        ("cifar10[airplane,ship]", "cifar10", ("airplane", "ship")),
        ("folder:/a/b[cat,hot dog]", "folder:/a/b", ("cat", "hot dog")),
        ("folder:/a[b]/", "folder:/a[b]/", ()),
        ("folder:/a[b/c", "folder:/a[b/c", ()),
        ("folder:/a[b]/c[x,y]", "folder:/a[b]/c", ("x", "y")),
    ],
)
def test_an_id_is_a_data_set_and_classes(text: str, base: str, items: tuple[str, ...]) -> None:
    parsed = DatasetId.parse(text)
    assert parsed == (base, items)
    assert str(parsed) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cifar100[0-49", "close the bracket"),
        ("[0-4]", r"as cifar100\[0-49\]"),
        ("cifar100]", r"as cifar100\[0-49\]"),
        ("cifar100[]", "without spaces"),
        ("cifar100[1,]", "without spaces"),
        ("cifar100[1, 2]", "without spaces"),
        ("cifar100[1,2,1]", "class 1 is named twice"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        DatasetId.parse(text)


def test_the_plugin_is_that_of_the_whole_data_set() -> None:
    assert dataset_id.find("cifar100[0-49]").id == "cifar100"
    assert dataset_id.find("folder:/a[x,y]").id == "folder"
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        dataset_id.find("cifar1000[0-4]")
    with pytest.raises(InputError, match="takes nothing behind a colon"):
        dataset_id.find("digits:8[0-4]")


def test_names_of_victims_hold_no_brackets_and_differ() -> None:
    assert DatasetId.parse("cifar100").name == "cifar100"
    assert DatasetId.parse("cifar100[0-49]").name == "cifar100_0-49"
    assert DatasetId.parse("letters[A,C,0-1]").name == "letters_A+C+0-1"
    odd = [DatasetId.parse(f"folder:x[{item},b]").name for item in ("a?", "a!", "a" * 70, "a" * 71)]
    assert len(set(odd)) == len(odd)
    assert all(len(name) < 90 and not set(name) & set("[],?!") for name in odd)
