"""Records: what was measured of one victim in one suite, as committed JSON. Tables are functions of records.

A record holds per-example bits, not only rates, so that differences can be tested and unions formed. It is
untrusted input like any committed file: read field by field.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from transferbench.base.bits import pack_bits, unpack_bits
from transferbench.base.errors import InputError
from transferbench.base.ids import RANDOM_SIGN
from transferbench.base.specifications import Norm, ThreatName
from transferbench.models.cards import first_problem

UNTRAINED = "untrained"
"""The flag of what a smoke run made: it is never a row of a table, and never published."""


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bits(_Checked):
    """n verdicts, first example first, as hex; set = robust, correct or fooled, as the field's name says."""

    n: int = Field(ge=1)
    hex: str = Field(pattern=r"^[0-9a-f]+$")

    @model_validator(mode="after")
    def _length(self) -> Bits:
        unpack_bits(self.hex, self.n)
        return self

    @classmethod
    def of(cls, bits: list[bool]) -> Bits:
        return cls(n=len(bits), hex=pack_bits(bits))

    def list(self) -> list[bool]:
        return unpack_bits(self.hex, self.n)

    @property
    def count(self) -> int:
        return sum(self.list())


class ChainRecord(_Checked):
    """One chain: which examples survived all of it, what each attack broke, what it cost.

    `jobs` are the keys of its shards in the run's store, where the verdicts and end points of every example are.
    """

    name: str
    norm: Norm
    eps: str
    attacks: list[dict[str, Any]]
    robust: Bits
    by_attack: list[dict[str, Any]]
    ties: int = Field(ge=0)
    jobs: list[str]
    forwards: int = Field(ge=0)
    backwards: int = Field(ge=0)


class CraftedRecord(_Checked):
    """A set that was crafted with a source alone, shown to this victim.

    `flips[k]`: per example, whether it was correct on clean and the k-th try's point flipped it. "Any of k" is over
    the tries; the denominator is the clean-correct count, the other one n. `jobs` are the keys of the judging jobs.
    """

    source: str
    norm: ThreatName
    eps: str
    attack: dict[str, Any]
    flips: Annotated[list[Bits], Field(min_length=1)]
    jobs: list[str]

    def any_of(self, tries: int | None = None) -> int:
        """How many examples the first `tries` (all by default) of its tries flip."""
        return sum(any(flips) for flips in zip(*(bits.list() for bits in self.flips[:tries]), strict=True))


class Origin(_Checked):
    """What it takes to run it again: the command, the code's commit (empty where it was installed from a package;
    `dirty`: files differed from it), the suite as it was run, what was kept, the Python."""

    command: list[str]
    commit: str
    dirty: bool
    suite: dict[str, Any]
    keep_examples: str
    python: str


class Stamp(_Checked):
    """`verify`'s seal: the sha256 of the record without it, and of every example file, by path in the run's folder.

    `points` were checked again; `changed_ties` predictions fell the other way within a tie's margin, and
    `disagreements` beyond it (more than none only where the network itself is flagged randomised).
    """

    record: str
    examples: dict[str, str]
    version: str
    points: int = Field(ge=0)
    changed_ties: int = Field(ge=0)
    disagreements: int = Field(ge=0)


class Record(_Checked):
    """Everything that was measured of a victim. What varies from machine to machine is in `cost` and `origin`."""

    schema_version: Literal[2] = 2
    suite: str
    protocol: str
    role: Literal["source", "victim"]
    victim: str
    method: str
    source: str
    network: str
    source_dataset: str
    target_dataset: str
    seed: int
    n: int = Field(ge=1)
    data_fingerprint: str
    class_counts: list[int]
    weights_sha256: str
    flags: list[str]
    clean: Bits
    clean_full: tuple[int, int] | None = None
    chains: list[ChainRecord]
    crafted: list[CraftedRecord] = []
    clean_full_job: str = ""
    versions: dict[str, str]
    precision: Literal["fp32"] = "fp32"
    folded: bool
    origin: Origin
    stamp: Stamp | None = None
    cost: dict[str, str | int | float]

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        """A robust example must be correct on clean, and all parts must speak of the same n examples."""
        clean = self.clean.list()
        parts = [("clean", self.clean), *((chain.name, chain.robust) for chain in self.chains)]
        parts += [(crafted.attack["id"], flips) for crafted in self.crafted for flips in crafted.flips]
        for name, bits in parts:
            if bits.n != self.n:
                raise ValueError(f"{name} has {bits.n} verdicts, the record says n={self.n}")
            if any(set_ and not correct for set_, correct in zip(bits.list(), clean, strict=True)):
                raise ValueError(f"{name} counts an example that was wrong on clean")
        return self

    def crafted_set(self, attack: str, source: str | None = None, threat: ThreatName = "Linf") -> CraftedRecord | None:
        """The set that an attack crafted with a source, by default the victim's own; None where there is none."""
        wanted = (attack, self.source if source is None else source, threat)
        return next((one for one in self.crafted if (one.attack["id"], one.source, one.norm) == wanted), None)

    def control(self, threat: ThreatName = "Linf") -> CraftedRecord | None:
        """The noise control. Random signs are the same whichever source they are named after."""
        return next((one for one in self.crafted if (one.attack["id"], one.norm) == (RANDOM_SIGN, threat)), None)

    def chain(self, name: str) -> ChainRecord | None:
        return next((chain for chain in self.chains if chain.name == name), None)


def digest(record: Record) -> str:
    """64 hex digits of the record without its stamp: what a stamp vouches for."""
    return hashlib.sha256(dump(record.model_copy(update={"stamp": None})).encode()).hexdigest()


def stamped(record: Record) -> bool:
    """Whether the record carries a stamp, and has not changed since."""
    return record.stamp is not None and record.stamp.record == digest(record)


def dump(record: Record) -> str:
    """The record as JSON text: sorted keys, one line per leaf, a final newline; equal records, equal bytes."""
    return json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path) -> Record:
    """A record file. InputError names the file and what is wrong with it."""
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"record {path}: cannot be read ({error})") from None
    except (ValidationError, InputError) as error:
        raise InputError(f"record {path}: {first_problem(error)}") from None


def read_all(folder: Path) -> list[Record]:
    """The records of a leaderboard's folder, sorted by file name. InputError when there is none."""
    paths = sorted((folder / "records").glob("*.json"))
    if not paths:
        raise InputError(f"leaderboard {folder}: there are no records in {folder / 'records'}")
    return [read(path) for path in paths]
