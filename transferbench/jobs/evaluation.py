"""What the jobs that evaluate a network on test images share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from transferbench.base.results import JobResult
from transferbench.engine.chain import Target
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Need, Results
from transferbench.jobs.networks import NetworkReference, specified
from transferbench.jobs.resources import Resources

R = TypeVar("R", bound=JobResult)


@dataclass(frozen=True)
class EvaluationJob(Job[R]):
    """A job about `network` on `images`.

    `batch`: the rows in flight, for a network whose answers depend on its batch (engine/preflight.py); `draws`: how
    many a verdict about it is the mean of, for a randomised one. The planned job has None and 1; `adapted` sets them,
    so that they are in the key of such a result.
    """

    network: NetworkReference
    images: ImagesInput
    batch: int | None = field(default=None, kw_only=True)
    draws: int = field(default=1, kw_only=True)

    @property
    def size(self) -> str:
        if self.images.stop is None:
            return "whole test split"
        return f"{self.images.stop - self.images.start} examples"

    def _place(self) -> dict[str, Any]:
        """The part of the specification that says which network and images."""
        images = self.images
        return {
            **specified(self.network),
            "dataset": images.dataset,
            **({"preprocessing": images.preprocessing} if images.preprocessing else {}),
            **({"batch": self.batch} if self.batch is not None else {}),
            **({"draws": self.draws} if self.draws > 1 else {}),
            **self._range(),
        }

    def _range(self) -> dict[str, Any]:
        return {"start": self.images.start, "stop": self.images.stop}

    def _content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = resources.circumstances()
        content[self._network_field] = self.network.input(results).fingerprint(resources)
        content["data"] = resources.fingerprint(self.images)
        return content

    @property
    def _network_field(self) -> str:
        """The network's field in the content: trained networks are inputs."""
        return "victim" if self.network.public_id is not None else "input 0"

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        return [
            Need(self.images, content["data"]),
            Need(self.network.input(results), content[self._network_field]),
            Need(resources.sample(*self._sample_images)),
        ]

    def adapted(self, resources: Resources, results: Results) -> Self:
        target = self._target(resources, results)
        if not target.batch_dependent:
            return self
        return replace(self, batch=target.rows.most, draws=target.judge.draws)

    def mark_batch_dependent(self, resources: Resources, results: Results) -> None:
        self._target(resources, results).depend_on_batch()

    def _target(self, resources: Resources, results: Results) -> Target:
        return resources.target(self.network.input(results), *self._sample_images)

    @property
    def _sample_images(self) -> tuple[str, str]:
        """The data set, and its preprocessing, on whose first images the network is prepared."""
        return self.images.dataset, self.images.preprocessing
