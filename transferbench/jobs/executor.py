"""What carries out one job in one process: the driver's own, or a worker's that may be on another machine.

It reads weights, images and crafted sets by their paths. A worker that finds one missing, or finds another under the
same path, says so (`NotHereError`), and the driver lends it by content.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transferbench import data, methods
from transferbench.base import registry
from transferbench.base.errors import FaultError, InputError
from transferbench.base.specifications import KEEP, AttackSpec, Chain, Keep, ThreatModel
from transferbench.data import Dataset, View
from transferbench.engine.chain import Target
from transferbench.engine.memory import is_out_of_memory
from transferbench.engine.reference import BATCH_SIZE
from transferbench.jobs import kinds
from transferbench.jobs.job import Job
from transferbench.jobs.stored import attack_versions
from transferbench.models import trained
from transferbench.models.victims import Victim, fitted
from transferbench.models.victims import load as load_victim
from transferbench.store.checkpoint_file import NOTHING, Checkpoint
from transferbench.store.reader import read_examples
from transferbench.training import loop

Result = dict[str, Any]
Need = tuple[str, ...]
"""What a job reads: ("victim", name), ("images", data set, preprocessing, start, stop), ("splits", job's name) or
("examples", path)."""

Shown = Callable[[int, int, int | None], None]
"""Called with (part done, of, examples still robust or None)."""

PREFLIGHT = 16
"""The network is made ready (pre-flight, folding) on so many first images of its data, whatever the job."""

_VICTIMS = 4
"""So many networks stay loaded: a source, and a few victims in a row. A long run must not grow."""


class NotHereError(Exception):
    """A worker cannot read what a job needs; `args[0]` is the need."""


@dataclass(frozen=True)
class Place:
    """Where files are looked for, and how jobs are carried out: the same for all jobs of a run."""

    root: Path
    device: str = "cpu"
    batch_size: int | None = None
    data_dir: Path | None = None
    model_dir: Path | None = None
    keep: Keep = KEEP
    loader_workers: int = 0


class Executor:
    """Carries jobs out, one after the other. `remote`: what cannot be read is asked for instead of refused."""

    def __init__(self, place: Place, remote: bool = False) -> None:
        # One process, one job, one thread: the sums inside a convolution are split by threads, so another
        # number of threads would train other weights from the same seed.
        torch.set_num_threads(1)
        self.place, self.remote = place, remote
        self._adopted: dict[str, Victim] = {}
        self._victims: OrderedDict[str, Victim] = OrderedDict()
        self._targets: OrderedDict[tuple[str, str, str, str], Target] = OrderedDict()
        self._data: dict[tuple[str, str], Dataset] = {}
        self._splits: OrderedDict[tuple[object, ...], tuple[Dataset, Dataset]] = OrderedDict()
        self._fingerprints: dict[Need, str] = {}
        self._lent: Mapping[Need, Any] = {}

    def adopt(self, name: str, victim: Victim) -> None:
        """Use this victim wherever a job names it, instead of loading it once more."""
        self._adopted[name] = victim.to(self.place.device)

    def content(self, job: Job, inputs: Mapping[str, Result]) -> dict[str, Any]:
        """What decides the job's result beside its name: hashes of inputs, versions, device kind, precision."""
        content: dict[str, Any] = {
            "device": torch.device(self.place.device).type,
            "precision": "fp32",
            "fold": True,
        }
        for at, name in enumerate(job.inputs):
            content[f"input {at}"] = inputs[name].get("sha256") or inputs[name]["examples"]["sha256"]
        if "victim" in job.spec and job.kind != "train":
            content["victim"] = self.victim(job, inputs).sha256
        if job.kind == "train" and "source" in job.spec:
            content["source"] = self.victim(job, inputs).sha256
        if job.kind == "train":
            content["data"] = [split.fingerprint for split in self.splits(job)]
            content["version"] = registry.find("methods", job.spec["plugin"]).load().VERSION
            return content
        content["data"] = self._fingerprint(job)
        if job.kind == "attack":
            backend = job.spec.get("backend", "transferbench")
            content["version"] = attack_versions(Chain.from_dict(job.spec["chain"]), backend)
            if backend == "autoattack":
                # The reference's random starts depend on its batches.
                content["batch"] = self.place.batch_size or BATCH_SIZE
        else:
            specs = [job.spec["attack"]] if "attack" in job.spec else []
            content["version"] = [registry.find("attacks", spec["id"]).load().VERSION for spec in specs]
        return content

    def execute(
        self,
        job: Job,
        inputs: Mapping[str, Result],
        content: Mapping[str, Any],
        show: Shown = lambda *_: None,
        checkpoint: Checkpoint = NOTHING,
        lent: Mapping[Need, Any] | None = None,
    ) -> tuple[Result, dict[str, Tensor]]:
        """The job's result and the tensors to keep with it: end points, or a trained network's state.

        Raises what the job raises; FaultError where memory does not suffice; NotHereError on a worker that cannot
        read what `content` names.
        """
        self._lent = lent or {}
        began = time.perf_counter()
        try:
            if self.remote:
                self._compare(job, inputs, content)
            result, tensors = self._run(job, inputs, show, checkpoint)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, FaultError) or not is_out_of_memory(error):
                raise
            less = "batch_size" if job.kind == "train" else "--batch-size"
            raise FaultError(f"{job.label}: out of memory: set {less} lower ({str(error).splitlines()[0]})") from None
        finally:
            self._lent = {}
        return result | {
            "seconds": time.perf_counter() - began,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "hardware": hardware(self.place.device),
        }, tensors

    def _compare(self, job: Job, inputs: Mapping[str, Result], content: Mapping[str, Any]) -> None:
        """NotHereError where what is read here is not what the driver's key speaks of."""
        if job.kind == "train":
            if [split.fingerprint for split in self.splits(job)] != content["data"]:
                raise NotHereError(("splits", job.name))
        elif self._fingerprint(job) != content["data"]:
            raise NotHereError(self._images(job))
        if self.name(job):
            expected = next(content[name] for name in ("victim", "source", "input 0") if name in content)
            if self.victim(job, inputs).sha256 != expected:
                raise NotHereError(("victim", self.name(job)))

    def _run(
        self, job: Job, inputs: Mapping[str, Result], show: Shown, checkpoint: Checkpoint
    ) -> tuple[Result, dict[str, Tensor]]:
        spec, place = job.spec, self.place
        if job.kind == "train":
            return self._train(job, inputs, show, checkpoint)
        if job.kind == "clean":
            return kinds.clean(self.target(job, inputs), self.part(job), place.device, checkpoint)
        shard = self.part(job).on(place.device)

        def settled(examples: int, robust: int) -> None:
            show(examples, len(shard), robust)

        if job.kind == "attack":
            chain, backend = Chain.from_dict(spec["chain"]), spec.get("backend", "transferbench")
            target = self.target(job, inputs)
            return kinds.attack(target, chain, shard, spec["seed"], backend, place.keep, settled, checkpoint)
        threat = ThreatModel.parse(spec["norm"], spec["eps"])
        if job.kind == "craft":
            source, attack = fitted(self.victim(job, inputs), shard.shape), AttackSpec.from_dict(spec["attack"])
            return kinds.craft(
                source.penultimate, attack, threat, shard, spec["seed"], place.batch_size, settled, checkpoint
            )
        assert job.kind == "judge"
        written = inputs[job.inputs[-1]]["examples"]
        points = self._read(("examples", written["path"]), lambda: read_examples(place.root, written)["points"])
        return kinds.judge(self.target(job, inputs), threat, shard, points.to(place.device), checkpoint)

    def _train(
        self, job: Job, inputs: Mapping[str, Result], show: Shown, checkpoint: Checkpoint
    ) -> tuple[Result, dict[str, Tensor]]:
        spec = job.spec
        recipe = loop.Recipe(
            spec["victim"],
            spec["plugin"],
            dict(spec["settings"]),
            spec["dataset"],
            spec["network"],
            spec.get("shots"),
            spec.get("untrained", False),
        )
        model, card, result = loop.train_victim(
            recipe,
            methods.build(spec["plugin"], dict(spec["settings"])),
            self.victim(job, inputs) if self.name(job) else None,
            *self.splits(job),
            self.place.device,
            lambda done, total, _: show(done, total, None),
            checkpoint,
            self.place.loader_workers,
        )
        described = {"card": card.model_dump(mode="json")}
        found = {"validation_accuracy": result.validation_accuracy, "log": result.log}
        return found | described, dict(model.state_dict())

    def _read(self, need: Need, read: Callable[[], Any]) -> Any:
        """What the driver lent, else what `read` finds here."""
        if need in self._lent:
            return self._lent[need]
        try:
            return read()
        except InputError as error:
            if self.remote:
                raise NotHereError(need) from error
            raise

    @staticmethod
    def name(job: Job) -> str:
        """Whose network a job is about: the one it names, else the one its first input trained; for a training its
        source, empty where it has none."""
        named = job.spec.get("source" if job.kind == "train" else "victim")
        return str(named) if named is not None else next(iter(job.inputs), "")

    def victim(self, job: Job, inputs: Mapping[str, Result]) -> Victim:
        """The network of a job, on the device; of a training, its source."""
        name = self.name(job)
        if name in self._adopted:
            return self._adopted[name]
        if name in self._victims and ("victim", name) not in self._lent:
            self._victims.move_to_end(name)
            return self._victims[name]

        def read() -> Victim:
            if name in inputs:
                return trained.load(self.place.root / inputs[name]["folder"])
            return load_victim(name, self.place.model_dir)

        victim: Victim = self._read(("victim", name), read).to(self.place.device)
        self._victims[name] = victim
        if len(self._victims) > _VICTIMS:
            self._victims.popitem(last=False)
        return victim

    def target(self, job: Job, inputs: Mapping[str, Result]) -> Target:
        """The network of a job made ready once (pre-flight, judge, copy) on the first images of its data."""
        victim = self.victim(job, inputs)
        dataset, preprocessing = job.spec["dataset"], job.spec.get("preprocessing", "")
        # Also by content: other weights under the same name are another network.
        name = (self.name(job), victim.sha256, dataset, preprocessing)
        if name not in self._targets:
            need = ("images", dataset, preprocessing, "0", str(PREFLIGHT))
            first = self._read(need, lambda: self._first(dataset, preprocessing)).on(self.place.device)
            victim.check_fits(first.id, first.shape, first.classes)
            self._targets[name] = Target.prepare(victim.model, first.pixels, first.labels, self.place.batch_size)
            if len(self._targets) > _VICTIMS:
                self._targets.popitem(last=False)
        return self._targets[name]

    def test(self, dataset: str, preprocessing: str) -> Dataset:
        """A test split, loaded once."""
        if (dataset, preprocessing) not in self._data:
            view = View(preprocessing)
            self._data[dataset, preprocessing] = data.load(dataset, "test", self.place.data_dir, view)
        return self._data[dataset, preprocessing]

    def _first(self, dataset: str, preprocessing: str) -> Dataset:
        test = self.test(dataset, preprocessing)
        return test.select(range(min(PREFLIGHT, len(test))))

    @staticmethod
    def _images(job: Job) -> Need:
        start, stop = job.spec.get("start", 0), job.spec.get("stop", "all")
        return ("images", job.spec["dataset"], job.spec.get("preprocessing", ""), str(start), str(stop))

    def _fingerprint(self, job: Job) -> str:
        """Of the job's examples; looked at once, because every chain of every victim asks for the same shards."""
        need = self._images(job)
        if need in self._lent:
            return self.part(job).fingerprint
        if need not in self._fingerprints:
            self._fingerprints[need] = self.part(job).fingerprint
        return self._fingerprints[need]

    def part(self, job: Job) -> Dataset:
        """The examples an evaluation job is about, not decoded."""
        part: Dataset = self._read(self._images(job), lambda: self._part(job))
        return part

    def _part(self, job: Job) -> Dataset:
        whole = self.test(job.spec["dataset"], job.spec.get("preprocessing", ""))
        if job.kind == "clean":
            return whole.first(job.spec["stop"]) if "stop" in job.spec else whole
        start, stop = job.spec["start"], job.spec["stop"]
        return whole.first(stop).select(range(start, stop))

    def splits(self, job: Job) -> tuple[Dataset, Dataset]:
        """The training and validation examples of a training job; those of the last two kinds stay loaded."""
        spec, shots = job.spec, job.spec.get("shots")
        view, seed = View(spec.get("preprocessing", "")), spec["settings"]["seed"]
        need: Need = ("splits", job.name)
        if need in self._lent:
            lent: tuple[Dataset, Dataset] = self._lent[need]
            return lent
        kind = (spec["dataset"], view, shots, None if shots is None else seed)
        if kind not in self._splits:
            root = self.place.data_dir
            self._splits[kind] = self._read(need, lambda: loop.load_splits(spec["dataset"], root, view, shots, seed))
            if len(self._splits) > 2:
                self._splits.popitem(last=False)
        return self._splits[kind]

    def needs(self, job: Job, inputs: Mapping[str, Result]) -> list[Need]:
        """All that the job reads, as a worker may ask for it."""
        if job.kind == "train":
            return [("splits", job.name), *([("victim", self.name(job))] if self.name(job) else [])]
        first = ("images", job.spec["dataset"], job.spec.get("preprocessing", ""), "0", str(PREFLIGHT))
        made = [("examples", inputs[job.inputs[-1]]["examples"]["path"])] if job.kind == "judge" else []
        return [("victim", self.name(job)), self._images(job), first, *made]

    def lend(self, need: Need, job: Job, inputs: Mapping[str, Result]) -> Any:
        """The driver's answer to a worker that said NotHereError: the thing itself, decoded."""
        if need[0] == "victim":
            return self.victim(job, inputs).to("cpu")
        if need[0] == "images":
            part = self._first(need[1], need[2]) if need[3:] == ("0", str(PREFLIGHT)) else self.part(job)
            return part.on("cpu")
        if need[0] == "splits":
            return tuple(split.on("cpu") for split in self.splits(job))
        return read_examples(self.place.root, inputs[job.inputs[-1]]["examples"])["points"]


@cache
def hardware(device: str) -> str:
    """One line about what ran: the processor's or the GPU's name, threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = "CPU"
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {torch.get_num_threads()} thread(s)"
