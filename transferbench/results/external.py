"""The schema of an external evaluation: what somebody else's attack did to a victim of this folder, as a JSON file.

`leaderboard import` writes it. Adversarial points were judged here, by the original model; verdicts alone are a claim.
It is untrusted input: every field is checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import Norm
from transferbench.base.strict_model import StrictModel, read_json
from transferbench.results.records import Bits, ChainRecord, Record

FOLDER = "external"
_LONGEST_NAME, _LONGEST_LINK = 200, 500
Percent = Annotated[float, Field(ge=0, le=100)]


def checked_author(by: str) -> str:
    """The name. InputError for one that is empty, too long, or not a line of printable text."""
    if not by.strip() or len(by) > _LONGEST_NAME or not by.isprintable():
        raise InputError(f"by {by[:40]!r}: write a name of 1 to {_LONGEST_NAME} printable characters, in a line")
    return by


def checked_link(link: str) -> str:
    """The address, or nothing. InputError for what is no http or https address."""
    if link and (len(link) > _LONGEST_LINK or not link.isprintable() or not re.fullmatch(r"https?://\S+", link)):
        raise InputError(f"link {link[:40]!r}: write an http(s) address of at most {_LONGEST_LINK} characters")
    return link


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
    by: Annotated[str, AfterValidator(checked_author)]
    link: Annotated[str, AfterValidator(checked_link)] = ""
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
        return f"{file_stem(f'{self.victim}-{self.norm}-{self.eps}-{self.by}')}.json"

    def chain(self, record: Record) -> ChainRecord | None:
        """The record's own chain under the same threat, or None."""
        same = (chain for chain in record.chains if (chain.norm, chain.eps) == (self.norm, self.eps))
        return next((chain for chain in same if chain.name.partition("@")[0] == chain.norm), None)


def write(folder: Path, evaluation: ExternalEvaluation) -> Path:
    """Write it to external/ of a run's or board's folder; returns the file.

    It replaces an earlier one of the same author, threat and kind of evidence. InputError where the file of that name
    is another's, or has points and this one has verdicts alone (or the reverse).
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / evaluation.file_name
    if path.exists():
        earlier = read_json(ExternalEvaluation, path)
        if _identity(earlier) != _identity(evaluation):
            raise InputError(
                f"{path}: has the {earlier.evidence} of {earlier.by!r} at {earlier.norm} {earlier.eps} already: give "
                "another --by, or delete it"
            )
    atomic_files.write_text(path, evaluation.model_dump_json(indent=1) + "\n")
    return path


def _identity(one: ExternalEvaluation) -> tuple[str, ...]:
    return (one.victim, one.norm, one.eps, one.by, one.evidence)


def read_all(folder: Path, records: Sequence[Record]) -> list[ExternalEvaluation]:
    """Those of a folder, sorted by file name. InputError for a damaged file, or one about another victim, other weights
    or examples than the records'."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        one = read_json(ExternalEvaluation, path)
        record = next((record for record in records if record.victim == one.victim), None)
        if record is None:
            raise InputError(f"{path}: is about {one.victim}, of which there is no record: delete it")
        same = (record.weights_sha256, record.data_fingerprint, record.n_chains)
        if (one.weights_sha256, one.data_fingerprint, one.fooled.n) != same:
            raise InputError(
                f"{path}: is about other weights or examples than the record of {one.victim} now: import it again or "
                "delete it"
            )
        if one.fooled.number & ~record.clean_of_chains.number:
            raise InputError(f"{path}: counts an example that was wrong on clean")
        found.append(one)
    return found
