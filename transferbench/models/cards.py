"""Model cards: what a victim is, who made it from what, and under which hash. No torch.

A card is Markdown with YAML front matter in Hugging Face's conventions (`base_model`, `datasets`, `tags`);
what loads the model stands in the block `transferbench:`. A card is untrusted input: it is read with a safe
YAML loader and checked field by field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from transferbench.base.errors import InputError
from transferbench.base.specifications import PREPROCESSING, ThreatModel

_FENCE = "---"


class CardResult(BaseModel):
    """One measured number, as an entry of Hugging Face's `model-index`: percent, over the first n of a split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["accuracy", "robust_accuracy"]
    name: str
    value: float = Field(ge=0, le=100)
    dataset: str
    split: str = "test"
    n: int = Field(ge=1)


class ModelCard(BaseModel):
    """The machine-readable part of a card.

    `threats` gives the radius of each norm the model is evaluated at by default, as text. `source` is the id
    of the victim it was fine-tuned from, empty for one trained from scratch. `preprocessing` is what an image of
    any size goes through before it is the pixels a victim is attacked on, in RobustBench's words (`Res256Crop224`:
    shorter side to 256, the middle 224); empty for data of the victim's own size. `untrained`: a smoke run wrote it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, pattern=r"^[\w.@:+/-]+$")
    network: str
    dataset: str
    classes: tuple[str, ...] = Field(min_length=2)
    input_shape: tuple[int, ...]
    method: str
    source: str = ""
    params: dict[str, str | int | float | bool | list[str] | list[float]] = {}
    seed: int | None = None
    shots: int | None = Field(default=None, ge=1)
    threats: dict[str, str] = {}
    weights: str = ""
    preprocessing: str = Field(default="", pattern=f"^{PREPROCESSING}$")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    validation_accuracy: float | None = Field(default=None, ge=0, le=1)
    versions: dict[str, str] = {}
    untrained: bool = False
    license: str = "mit"
    results: tuple[CardResult, ...] = ()
    text: str = ""

    @field_validator("id")
    @classmethod
    def _id(cls, given: str) -> str:
        if ".." in given.split("/") or given.startswith("/"):
            raise ValueError("must not look like a path")
        return given

    @field_validator("threats")
    @classmethod
    def _threats(cls, given: dict[str, str]) -> dict[str, str]:
        for norm, eps in given.items():
            ThreatModel.parse(norm, eps)
        return given

    @field_validator("weights")
    @classmethod
    def _weights(cls, given: str) -> str:
        # A card must not reach out of its own folder.
        if given and (Path(given).is_absolute() or ".." in Path(given).parts):
            raise ValueError("must be a file name inside the card's folder")
        return given


def write(card: ModelCard, body: str = "") -> str:
    """The card as Markdown text. `body` goes below the title (results, for a published card)."""
    from huggingface_hub import EvalResult, ModelCardData

    facts = card.model_dump(mode="json", exclude={"license", "results", "text"}, exclude_defaults=True)
    measured = [
        EvalResult(
            task_type="image-classification",
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            dataset_split=result.split,
            metric_type=result.metric,
            metric_name=result.name,
            metric_value=result.value,
            metric_args={"n": result.n},
        )
        for result in card.results
    ]
    data = ModelCardData(
        license=card.license,
        library_name="transferbench",
        tags=["adversarial-robustness", "transfer-learning", "image-classification"],
        datasets=[card.dataset],
        base_model=card.source or None,
        model_name=card.id if measured else None,
        eval_results=measured or None,
        transferbench=facts,
    )
    front: dict[str, Any] = data.to_dict()
    dumped = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110)
    text = card.text or f"# {card.id}\n"
    return f"{_FENCE}\n{dumped}{_FENCE}\n\n{text.strip()}\n" + (f"\n{body.strip()}\n" if body else "")


def read(path: Path) -> ModelCard:
    """The card in a Markdown file. InputError names the file, the field and what is wrong with it."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"card {path}: cannot be read ({error})") from None
    parts = content.split(f"{_FENCE}\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise InputError(f"card {path}: no YAML front matter between two lines of ---")
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        raise InputError(f"card {path}: the front matter is not YAML ({str(error).splitlines()[0]})") from None
    block = front.get("transferbench") if isinstance(front, dict) else None
    if not isinstance(block, dict):
        raise InputError(f"card {path}: the front matter has no block 'transferbench'")
    try:
        return ModelCard(**block, license=front.get("license", "mit"), results=_results(front), text=parts[2].strip())
    except (ValidationError, TypeError) as error:
        raise InputError(f"card {path}: {first_problem(error)}") from None


def _results(front: dict[str, Any]) -> tuple[CardResult, ...]:
    """The entries of `model-index` as `write` makes them. TypeError for anything else."""
    found: list[CardResult] = []
    try:
        for model in front.get("model-index", []):
            for entry in model["results"]:
                for metric in entry["metrics"]:
                    found.append(
                        CardResult(
                            metric=metric["type"],
                            name=metric["name"],
                            value=metric["value"],
                            dataset=entry["dataset"]["type"],
                            split=entry["dataset"]["split"],
                            n=metric["args"]["n"],
                        )
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise TypeError(f"model-index: not as this package writes it ({type(error).__name__}: {error})") from None
    return tuple(found)


def first_problem(error: Exception) -> str:
    """`threats.Linf: unknown norm ...`: the first complaint of a pydantic error in one line."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    problems = error.errors(include_url=False)
    place = ".".join(str(part) for part in problems[0]["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place or 'it'}: {problems[0]['msg']}{more}"
