"""What the jobs that evaluate a network on test images share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from transferbench.base.results import JobResult
from transferbench.engine.chain import Target
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Need, Results
from transferbench.jobs.networks import NetworkReference, specified
from transferbench.jobs.resources import Resources

R = TypeVar("R", bound=JobResult)


@dataclass(frozen=True)
class EvaluationJob(Job[R]):
    """A job about `network` on `images`."""

    network: NetworkReference
    images: ImagesInput

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
            **self._range(),
        }

    def _range(self) -> dict[str, Any]:
        return {"start": self.images.start, "stop": self.images.stop}

    def _content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = resources.circumstances()
        content[self._network_field] = self._network_hash(resources, results)
        content["data"] = resources.fingerprint(self.images)
        return content

    @property
    def _network_field(self) -> str:
        """The network's field in the content: trained networks are inputs."""
        return "victim" if self.network.public_id is not None else "input 0"

    def _network_hash(self, resources: Resources, results: Results) -> str:
        if self.network.jobs:
            return results.of(self.network.jobs[0]).sha256
        return self.network.input(results).fingerprint(resources)

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        return [
            Need(self.images, content["data"]),
            Need(self.network.input(results), content[self._network_field]),
            Need(resources.sample(self.images.dataset, self.images.preprocessing)),
        ]

    def _target(self, resources: Resources, results: Results) -> Target:
        return resources.target(self.network.input(results), self.images.dataset, self.images.preprocessing)
