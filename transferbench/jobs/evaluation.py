"""What the jobs that evaluate a network on test images share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self, TypeVar

from transferbench.base.results import JobResult
from transferbench.engine.chain import Target
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Job, Need, Results
from transferbench.jobs.networks import NetworkReference, specified
from transferbench.jobs.resources import PreparedNetwork, Resources

R = TypeVar("R", bound=JobResult)

_SPLIT = 10_000
"""Images of a test split, for estimates."""
CLASSES = 10
"""The number of classes for which attacks are built where only their tries and passes are asked for."""
SMALLEST_PART = 8
"""A shard is not divided into parts of fewer examples: a pass of fewer rows is slower for each."""
FORWARD = 1 / 3
"""A forward pass as a share of one with its gradient, for estimates."""


class BatchDependentError(Exception):
    """The answers of a job's network depend on its batch, and the job is not of such a network.

    `args` are the rows in flight and the number of draws of the form that the job runs in instead (`adapted`).
    """


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

    @property
    def rows(self) -> int:
        """The number of images; for a whole split, whose length the data says, a usual one."""
        return _SPLIT if self.images.stop is None else self.images.stop - self.images.start

    def divided(self, count: int) -> list[ImagesInput]:
        """The images in up to `count` parts of about the same size."""
        start, rows = self.images.start, self.rows
        count = max(1, min(count, rows // SMALLEST_PART))
        borders = [start + rows * place // count for place in range(count + 1)]
        return [replace(self.images, start=first, stop=last) for first, last in pairwise(borders)]

    def image_size(self, resources: Resources) -> int:
        return math.prod(resources.test(self.images.dataset, self.images.preprocessing).shape)

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
            **({"stratified": True} if images.stratified else {}),
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
        form = resources.batch_form(self._prepared(resources, results))
        return self if form is None else replace(self, batch=form[0], draws=form[1])

    def mark_batch_dependent(self, resources: Resources, results: Results, error: BatchDependentError) -> None:
        """Remember the form in which jobs about this network run: `adapted` is another job from now on."""
        resources.set_batch_form(self._prepared(resources, results), error.args)

    def _prepared(self, resources: Resources, results: Results) -> PreparedNetwork:
        """What is prepared for the job: the network as its target."""
        wanted = self.network.input(results)
        return PreparedNetwork("target", wanted.name, wanted.fingerprint(resources), *self._sample_images)

    def _target(self, resources: Resources, results: Results) -> Target:
        """The network, prepared. BatchDependentError where its answers depend on its batch and this job's do not."""
        target = resources.target(self.network.input(results), *self._sample_images)
        if self.batch is not None:
            target.depend_on_batch()
        elif target.batch_dependent:
            raise BatchDependentError(target.rows.most, target.judge.draws)
        return target

    @property
    def _sample_images(self) -> tuple[str, str]:
        """The data set, and its preprocessing, on whose first images the network is prepared."""
        return self.images.dataset, self.images.preprocessing
