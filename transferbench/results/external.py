"""The schema of an external evaluation: what somebody else's attack did to a victim of this folder, as a JSON file.

`leaderboard import` writes it. Adversarial points were judged here, by the original model; verdicts alone are a claim.
It is untrusted input: every field is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import Norm
from transferbench.base.strict_model import StrictModel, first_problem
from transferbench.results.records import Bits, ChainRecord, Record

FOLDER = "external"
Percent = Annotated[float, Field(ge=0, le=100)]


class ExternalEvaluation(StrictModel):
    """Another tool's evaluation of `victim` under one norm, on the first n examples of the record.

    `evidence`: `points` were judged here, `verdicts` are a claim. `fooled`: the examples that are right on the clean
    image and wrong at their point, or are said to be. `claimed`: the robust accuracy that was claimed, in percent. Of
    points: `inadmissible`, how many of the n lie outside the ball or the box, which count as no attack; `whole`:
    (robust, all) of all points of the file, which may be more than n. `sha256` is the file's.
    """

    victim: str
    weights_sha256: str
    data_fingerprint: str
    norm: Norm
    eps: str
    by: str = Field(min_length=1, max_length=200)
    link: str = Field(default="", max_length=500)
    evidence: Literal["points", "verdicts"]
    fooled: Bits
    claimed: Percent | None = None
    inadmissible: int = Field(default=0, ge=0)
    whole: tuple[int, int] | None = None
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _consistent(self) -> ExternalEvaluation:
        if (self.evidence == "points") != (self.whole is not None):
            raise ValueError("points have a count over the whole file, verdicts have none")
        return self

    @property
    def file_name(self) -> str:
        return f"{file_stem(f'{self.victim}-{self.norm}-{self.by}')}.json"

    def chain(self, record: Record) -> ChainRecord | None:
        """The record's own chain under the same threat, or None."""
        same = (chain for chain in record.chains if (chain.norm, chain.eps) == (self.norm, self.eps))
        return next((chain for chain in same if chain.name.partition("@")[0] == chain.norm), None)


def write(folder: Path, evaluation: ExternalEvaluation) -> Path:
    """Write it to external/ of a run's or board's folder; returns the file."""
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / evaluation.file_name
    atomic_files.write_text(path, evaluation.model_dump_json(indent=1) + "\n")
    return path


def read_all(folder: Path, records: Sequence[Record]) -> list[ExternalEvaluation]:
    """Those of a folder, sorted by file name. InputError for a damaged file, or one about another victim, other weights
    or examples than the records'."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            one = ExternalEvaluation.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        except (ValidationError, InputError) as error:
            raise InputError(f"{path}: {first_problem(error)}") from None
        record = next((record for record in records if record.victim == one.victim), None)
        if record is None:
            raise InputError(f"{path}: is about {one.victim}, of which there is no record: delete it")
        same = (record.weights_sha256, record.data_fingerprint, record.n)
        if (one.weights_sha256, one.data_fingerprint, one.fooled.n) != same:
            raise InputError(
                f"{path}: is about other weights or examples than the record of {one.victim} now: import it again or "
                "delete it"
            )
        if one.fooled.number & ~record.clean.number:
            raise InputError(f"{path}: counts an example that was wrong on clean")
        found.append(one)
    return found
