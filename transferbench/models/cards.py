"""Model cards: network, classes, training and weights' hash of a victim, as Markdown. Imports no torch.

The YAML front matter follows Hugging Face's conventions (`base_model`, `datasets`, `tags`); the block `transferbench:`
holds the fields that load the model. A card is untrusted input: strict_yaml reads it and every field is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from transferbench.base import strict_yaml
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.radius import Radius
from transferbench.base.specifications import PREPROCESSING, Epsilon, Norm, ThreatModel, content_hash
from transferbench.base.strict_model import StrictModel, first_problem

_FENCE = "---"


class CardResult(StrictModel):
    """One entry of Hugging Face's `model-index`: a metric in percent over the first n examples of a split."""

    metric: Literal["accuracy", "robust_accuracy"]
    name: str
    value: float = Field(ge=0, le=100)
    dataset: str
    split: str = "test"
    n: int = Field(ge=1)


class ModelCard(StrictModel):
    """The machine-readable part of a card.

    `preset_of` is the method whose setting `method` names, empty where it is a method itself.
    `threats` maps each norm to the radius of an evaluation by default (`Linf: 8/255`). `source` is the id of
    the victim that was fine-tuned, empty for training from scratch; `head`: whether its classifier was kept.
    `preprocessing` turns photographs of any size into the pixels that are attacked, in RobustBench's notation
    (`Res256Crop224`: shorter side to 256, centre crop of 224),
    empty for images of the network's own size. `weights` is the file's name in the card's folder,
    `weights_notes` what was chosen when a file of another project was read, one line a choice. `untrained` marks
    the result of a smoke run.
    """

    id: str = Field(min_length=1, pattern=r"^[\w.@:+/-]+$")
    network: str
    dataset: str
    classes: tuple[str, ...] = Field(min_length=2)
    input_shape: tuple[int, ...]
    method: str
    preset_of: str = ""
    source: str = ""
    head: Literal["", "kept", "new"] = ""
    params: dict[str, str | int | float | bool | list[str] | list[float]] = Field(default={})
    seed: int | None = None
    shots: int | None = Field(default=None, ge=1)
    shots_rule: Literal["", "renofeation"] = ""
    threats: dict[Norm, Radius] = Field(default={})
    weights: str = ""
    weights_notes: tuple[str, ...] = ()
    preprocessing: str = Field(default="", pattern=f"^{PREPROCESSING}$")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    validation_accuracy: float | None = Field(default=None, ge=0, le=1)
    versions: dict[str, str] = Field(default={})
    untrained: bool = False
    license: str = "mit"
    results: tuple[CardResult, ...] = ()
    text: str = ""

    @property
    def identity(self) -> str:
        """32 hex digits: the weights with all that decides which function of which images they are."""
        return content_hash(self.sha256, self.network, list(self.classes), list(self.input_shape), self.preprocessing)

    @field_validator("id")
    @classmethod
    def _id(cls, id: str) -> str:
        if ".." in id.split("/") or id.startswith("/"):
            raise ValueError("must not look like a path")
        return id

    @field_validator("threats")
    @classmethod
    def _threats(cls, threats: dict[Norm, Epsilon]) -> dict[Norm, Epsilon]:
        for norm, eps in threats.items():
            ThreatModel(norm, eps)
        return threats

    @field_validator("weights")
    @classmethod
    def _weights(cls, name: str) -> str:
        if name and (Path(name).is_absolute() or ".." in Path(name).parts):
            raise ValueError("must be a file name inside the card's folder")
        return name


def write(card: ModelCard, body: str = "") -> str:
    """The card as Markdown text, with `body` (results of a published victim) at its end."""
    from huggingface_hub import EvalResult, ModelCardData

    fields = card.model_dump(mode="json", exclude={"license", "results", "text"}, exclude_defaults=True)
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
        # The hub knows data sets, not subsets of their classes.
        datasets=[DatasetId.parse(card.dataset).base],
        base_model=card.source or None,
        model_name=card.id if measured else None,
        eval_results=measured or None,
        transferbench=fields,
    )
    front: dict[str, Any] = data.to_dict()
    dumped = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=110)
    text = card.text or f"# {card.id}\n"
    return f"{_FENCE}\n{dumped}{_FENCE}\n\n{text.strip()}\n" + (f"\n{body.strip()}\n" if body else "")


def read(path: Path) -> ModelCard:
    """The card in a Markdown file. InputError with the file, the field and the reason."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"card {path}: cannot be read ({error})") from None
    parts = content.split(f"{_FENCE}\n", 2)
    if len(parts) != 3 or parts[0].strip():
        raise InputError(f"card {path}: no YAML front matter between two lines of ---")
    front = strict_yaml.load(parts[1], f"card {path}", first_line=2)
    block = front.get("transferbench") if isinstance(front, dict) else None
    if not isinstance(block, dict):
        raise InputError(f"card {path}: the front matter has no block 'transferbench'")
    try:
        return ModelCard(**block, license=front.get("license", "mit"), results=_results(front), text=parts[2].strip())
    except (ValidationError, TypeError) as error:
        raise InputError(f"card {path}: {first_problem(error)}") from None


def _results(front: dict[str, Any]) -> tuple[CardResult, ...]:
    """The entries of `model-index` as `write` formats them. TypeError for anything else."""
    results: list[CardResult] = []
    try:
        for model in front.get("model-index", []):
            for entry in model["results"]:
                for metric in entry["metrics"]:
                    results.append(
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
    return tuple(results)
