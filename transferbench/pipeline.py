"""Jobs -> finished jobs: the only file above training and engine. What the store already holds is not run."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from transferbench import attacks, cards, data, methods, registry, train
from transferbench.cards import ModelCard
from transferbench.data import Dataset, View
from transferbench.engine import jobs
from transferbench.engine.evaluate import Target
from transferbench.engine.store import Store, key_of
from transferbench.engine.stored import attack_versions
from transferbench.leaderboard import build
from transferbench.plan import Measured, PlannedVictim, plan
from transferbench.recording import record_of, write_records
from transferbench.records import Record
from transferbench.suites import Suite
from transferbench.types import AttackSpec, Chain, InputError, Job, ThreatModel, file_stem
from transferbench.victims import Victim, trained
from transferbench.victims import load as load_victim


class Reporter(Protocol):
    """Who shows progress. `update` is called often: (part done, of, examples still robust or None)."""

    def begin(self, job: Job, number: int, total: int) -> None: ...
    def update(self, done: int, total: int, robust: int | None) -> None: ...
    def end(self, job: Job, reused: bool) -> None: ...


def check(suite: Suite, num_classes: int = 10) -> None:
    """Build every attack and every method's hyper-parameters once. InputError before anything has run."""
    for norm, eps in suite.threats.items():
        for spec in suite.protocol.chain(norm, eps).attacks:
            attacks.build(spec, ThreatModel.parse(norm, eps), num_classes)
    for chain in suite.protocol.further_chains(dict(suite.threats)):
        for spec in chain.attacks:
            attacks.build(spec, chain.threat, num_classes)
    only = suite.protocol.source_only
    if only is not None:
        threat = ThreatModel.parse(only.norm, only.eps)
        tries = [attacks.build(part.spec(), threat, num_classes).tries for part in (only.attack, only.control)]
        if tries[0] != tries[1]:
            raise InputError(
                f"suite {suite.name}: {only.attack.id} has {tries[0]} tries, its control {only.control.id} has "
                f"{tries[1]}: they are compared any of k, so k must be equal"
            )
    if suite.training is not None:
        for row in (*suite.training.sources, *suite.training.rows):
            methods.build(row.method, dict(row.set))


class Runner:
    """Carries jobs out on one device in this process, through the store of a folder."""

    def __init__(
        self,
        store: Store,
        device: str = "cpu",
        slots: int | None = None,
        data_dir: Path | None = None,
        model_dir: Path | None = None,
    ) -> None:
        # One process, one job, one thread: the sums inside a convolution are split by threads, so another
        # number of threads would train other weights from the same seed.
        torch.set_num_threads(1)
        self.store, self.device, self.slots = store, device, slots
        self.data_dir, self.model_dir = data_dir, model_dir
        self.results: dict[str, dict[str, Any]] = {}
        self._victims: dict[str, Victim] = {}
        self._targets: dict[str, Target] = {}
        self._data: dict[tuple[str, str], Dataset] = {}

    def adopt(self, name: str, victim: Victim) -> None:
        """Use this victim wherever a job names it, instead of loading it once more."""
        self._victims[name] = victim.to(self.device)

    def run(self, planned: list[Job], reporter: Reporter) -> None:
        """Finish every job; results by job name are in `results` afterwards."""
        for number, job in enumerate(planned):
            reporter.begin(job, number, len(planned))
            content = self._content(job)
            key = key_of(job, content)
            found = self.store.find(key)
            if found is None or not self._still_there(job, found):
                began = time.perf_counter()
                result, tensors = self._execute(job, reporter)
                if tensors:
                    result["examples"] = self.store.write_examples(key, tensors)
                seconds = time.perf_counter() - began
                result |= {
                    "seconds": seconds,
                    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
                self.store.finish(key, job, content, result, seconds)
                reporter.end(job, reused=False)
            else:
                result = found
                reporter.end(job, reused=True)
            self.results[job.name] = result

    def _still_there(self, job: Job, result: dict[str, Any]) -> bool:
        """A trained victim's weights may have been removed or changed since: then it is trained again."""
        if job.kind != "train":
            return True
        try:
            return trained.load(self.store.root / result["folder"]).sha256 == result["sha256"]
        except InputError:
            return False

    def _content(self, job: Job) -> dict[str, Any]:
        """What decides the job's result beside its name: hashes of inputs, versions, device kind, precision."""
        content: dict[str, Any] = {"device": torch.device(self.device).type, "precision": "fp32", "fold": True}
        for at, name in enumerate(job.inputs):
            content[f"input {at}"] = self.results[name].get("sha256") or self.results[name]["examples"]["sha256"]
        if "victim" in job.spec and job.kind != "train":
            content["victim"] = self._loaded(job).sha256
        if job.kind == "train":
            splits = self._splits(job)
            content["data"] = [split.fingerprint for split in splits]
            content["version"] = registry.find("methods", job.spec["plugin"]).load().VERSION
        else:
            content["data"] = self._part(job).fingerprint
            if job.kind == "attack":
                backend = job.spec.get("backend", "transferbench")
                content["version"] = attack_versions(Chain.from_dict(job.spec["chain"]), backend)
            else:
                specs = [job.spec["attack"]] if "attack" in job.spec else []
                content["version"] = [registry.find("attacks", spec["id"]).load().VERSION for spec in specs]
        return content

    def _execute(self, job: Job, reporter: Reporter) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        spec = job.spec
        if job.kind == "train":
            return self._train(job, reporter), {}
        if job.kind == "clean":
            return jobs.clean(self._target(job), self._part(job), self.device)
        shard = self._part(job).on(self.device)

        def progress(settled: int, robust: int) -> None:
            reporter.update(settled, len(shard), robust)

        if job.kind == "attack":
            backend = spec.get("backend", "transferbench")
            chain = Chain.from_dict(spec["chain"])
            return jobs.attack(self._target(job), chain, shard, spec["seed"], self.slots, progress, backend)
        if job.kind == "craft":
            threat = ThreatModel.parse(spec["norm"], spec["eps"])
            attack = AttackSpec.from_dict(spec["attack"])
            return jobs.craft(self._loaded(job).penultimate, attack, threat, shard, spec["seed"], progress)
        if job.kind == "judge":
            threat = ThreatModel.parse(spec["norm"], spec["eps"])
            points = self.store.read_examples(self.results[job.inputs[-1]]["examples"])["points"].to(self.device)
            return jobs.judge(self._target(job), threat, shard, points)
        raise AssertionError(job.kind)

    def _train(self, job: Job, reporter: Reporter) -> dict[str, Any]:
        spec = job.spec
        method = methods.build(spec["plugin"], dict(spec["settings"]))
        source = self._victim(job.inputs[0]) if job.inputs else None
        recipe = train.Recipe(
            spec["victim"],
            spec["plugin"],
            dict(spec["settings"]),
            spec["dataset"],
            spec["network"],
            spec.get("shots"),
        )
        splits = self._splits(job)
        model, card, result = train.train_victim(
            recipe, method, source, *splits, self.device, lambda done, total, _: reporter.update(done, total, None)
        )
        folder = self.store.root / "victims" / spec["victim"]
        card = trained.save(folder, model, card)
        return {
            "folder": str(folder.relative_to(self.store.root)),
            "sha256": card.sha256,
            "validation_accuracy": result.validation_accuracy,
            "log": result.log,
        }

    def _splits(self, job: Job) -> tuple[Dataset, Dataset]:
        """The training and validation examples of a training job."""
        spec = job.spec
        view = View(spec.get("preprocessing", ""))
        return train.load_splits(spec["dataset"], self.data_dir, view, spec.get("shots"), spec["settings"]["seed"])

    def _victim(self, train_name: str) -> Victim:
        return trained.load(self.store.root / self.results[train_name]["folder"]).to(self.device)

    def _loaded(self, job: Job) -> Victim:
        """The victim of a job: the one it names, else the one its first input trained. Loaded once."""
        name = self._name(job)
        if name not in self._victims:
            victim = load_victim(name, self.model_dir) if "victim" in job.spec else self._victim(name)
            self._victims[name] = victim.to(self.device)
        return self._victims[name]

    @staticmethod
    def _name(job: Job) -> str:
        return str(job.spec["victim"]) if "victim" in job.spec else job.inputs[0]

    def _target(self, job: Job) -> Target:
        """The victim of a job made ready once (pre-flight, judge, copy) on the first images of its data."""
        victim, name = self._loaded(job), self._name(job)
        if name not in self._targets:
            test = self._test(job.spec["dataset"], job.spec.get("preprocessing", ""))
            victim.check_fits(test.id, test.shape, test.classes)
            first = test.select(range(min(16, len(test)))).on(self.device)
            self._targets[name] = Target.prepare(victim.model, first.pixels, first.labels, self.slots)
        return self._targets[name]

    def card(self, train_job: Job, threats: dict[str, str]) -> ModelCard:
        """The card of a victim that a finished training job wrote, with the radii it is evaluated at."""
        folder = self.store.root / self.results[train_job.name]["folder"]
        card = cards.read(folder / trained.CARD).model_copy(update={"threats": threats})
        trained.save_card(folder, card)
        return card

    def attacked(self, dataset: str, n: int, preprocessing: str = "") -> Dataset:
        """The n attacked examples of a data set, not decoded."""
        return self._test(dataset, preprocessing).first(n)

    def _test(self, dataset: str, preprocessing: str) -> Dataset:
        """A test split, loaded once."""
        if (dataset, preprocessing) not in self._data:
            self._data[dataset, preprocessing] = data.load(dataset, "test", self.data_dir, View(preprocessing))
        return self._data[dataset, preprocessing]

    def _part(self, job: Job) -> Dataset:
        """The examples a job is about, not decoded."""
        whole = self._test(job.spec["dataset"], job.spec.get("preprocessing", ""))
        if job.kind == "clean":
            return whole.first(job.spec["stop"]) if "stop" in job.spec else whole
        start, stop = job.spec["start"], job.spec["stop"]
        return whole.first(stop).select(range(start, stop))


def run_suite(
    suite: Suite,
    seeds: tuple[int, ...],
    runner: Runner,
    reporter: Reporter,
) -> list[Record]:
    """Run a suite to its end and write records, cards, tables into the store's folder. Returns the records."""
    planned = plan(suite, seeds)
    runner.run(planned.jobs, reporter)
    radii: dict[str, str] = dict(suite.threats.items())
    known = {victim.name: runner.card(victim.train, radii) for victim in planned.victims}
    records = [_record(suite, victim, runner, known) for victim in planned.victims]
    root = runner.store.root
    write_records(root, records)
    build.write(root, records)
    build.write_cards(root / "cards", records, known)
    # What an earlier plan left here (other seeds, another suite file) is no part of this table; it stays in the
    # store, and the plan that made it finds it there.
    for stale in {*(root / "records").glob("*.json"), *(root / "cards").glob("*.md")}:
        if stale.stem not in {file_stem(name) for name in known}:
            stale.unlink()
    return records


def _preprocessing(measured: Measured) -> str:
    return str(measured.jobs()[0].spec.get("preprocessing", ""))


def _record(suite: Suite, victim: PlannedVictim, runner: Runner, known: dict[str, ModelCard]) -> Record:
    training = runner.results[victim.train.name]
    return record_of(
        suite,
        victim.measured,
        known[victim.name],
        training["sha256"],
        known[victim.source].dataset if victim.source else "",
        runner.results,
        runner.attacked(victim.measured.dataset, suite.n, _preprocessing(victim.measured)),
        runner.device,
        training,
    )
