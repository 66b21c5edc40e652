"""YAML that would be changed or dropped silently is refused with its line; the rest is read as PyYAML reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from transferbench import suites
from transferbench.base import strict_yaml
from transferbench.base.errors import InputError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' is there twice \\(also in line 1\\)"),
        ("x: {<<: {a: 1}, <<: {b: 2}}\n", 1, "'<<' is there twice"),
        ("n: 1\nseed: 020\n", 2, "020 would be read as 16"),
        ("at: 1:30\n", 1, "1:30 would be read as 90"),
        ("at: 1:30.5\n", 1, "would be read as 90.5"),
        ("a: 1_000\n", 1, "1_000 would be read as 1000"),
        ("a: 0x1F\n", 1, "would be read as 31"),
        ("a: 0b11\n", 1, "would be read as 3"),
        ("a: -0123\n", 1, "would be read as -83"),
        *((f"a: {word}\n", 1, f"{word} would be read as (true|false)") for word in ("no", "yes", "on", "Off", "NO")),
        ("on: x\n", 1, "the key on is not text"),
        ("a: 2020-01-01\n", 1, "write it in quotes"),
        ("a: =\n", 1, "write it in quotes"),
        ("a:\n\tb: 1\n", 2, "a tab: indent with spaces"),
        ("a:\n  - b\n\t- c\n", 3, "a tab: indent with spaces"),
        ("1: x\n", 1, "the key 1 is not text"),
        ("~: x\n", 1, "the key ~ is not text"),
        ("[a, b]: x\n", 1, "the key in brackets is not text"),
        ("{a: b}: x\n", 1, "the key in brackets is not text"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "a tag"),
        ("a: !!int '020'\n", 1, "a tag"),
        ("a: !!binary aGVsbG8=\n", 1, "a tag"),
        ("a: !mine x\n", 1, "a tag"),
        ("a: !!set {x, y}\n", 1, "a tag"),
        (LAUGHS, 5, "more than 100000 values"),
        ("a: &a [*a]\n", 1, "inside of what it names"),
        ("a: &a {b: {c: *a}}\n", 1, "inside of what it names"),
        ("a: *b\n", 1, "undefined alias"),
        ("[" * 100_000, 1, "nested more than 50 levels"),
        ("- " * 5000 + "x", 1, "nested more than 50 levels"),
        ("{a: " * 3000, 1, "nested more than 50 levels"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\nb: \x00\n", 2, "#x0000"),
        ("a: {\n", 2, "not readable as YAML"),
        ("<<: 3\n", 1, "not plain YAML"),
        (f"a: {'1' * 5000}\n", 1, "300 digits"),
    ],
)
def test_what_would_be_changed_is_refused_with_its_line(text: str, line: int, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        strict_yaml.load(text, "file x")
    assert str(caught.value).startswith(f"file x, line {line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["1e-3", "8/255", "y", "n", "nope", "1.2.3", "0o17", "12a", "a:b", "C++"])
def test_what_is_no_number_stays_text(word: str) -> None:
    assert strict_yaml.load(f"a: {word}\n", "x") == {"a": word}


def test_quoted_words_are_text() -> None:
    assert strict_yaml.load("a: '020'\nb: \"no\"\n'1': '1:30'\n", "x") == {"a": "020", "b": "no", "1": "1:30"}


def test_anchors_and_merges_are_read() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n"
    assert strict_yaml.load(text, "f") == yaml.safe_load(text)


# PyYAML itself does not write all control characters and separators in a way that it reads.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_safe_dump_writes_comes_back(value: object) -> None:
    """Cards are written with it."""
    assert strict_yaml.load(yaml.safe_dump(value, allow_unicode=True), "x") == value


def test_files_of_the_package_read_as_before() -> None:
    for path in Path(suites.__file__).parent.glob("*.yaml"):
        assert strict_yaml.read(path, str(path)) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("content", [b"a: 1\nb: \xff\n", b"\xfe\xff"])
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"line \d: not UTF-8"):
        strict_yaml.read(tmp_path / "x.yaml", "x.yaml")


@pytest.mark.parametrize("name", ["", "nowhere", "x" * 300, "file/below", "loop"])
def test_paths_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="x: cannot be read"):
        strict_yaml.read(tmp_path / name, "x")
