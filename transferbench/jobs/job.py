"""The interface of a job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor

from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.progress import OnProgress, ignore
from transferbench.base.results import JobResult
from transferbench.base.specifications import Keep, content_hash
from transferbench.jobs.inputs import Input
from transferbench.jobs.resources import Resources
from transferbench.store.store import Store

R = TypeVar("R", bound=JobResult)


class Results(dict[str, JobResult]):
    """Results by job name."""

    def of(self, job: Job[R]) -> R:
        """The result of a finished job. KeyError where it has none."""
        return self[job.name]  # type: ignore[return-value]

    def find(self, job: Job[R] | None) -> R | None:
        """The result of a job, None where it has none."""
        return None if job is None else self.get(job.name)  # type: ignore[return-value]


class Output(NamedTuple):
    """What a job computed: its result, and the tensors to store beside it."""

    result: JobResult
    tensors: dict[str, Tensor]
    card: Mapping[str, Any] | None = None


class Need(NamedTuple):
    """An input that a job reads, and the hash that the key expects of it (None: it is checked when it is read)."""

    input: Input
    expected: str | None = None


@dataclass(frozen=True)
class Job(ABC, Generic[R]):
    """One unit of work. `label` is for people; it is not part of the name."""

    kind: ClassVar[str]
    result_type: ClassVar[type[JobResult]]
    memory_option: ClassVar[str] = "--batch-size"
    """The option that lowers the memory a job needs."""

    label: str

    @property
    @abstractmethod
    def inputs(self) -> tuple[Job[Any], ...]:
        """The jobs whose results this one reads."""

    @abstractmethod
    def specification(self) -> dict[str, Any]:
        """What is computed, as JSON values, without the inputs."""

    @property
    @abstractmethod
    def size(self) -> str:
        """How much work it is, for people: `40 steps`, `256 examples`."""

    @property
    @abstractmethod
    def passes(self) -> float:
        """At most how many gradient passes of one image it takes: an estimate, by which long jobs begin first."""

    @abstractmethod
    def image_size(self, resources: Resources) -> int:
        """The number of values of an image that it passes through a network."""

    def parts(self, count: int) -> list[Job[R]]:
        """The job as up to `count` jobs on parts of its examples, for idle workers; itself where it has no parts."""
        return [self]

    def joined(self, outputs: Sequence[Output]) -> Output:
        """The output of the whole job from those of its parts."""
        (output,) = outputs
        return output

    @abstractmethod
    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        """What decides the result beside the name: hashes of what it reads, versions, device kind, precision."""

    @abstractmethod
    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        """What the job reads, for a worker that may not see the driver's files."""

    @abstractmethod
    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        """Compute the result. Continues from the checkpoint where it holds a state."""

    def keep(self, store: Store, key: str, output: Output) -> R:
        """Write the output's tensors to the run's folder; the result that names the files."""
        return output.result  # type: ignore[return-value]

    def is_intact(self, result: R, store: Store, keep: Keep) -> bool:
        """Whether a stored result can be used: its files are there, and it holds the end points that are wanted."""
        return True

    def adapted(self, resources: Resources, results: Results) -> Job[R]:
        """The job in the form that its network is known to need: itself, or another one."""
        return self

    def end_points(self, keep: Keep) -> int:
        """How many images the job may store, at most."""
        return 0

    @cached_property
    def name(self) -> str:
        """32 hex digits: the same specification and inputs, the same name."""
        return content_hash(self.kind, self.specification(), [job.name for job in self.inputs])
