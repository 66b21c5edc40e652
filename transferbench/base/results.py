"""Typed results of jobs: what each kind computes, as the store keeps it.

They are plain frozen dataclasses of JSON values; `to_json` and `from_json` convert them. Tensors (end points, weights)
are files beside the store that a result names by path and sha256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

FileFormat = Literal["8bit", "jpeg90"]
"""Of image files: 8 bits a value without loss (PNG), and JPEG of quality 90."""

R = TypeVar("R")
_ADAPTERS: dict[type, Any] = {}

WRONG_ON_CLEAN, NOT_FOOLED = 0, -1
"""In place of a number of queries: the clean image is misclassified already; no query of the budget fooled."""


class Verdict(NamedTuple):
    """What one chain did to one example.

    `attack` is the id of the attack whose try fooled the model (`clean` for an example that was wrong before any
    attack, empty for a survivor), `rank` the try's rank in the chain (-1 without one), `pred` the class predicted at
    the end point, `distance` the end point's float64 distance under the chain's threat, `tie` whether the hit's logit
    margin is below 1e-4 of the logit range.
    """

    example: int
    fooled: bool
    attack: str
    rank: int
    pred: int
    distance: float
    tie: bool


@dataclass
class Cost:
    """Passes, counted in rows through a network. `wasted`: backwards of cancelled tries; `checks`: clean predictions
    and confirmations."""

    forwards: int = 0
    backwards: int = 0
    wasted: int = 0
    checks: int = 0
    seconds: float = 0.0

    def add(self, other: Cost) -> None:
        self.forwards += other.forwards
        self.backwards += other.backwards
        self.wasted += other.wasted
        self.checks += other.checks
        self.seconds += other.seconds


@dataclass(frozen=True)
class AttackTally:
    """One attack of a chain: its tries, how many examples it broke, how many stand after it, its passes."""

    attack: str
    tries: int
    broke: int
    standing: int
    forwards: int = 0
    backwards: int = 0
    wasted: int = 0

    def plus(self, other: AttackTally) -> AttackTally:
        """The sum over two sets of examples."""
        return AttackTally(
            self.attack,
            self.tries,
            self.broke + other.broke,
            self.standing + other.standing,
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            self.wasted + other.wasted,
        )


@dataclass(frozen=True)
class DrawCounts:
    """How a randomised model was attacked and judged.

    `eot`: the draws of each attack's gradients. `draws`: a verdict is made of the mean softmax of so many others.
    `robust`: the number of robust examples by each of the judge's seeds, of which the first decides; `single`: by one
    forward pass for the image and one for the end point, as other tools decide.
    """

    eot: tuple[int, ...]
    draws: int
    robust: tuple[int, ...]
    single: int

    def text(self, n: int) -> str:
        """In a line, with counts out of n examples."""
        gradients = "/".join(str(count) for count in dict.fromkeys(self.eot))
        low, high = min(self.robust), max(self.robust)
        return (
            f"gradients of {gradients} draws, verdicts on the mean of {self.draws} others: {self.robust[0]} of {n} "
            f"robust, {low} to {high} over {len(self.robust)} seeds of the judge, {self.single} by one more draw alone"
        )


@dataclass(frozen=True)
class StoredFile:
    """A file of a run: its path relative to the run's folder, and its sha256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class FileVerdicts:
    """Fooling points that were saved as image files of a `format` and read again.

    `fooling`: per example whether one still fools. `control`: whether the clean image of an example with a fooling
    point is misclassified when it is saved likewise.
    """

    format: FileFormat
    fooling: tuple[bool, ...]
    control: tuple[bool, ...]

    def plus(self, other: FileVerdicts) -> FileVerdicts:
        """Those of this one's examples and then the other's."""
        return FileVerdicts(self.format, self.fooling + other.fooling, self.control + other.control)


@dataclass(frozen=True)
class Execution:
    """How a job was run: wall time in seconds, peak resident memory in MiB, processor or GPU."""

    seconds: float = 0.0
    memory_mb: int = 0
    hardware: str = ""

    @classmethod
    def of_all(cls, parts: Sequence[Execution]) -> Execution:
        """The execution of a job in parts: their seconds are added."""
        hardware = " / ".join(sorted({part.hardware for part in parts}))
        return cls(sum(part.seconds for part in parts), max(part.memory_mb for part in parts), hardware)


@dataclass(frozen=True)
class JobResult:
    """What every kind of result has. `key` is the key under which the store has it (not stored again inside)."""

    execution: Execution = field(default_factory=Execution, kw_only=True)
    key: str = field(default="", kw_only=True)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen for the user, in lines."""
        return ()


@dataclass(frozen=True)
class TrainResult(JobResult):
    """A trained network. `folder` holds it, relative to the run's folder; `validation_accuracy` is a share, None
    where no validation images were kept apart.

    `identity` is its card's (models/cards.py): an edited card is another network's.
    """

    folder: str
    sha256: str
    validation_accuracy: float | None
    log: list[dict[str, int | float | str]]
    identity: str = ""
    head: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        return ("the source's classifier is kept: its classes are the target's",) if self.head == "kept" else ()


@dataclass(frozen=True)
class AttackResult(JobResult):
    """One chain on one shard, or on all examples. `kept` says which end points `examples` holds (Keep, as text).

    `flag_rows`: the number of clean-correct examples of each flag that is counted. `batch`: the rows in flight, where
    the verdicts belong to one batch size and order; None where they do not depend on it. `draws`: how a randomised
    model was judged. `searched_again`: the examples that a search in bf16 left near the boundary, searched once more in
    fp32; None for a search in fp32. `files`: what the fooling points do as image files (engine/image_files.py); empty
    where answers depend on the batch.
    """

    verdicts: tuple[Verdict, ...]
    by_attack: tuple[AttackTally, ...]
    cost: Cost
    flags: tuple[str, ...]
    folded: bool
    halvings: int
    kept: str
    examples: StoredFile | None = None
    flag_rows: dict[str, int] = field(default_factory=dict)
    batch: int | None = None
    draws: DrawCounts | None = None
    searched_again: int | None = None
    files: tuple[FileVerdicts, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.draws is None else (f"randomised: {self.draws.text(len(self.verdicts))}",)


@dataclass(frozen=True)
class CraftResult(JobResult):
    """A crafted set of one shard: `tries` points per example, in the file `examples`."""

    tries: int
    cost: Cost
    examples: StoredFile | None = None


@dataclass(frozen=True)
class JudgeResult(JobResult):
    """A crafted set shown to one victim: per example whether it is correct on the clean image, and per try and example
    whether it is correct there and wrong at the crafted point.

    `flags` and `batch` as of an AttackResult, from pre-flight alone; `files` likewise, of all points that flip.
    """

    correct: tuple[bool, ...]
    flips: tuple[tuple[bool, ...], ...]
    cost: Cost
    flags: tuple[str, ...] = ()
    batch: int | None = None
    files: tuple[FileVerdicts, ...] = ()

    def any_flip(self) -> list[bool]:
        """Per example, whether any try flips it."""
        return [any(tries) for tries in zip(*self.flips, strict=True)]


@dataclass(frozen=True)
class QueryResult(JobResult):
    """A query attack on one shard of one victim.

    `queries`: per example the number of the query that first fooled the victim, of at most `budget`; WRONG_ON_CLEAN (0)
    and NOT_FOOLED (-1) otherwise. `cost`: forwards and backwards are the source's, `checks` are the victim's. `kept`
    says which end points `examples` holds (Keep, as text), `flags` and `batch` are as of a JudgeResult.
    """

    queries: tuple[int, ...]
    budget: int
    cost: Cost
    flags: tuple[str, ...]
    kept: str
    examples: StoredFile | None = None
    batch: int | None = None

    @property
    def correct(self) -> tuple[bool, ...]:
        """Per example, whether it is correct on the clean image."""
        return tuple(number != WRONG_ON_CLEAN for number in self.queries)

    @property
    def victim_queries(self) -> int:
        """How many points the victim scored for the attacker."""
        return sum(self.budget if number == NOT_FOOLED else number for number in self.queries)


@dataclass(frozen=True)
class CleanResult(JobResult):
    """`correct` of `n` examples, without an attack."""

    correct: int
    n: int
    cost: Cost


@dataclass(frozen=True)
class CorrectResult(JobResult):
    """Which of `n` images are classified correctly without an attack, as the hex of base/bits.py, in their order.

    `flags` are the pre-flight's; `batch`: the rows in flight, where the answers belong to one batch size and order.
    """

    correct: str
    n: int
    flags: tuple[str, ...]
    cost: Cost
    batch: int | None = None


def to_json(result: JobResult) -> dict[str, Any]:
    """JSON values, without the key."""
    values = asdict(result)
    del values["key"]
    return values


def from_json(kind: type[R], values: object) -> R:
    """The typed result. pydantic's ValidationError (a ValueError) where the values are not of that kind."""
    # pydantic takes 50 ms to import, which `list` and `--help` need not pay.
    from pydantic import TypeAdapter

    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    result: R = _ADAPTERS[kind].validate_python(values)
    return result
