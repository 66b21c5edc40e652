"""The job that trains a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transferbench import methods
from transferbench.base import registry
from transferbench.base.checkpoint import NO_CHECKPOINT, Checkpoint
from transferbench.base.errors import InputError
from transferbench.base.progress import OnProgress, ignore
from transferbench.base.results import TrainResult
from transferbench.base.specifications import Keep, Scalar, ThreatModel
from transferbench.data.few_shot import Rule
from transferbench.jobs.inputs import SplitsInput
from transferbench.jobs.job import Job, Need, Output, Results
from transferbench.jobs.networks import NetworkReference, specified
from transferbench.jobs.resources import Resources
from transferbench.models import trained
from transferbench.models.cards import ModelCard
from transferbench.store.store import Store
from transferbench.training.loop import FitOptions
from transferbench.training.monitor import RobustnessMonitor
from transferbench.training.victim import Recipe, train_victim


@dataclass(frozen=True)
class TrainJob(Job[TrainResult]):
    """Train `victim` with a method on a data set, from a source or from fresh weights.

    `settings` are the method's hyper-parameters, the seed among them; `network` is the architecture where it is not the
    source's. `threats` are the radii at which the robustness monitor measures, if there is one; they decide no weight
    and are not part of the name.
    """

    kind: ClassVar[str] = "train"
    result_type: ClassVar[type[TrainResult]] = TrainResult
    memory_option: ClassVar[str] = "batch_size"

    victim: str
    method: str
    settings: tuple[tuple[str, Scalar], ...]
    dataset: str
    preprocessing: str = ""
    network: str = ""
    source: NetworkReference | None = None
    shots: int | None = None
    untrained: bool = False
    shots_rule: Rule = "keyed"
    threats: tuple[ThreatModel, ...] = ()

    @property
    def inputs(self) -> tuple[Job[Any], ...]:
        return () if self.source is None else self.source.jobs

    @property
    def seed(self) -> int:
        return int(dict(self.settings).get("seed", 0))

    @property
    def size(self) -> str:
        return f"{dict(self.settings).get('steps', 'default')} steps"

    @property
    def passes(self) -> float:
        method = methods.build(self.method, dict(self.settings))
        # A step's gradient is of the weights as well.
        return method.params.steps * method.params.batch_size * (method.passes_per_step + 0.5)

    def image_size(self, resources: Resources) -> int:
        return math.prod(resources.splits(self.splits)[0].shape)

    def specification(self) -> dict[str, Any]:
        return {
            "victim": self.victim,
            "plugin": self.method,
            "settings": dict(self.settings),
            "dataset": self.dataset,
            **({"preprocessing": self.preprocessing} if self.preprocessing else {}),
            "network": self.network,
            **({"shots": self.shots} if self.shots is not None else {}),
            **({"shots rule": self.shots_rule} if self.shots_rule != "keyed" else {}),
            **specified(self.source, "source"),
            **({"untrained": True} if self.untrained else {}),
        }

    @property
    def splits(self) -> SplitsInput:
        # Unless shots are drawn by the seed the splits do not depend on it, and are loaded once for all seeds.
        seed = None if self.shots is None or self.shots_rule != "keyed" else self.seed
        validation = methods.build(self.method, dict(self.settings)).params.validation
        return SplitsInput(self.dataset, self.preprocessing, self.shots, seed, validation, self.shots_rule)

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.victim, self.method, self.dataset, self.network, self.shots, self.untrained, self.shots_rule)

    def content(self, resources: Resources, results: Results) -> dict[str, Any]:
        content = resources.circumstances()
        if self.source is not None:
            name = "source" if self.source.public_id is not None else "input 0"
            content[name] = self.source.input(results).fingerprint(resources)
        threads = resources.settings.threads
        if threads not in (1, None):
            # The sums inside a convolution are split by threads: other weights.
            content["threads"] = threads
        content["data"] = self.splits.fingerprint(resources)
        content["version"] = registry.find("methods", self.method).load().VERSION
        return content

    def needs(self, resources: Resources, content: Mapping[str, Any], results: Results) -> list[Need]:
        needs = [Need(self.splits, content["data"])]
        if self.source is not None:
            expected = content["source" if self.source.public_id is not None else "input 0"]
            needs.append(Need(self.source.input(results), expected))
        return needs

    def run(
        self,
        resources: Resources,
        results: Results,
        on_progress: OnProgress = ignore,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> Output:
        source = None if self.source is None else resources.network(self.source.input(results))
        splits = resources.splits(self.splits)
        settings = resources.settings
        monitor = None
        if settings.eval_freq is not None:
            train, val = splits
            if val is None:
                raise InputError("--eval-freq measures on validation images, which validation=none does not keep")
            monitor = RobustnessMonitor(train, val, self.threats, settings.eval_freq)
        options = FitOptions(resources.device, on_progress, checkpoint, settings.loader_workers, monitor)
        model, card, fitted = train_victim(
            self.recipe, methods.build(self.method, dict(self.settings)), source, splits, options
        )
        result = TrainResult("", "", fitted.validation_accuracy, fitted.log, passes=fitted.passes)
        return Output(result, dict(model.state_dict()), card.model_dump(mode="json"))

    def keep(self, store: Store, key: str, output: Output) -> TrainResult:
        assert isinstance(output.result, TrainResult)
        assert output.card is not None
        folder = store.victim_folder(self.victim)
        with store.writing():
            card = trained.save(folder, output.tensors, ModelCard(**output.card))
        place = str(folder.relative_to(store.root))
        return TrainResult(
            place,
            card.sha256,
            output.result.validation_accuracy,
            output.result.log,
            identity=card.identity,
            head=card.head,
            passes=output.result.passes,
        )

    def is_intact(self, result: TrainResult, store: Store, keep: Keep) -> bool:
        try:
            card = trained.load(store.root / result.folder).card
            return (card.identity, card.method) == (result.identity, self.method)
        except InputError:
            return False
