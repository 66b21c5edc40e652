"""The schema of a record: all measurements of one victim in one suite, as a JSON file. Tables derive from records.

A record holds one bit per example, not only rates, so that differences can be tested and unions formed. It is untrusted
input: every field is checked.
"""

from __future__ import annotations

import hashlib
import json
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from transferbench.base.bits import pack_bits, pack_number, unpack_bits, unpack_number
from transferbench.base.corruptions import CorruptionThreat, benchmark
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.ids import CONTROLS, RANDOM_SIGN
from transferbench.base.results import FileFormat
from transferbench.base.specifications import Norm, ThreatName
from transferbench.base.strict_model import StrictModel, read_json

UNTRAINED = "untrained"
"""The flag of a smoke run's results, which are never a row of a table and never published."""


class Bits(StrictModel):
    """One bit for each of n examples, in order, as hex. The field's name is the meaning of a 1."""

    n: int = Field(ge=1)
    hex: str = Field(pattern=r"^[0-9a-f]+$")

    @model_validator(mode="after")
    def _length(self) -> Bits:
        unpack_number(self.hex, self.n)
        return self

    @classmethod
    def of(cls, bits: list[bool]) -> Bits:
        """The bits of a list."""
        return cls(n=len(bits), hex=pack_bits(bits))

    @classmethod
    def of_number(cls, number: int, n: int) -> Bits:
        """The bits of a whole number (base/bits.py)."""
        return cls(n=n, hex=pack_number(number, n))

    def list(self) -> list[bool]:
        """The bits as a list of n."""
        return unpack_bits(self.hex, self.n)

    @property
    def number(self) -> int:
        """The bits as a whole number (base/bits.py): `&` and `|` join sets of examples."""
        return unpack_number(self.hex, self.n)

    @property
    def count(self) -> int:
        """The number of ones."""
        return self.number.bit_count()

    def first(self, n: int) -> Bits:
        """The bits of the first n examples."""
        return self if n == self.n else Bits.of_number(self.number >> (self.n - n), n)


class SparseModel(StrictModel):
    """A part of a record that came to have more fields: those of `newer` are left out of the file while they hold
    nothing, so that a record without them has the bytes, and the stamp, that it had before."""

    newer: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _sparse(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {
            name: value for name, value in values.items() if name not in self.newer or value not in (None, [], {}, "")
        }


class DrawsRecord(StrictModel):
    """How a randomised victim was attacked and judged (base/results.DrawCounts): `eot` draws of each attack's
    gradients, verdicts on the mean softmax of `draws` others; `robust` examples by each of the judge's seeds, the
    first of which decides, and by a `single` draw."""

    eot: list[int]
    draws: int = Field(ge=1)
    robust: Annotated[list[int], Field(min_length=1)]
    single: int = Field(ge=0)


class FileRecord(StrictModel):
    """Fooling points saved as image files: `fooling`, the examples of which one still fools when it is read again, and
    `control`, those of them all whose clean image, saved likewise, is misclassified (base/results.FileVerdicts)."""

    format: FileFormat
    fooling: Bits
    control: Bits


class ChainRecord(SparseModel):
    """One chain: `robust`, the examples that survived all attacks, the counts of each attack, and the passes.

    `backend` is the engine where it is not this package's. `ties` counts verdicts with a logit margin below 1e-4 of
    the logit range. `jobs` are the keys of the shards' jobs in the run's store, which holds the verdict and the end
    point of every example. `precision` is the search's where it is not fp32; `searched_again` then counts the examples
    that were searched once more in fp32. `files`: what the fooling points do as image files.
    """

    newer = ("draws", "backend", "precision", "searched_again", "files")

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
    draws: DrawsRecord | None = None
    backend: Literal["", "autoattack"] = ""
    precision: Literal["", "bf16"] = ""
    searched_again: Annotated[int, Field(ge=0)] | None = None
    files: list[FileRecord] = Field(default=[])


class CraftedRecord(SparseModel):
    """Examples that were crafted with a source alone, or a control of such a set, judged on this victim.

    `flips[k]`: the examples that are correct on the clean image and misclassified at the point of try k. Rates count an
    example that any try flips, over the clean-correct examples. `jobs` are the keys of the judging jobs. The attack of
    a control that was made of a set is `{id: shuffled, of: <the set's attack>}`. `attacker_images`: the data set whose
    training images a universal delta was made on. `files`: what the points that flip do as image files.
    """

    newer = ("attacker_images", "files")

    source: str
    norm: ThreatName
    eps: str
    attack: dict[str, Any]
    flips: Annotated[list[Bits], Field(min_length=1)]
    jobs: list[str]
    attacker_images: str = ""
    files: list[FileRecord] = Field(default=[])

    @property
    def is_control(self) -> bool:
        return self.attack["id"] in CONTROLS

    def flipped(self, tries: int | None = None) -> int:
        """The examples that any of the first `tries` tries (all by default) flips, as the bits of a whole number."""
        return reduce(or_, (bits.number for bits in self.flips[:tries]), 0)

    def any_of(self, tries: int | None = None) -> int:
        """The number of examples that any of the first `tries` tries (all by default) flips."""
        return self.flipped(tries).bit_count()


class QueriedRecord(StrictModel):
    """An attack that holds the source and asks the victim, or its control, which does not hold it.

    `queries`: per example the number of the query that first fooled the victim, of at most `budget`; 0 where it is
    wrong on the clean image, -1 where no query did. `start`: the attack at whose points it began. `jobs` are the keys
    of the jobs, which hold the fooling points.
    """

    source: str
    norm: ThreatName
    eps: str
    attack: dict[str, Any]
    is_control: bool
    budget: int = Field(ge=1)
    queries: Annotated[list[Annotated[int, Field(ge=-1)]], Field(min_length=1)]
    start: str = ""
    jobs: list[str]

    def fooled(self, within: int) -> int:
        """The examples that are fooled within so many queries, as the bits of a whole number."""
        return Bits.of([0 < number <= within for number in self.queries]).number


class CorruptedRecord(StrictModel):
    """The images of one corruption at one severity: `correct`, those that are classified correctly, their fingerprint,
    and the key of the job."""

    corruption: str
    severity: int = Field(ge=1, le=5)
    correct: Bits
    data_fingerprint: str
    job: str


class CorruptionRecord(StrictModel):
    """A benchmark of corrupted images (base/corruptions.py): every corruption at every severity, in its order.

    The images of all of them are the record's, corrupted, so that a mean over them has one image as its unit.
    """

    threat: CorruptionThreat
    parts: list[CorruptedRecord]

    def counts(self) -> dict[str, list[int]]:
        """Per corruption, the number of correct images by severity."""
        counts: dict[str, list[int]] = {}
        for part in self.parts:
            counts.setdefault(part.corruption, []).append(part.correct.count)
        return counts


class Origin(StrictModel):
    """How to reproduce the record: command, commit of the code, suite, `--keep-examples`, version of Python.

    `commit` is empty for an installed package; `dirty` means that files differed from the commit.
    """

    command: list[str]
    commit: str
    dirty: bool
    suite: dict[str, Any]
    keep_examples: str
    python: str


class Stamp(StrictModel):
    """The stamp of `verify`: the sha256 of the record without its stamp, and of every example file by relative path.

    `points` is the number of verified end points; `changed_ties` the number of predictions that differ within the
    margin of a tie, `disagreements` of those beyond it (0 unless the network is flagged randomised).
    """

    record: str
    examples: dict[str, str]
    version: str
    points: int = Field(ge=0)
    changed_ties: int = Field(ge=0)
    disagreements: int = Field(ge=0)


class Record(SparseModel):
    """All measurements of a victim. Only `cost` and `origin` may differ between machines.

    `image_shape` [C, H, W] and `preprocessing` say what images were attacked: a radius means something
    at one size only.

    `weights_notes`: what was chosen when a file of weights of another project was read (the card's).

    `clean`: the examples that are classified correctly without an attack; `clean_full`: (correct, n) on the whole test
    split. `folded`: attacks searched on a copy with folded batch norm. `flag_rows`: for the flags that are counted by
    example, the largest number of clean-correct examples that one holds for, over the chains. `batch`: the rows in
    flight that the verdicts belong to, where the network's answers depend on its batch. `head`: whether the training
    kept the source's classifier.

    `corruptions`: the benchmarks of corrupted images. `clean_job`: the key of the job that predicted the clean images
    of a record without chains, or whose chains attacked fewer than the n. `stratified`: the examples are the first of
    each class in turn, n in all. `unmeasured_threat`: the threat that the model was trained for, where the record has
    other ones alone.

    `preset_of`: the method whose setting `method` names. `extends`: the methods that it adds to, the nearest first;
    `variant`: its hyper-parameters that are an extension of their own (methods/__init__.py). `train_forwards`,
    `train_backwards`: rows through the networks of its training (training/passes.py).
    """

    newer = (
        "corruptions",
        "clean_job",
        "unmeasured_threat",
        "queried",
        "stratified",
        "preset_of",
        "extends",
        "variant",
        "train_forwards",
        "train_backwards",
    )

    schema_version: Literal[3] = 3
    suite: str
    protocol: str
    role: Literal["source", "victim"]
    victim: str
    method: str
    source: str
    head: Literal["", "kept", "new"] = ""
    network: str
    source_dataset: str
    target_dataset: str
    seed: int
    n: int = Field(ge=1)
    stratified: Literal[True] | None = None
    image_shape: tuple[int, ...]
    preprocessing: str = ""
    data_fingerprint: str
    class_counts: list[int]
    data_notes: list[str] = Field(default=[])
    """How the test split was read (`Dataset.notes`): files that were left out, classes without images."""
    weights_sha256: str
    weights_notes: list[str] = Field(default=[])
    flags: list[str]
    flag_rows: dict[str, int] = Field(default={})
    batch: int | None = Field(default=None, ge=1)
    clean: Bits
    clean_full: tuple[int, int] | None = None
    chains: list[ChainRecord]
    crafted: list[CraftedRecord] = Field(default=[])
    queried: list[QueriedRecord] = Field(default=[])
    clean_full_job: str = ""
    corruptions: list[CorruptionRecord] = Field(default=[])
    clean_job: str = ""
    unmeasured_threat: str = ""
    preset_of: str = ""
    extends: list[str] = Field(default=[])
    variant: dict[str, str] = Field(default={})
    train_forwards: int | None = Field(default=None, ge=0)
    train_backwards: int | None = Field(default=None, ge=0)
    versions: dict[str, str]
    precision: Literal["fp32"] = "fp32"
    folded: bool
    origin: Origin
    stamp: Stamp | None = None
    cost: dict[str, str | int | float]

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        """Robust or flipped examples must be correct on the clean image, and all bits must be of n examples."""
        wrong, n_chains = ~self.clean.number, self.n_chains
        if n_chains > self.n:
            raise ValueError(f"a chain has {n_chains} verdicts, the record says n={self.n}")
        if n_chains < self.n and not self.clean_job:
            raise ValueError(f"the chains attacked {n_chains} of n={self.n}, and no job says which others are correct")
        right = self.clean_of_chains.number
        parts = [(chain.name, chain.robust, n_chains, ~right) for chain in self.chains]
        parts += [("clean", self.clean, self.n, 0)]
        parts += [(one.attack["id"], flips, self.n, wrong) for one in self.crafted for flips in one.flips]
        for name, bits, n, never in parts:
            if bits.n != n:
                raise ValueError(f"{name} has {bits.n} verdicts, the record says n={n}")
            if bits.number & never:
                raise ValueError(f"{name} counts an example that was wrong on clean")
        for fooled, n, files in (
            *((right & ~chain.robust.number, n_chains, chain.files) for chain in self.chains),
            *((crafted.flipped(), self.n, crafted.files) for crafted in self.crafted),
        ):
            for file in files:
                if file.fooling.n != n or file.control.n != n:
                    raise ValueError(f"the {file.format} files are not of n={n} examples")
                if (file.fooling.number | file.control.number) & ~fooled:
                    raise ValueError(f"a {file.format} file counts of an example without a fooling point")
        for asked in self.queried:
            if len(asked.queries) != self.n or max(asked.queries) > asked.budget:
                raise ValueError(f"{asked.attack['id']} has not n={self.n} numbers of at most {asked.budget} queries")
            if asked.fooled(asked.budget) & wrong:
                raise ValueError(f"{asked.attack['id']} counts an example that was wrong on clean")
        return self

    @model_validator(mode="after")
    def _whole_benchmarks(self) -> Record:
        """A mean is over every corruption and severity of a benchmark of the record's data set."""
        threats = [one.threat for one in self.corruptions]
        if len(set(threats)) != len(threats):
            raise ValueError("a threat of corruptions is there twice")
        for one in self.corruptions:
            expected = benchmark(one.threat, DatasetId.parse(self.target_dataset).base).parts()
            parts = [(part.corruption, part.severity) for part in one.parts]
            if parts != [(part.corruption, part.severity) for part in expected]:
                raise ValueError(
                    f"{one.threat} has not every corruption of {self.target_dataset} at every severity, once"
                )
            if any(part.correct.n != self.n for part in one.parts):
                raise ValueError(f"{one.threat} has other numbers of images than n={self.n}")
        if not self.chains and not self.clean_job and self.corruptions:
            raise ValueError("no job says which clean images are correct")
        return self

    @property
    def n_chains(self) -> int:
        """The number of examples that the chains attacked: the first so many of the n, n without a chain."""
        return self.chains[0].robust.n if self.chains else self.n

    @property
    def clean_of_chains(self) -> Bits:
        """The examples among those of the chains that are classified correctly without an attack."""
        return self.clean.first(self.n_chains)

    @property
    def n_text(self) -> str:
        """`240`, or where the chains attacked fewer `240 (chains 60)`."""
        return f"{self.n}" + (f" (chains {self.n_chains})" if self.n_chains < self.n else "")

    @property
    def sample(self) -> str:
        """Which examples of the test split were attacked: `first 200`."""
        return self.sample_of(self.n)

    def sample_of(self, n: int) -> str:
        """The same of n examples: those of the chains, which may be fewer."""
        return f"first {n}{', of each class in turn' if self.stratified else ''}"

    @property
    def images(self) -> str:
        """The size of the attacked images, with what was done to them: `3x224x224 (Res256Crop224)`."""
        size = "x".join(map(str, self.image_shape))
        return f"{size} ({self.preprocessing})" if self.preprocessing else size

    def crafted_set(self, attack: str, source: str | None = None, threat: ThreatName = "Linf") -> CraftedRecord | None:
        """The set that an attack crafted with a source (the victim's own by default), or None."""
        key = (attack, self.source if source is None else source, threat)
        return next((c for c in self.crafted if (c.attack["id"], c.source, c.norm) == key), None)

    def control(self, threat: ThreatName = "Linf") -> CraftedRecord | None:
        """The noise control, or None. Random signs do not depend on the source that they are recorded under."""
        return next((c for c in self.crafted if (c.attack["id"], c.norm) == (RANDOM_SIGN, threat)), None)

    def controls_of(self, crafted: CraftedRecord) -> list[CraftedRecord]:
        """The controls that were made of a crafted set."""
        key = crafted.attack["id"], crafted.source, crafted.norm
        return [one for one in self.crafted if (one.attack.get("of"), one.source, one.norm) == key]

    def corrupted(self, threat: str) -> CorruptionRecord | None:
        """The benchmark of a threat of corruptions, or None."""
        return next((one for one in self.corruptions if one.threat == threat), None)

    def chain(self, name: str) -> ChainRecord | None:
        """The chain of that name, or None."""
        return next((chain for chain in self.chains if chain.name == name), None)


def digest(record: Record) -> str:
    """64 hex digits: the sha256 of the record without its stamp."""
    return hashlib.sha256(dump(record.model_copy(update={"stamp": None})).encode()).hexdigest()


def stamped(record: Record) -> bool:
    """Whether the record has a stamp whose hash is still the record's."""
    return record.stamp is not None and record.stamp.record == digest(record)


def dump(record: Record) -> str:
    """The record as canonical JSON text: sorted keys, one line per value, a final newline."""
    return json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path) -> Record:
    """The record in a file. InputError with the file, the field and the reason."""
    try:
        return read_json(Record, path, "record")
    except KeyError as error:
        raise InputError(f"record {path}: an attack without {error}") from None


def read_all(folder: Path) -> list[Record]:
    """The records of a leaderboard's folder, sorted by file name. InputError when there are none."""
    paths = sorted((folder / "records").glob("*.json"))
    if not paths:
        raise InputError(f"leaderboard {folder}: there are no records in {folder / 'records'}")
    return [read(path) for path in paths]
