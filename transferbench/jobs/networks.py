"""The network that a job is about: a public one by its id, or the one that a training job makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transferbench.jobs.inputs import NetworkInput

if TYPE_CHECKING:
    from transferbench.jobs.job import Results
    from transferbench.jobs.train import TrainJob


class NetworkReference(Protocol):
    """`id` is what people call it, `name` tells it from every other network of the run."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def jobs(self) -> tuple[TrainJob, ...]:
        """The training that makes it, if any."""

    @property
    def public_id(self) -> str | None:
        """The id by which a loader finds it; None for a network of this run."""

    def input(self, results: Results) -> NetworkInput: ...


@dataclass(frozen=True)
class PublicNetwork:
    """Any network that `list models`, a folder, a card or the Python API names.

    `reference` is what its loader takes, `title` the id on its card where that differs.
    """

    reference: str
    title: str = ""

    @property
    def id(self) -> str:
        return self.title or self.reference

    @property
    def name(self) -> str:
        return self.reference

    @property
    def jobs(self) -> tuple[TrainJob, ...]:
        return ()

    @property
    def public_id(self) -> str | None:
        return self.reference

    def input(self, results: Results) -> NetworkInput:
        return NetworkInput(self.reference)


@dataclass(frozen=True)
class TrainedNetwork:
    """The network that a job of the same run trains."""

    job: TrainJob

    @property
    def id(self) -> str:
        return self.job.victim

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def jobs(self) -> tuple[TrainJob, ...]:
        return (self.job,)

    @property
    def public_id(self) -> str | None:
        return None

    def input(self, results: Results) -> NetworkInput:
        return NetworkInput(self.name, results.of(self.job).folder)


def specified(network: NetworkReference | None, field: str = "victim") -> dict[str, Any]:
    """The part of a specification that names a public network; a trained one is an input."""
    return {} if network is None or network.public_id is None else {field: network.public_id}
