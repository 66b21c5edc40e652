from __future__ import annotations

from pathlib import Path

import pytest

from transferbench.base.errors import InputError
from transferbench.models import cards
from transferbench.models.cards import CardResult, ModelCard

CARD = ModelCard(
    id="lwf-s0",
    network="small-resnet",
    dataset="digits",
    classes=("0", "1"),
    input_shape=(1, 8, 8),
    method="lwf",
    source="letters-madry-s0",
    params={"lr": 0.004, "schedule": "onecycle", "steps": 400},
    seed=0,
    threats={"Linf": "8/255", "L1": "12"},
    weights="model.safetensors",
    sha256="a" * 64,
    results=(
        CardResult(metric="accuracy", name="clean", value=92.5, dataset="digits", n=200),
        CardResult(metric="robust_accuracy", name="Linf 0.1", value=53.5, dataset="digits", n=200),
    ),
    text="# lwf-s0\n\nA victim.",
)


def test_reading_and_writing_changes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    path.write_text(cards.write(CARD))
    again = cards.read(path)
    assert again == CARD
    assert cards.write(again) == path.read_text()


def test_the_front_matter_is_that_of_hugging_face(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard as Theirs

    data = Theirs(cards.write(CARD)).data
    assert data.base_model == "letters-madry-s0"
    assert data.datasets == ["digits"]
    assert data.library_name == "transferbench"
    clean, robust = data.eval_results
    assert (clean.metric_type, clean.metric_value, clean.dataset_type, clean.dataset_split) == (
        "accuracy",
        92.5,
        "digits",
        "test",
    )
    assert (robust.metric_name, robust.metric_args) == ("Linf 0.1", {"n": 200})


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("Linf: 8/255", "Linf: '8'", "threats: .*over 1"),
        ("Linf: 8/255", "L9: 8/255", "threats.L9.*should be 'Linf', 'L2' or 'L1'"),
        ("weights: model.safetensors", "weights: ../../etc/passwd", "weights: .*inside the card's folder"),
        ("weights: model.safetensors", "weights: /etc/passwd", "weights: .*inside the card's folder"),
        ("id: lwf-s0", "id: a/../b", "id: .*must not look like a path"),
        ("id: lwf-s0", "id: a b", "id: String should match"),
        ("  network:", "  netwrok:", "network: Field required"),
        ("sha256: a", "sha256: z", "sha256"),
        ("value: 92.5", "value: 925", "value: .*less than or equal to 100"),
        ("    - type: accuracy", "    - typ: accuracy", "model-index: not as this package writes it"),
        ("---\n", "", "no YAML front matter"),
        ("transferbench:\n", "other:\n", "no block 'transferbench'"),
    ],
)
def test_a_hostile_or_broken_card_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "card.md"
    text = cards.write(CARD)
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=complaint) as caught:
        cards.read(path)
    assert "\n" not in str(caught.value)
