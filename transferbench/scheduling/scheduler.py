"""Finished jobs, whatever happens: carried out here or on a cluster, kept in the store, never run twice."""

from __future__ import annotations

import heapq
import math
import shutil
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from transferbench.base.errors import FaultError, InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import KEEP, Keep
from transferbench.base.versions import versions
from transferbench.jobs.executor import Executor, Need, NotHereError, Place, Result
from transferbench.jobs.job import Job
from transferbench.models import trained
from transferbench.models.cards import ModelCard
from transferbench.scheduling.backends.dask import Answer
from transferbench.scheduling.backends.local import Here, Reporter, There
from transferbench.scheduling.backends.worker import Task, UnwantedError
from transferbench.store.store import Store, key_of

_HANDLES = 64
"""So many lent things are kept on the workers at once."""


class Runner:
    """Carries jobs out, in this process or on a cluster, through the store of a folder.

    A job that fails by a fault, or takes its workers with it, is told and left out with all that needs it; the rest
    goes on. `fresh` runs everything anew: an older result is replaced when the new one is there.
    """

    def __init__(
        self,
        store: Store,
        device: str = "cpu",
        batch_size: int | None = None,
        data_dir: Path | None = None,
        model_dir: Path | None = None,
        keep: Keep = KEEP,
        cluster: str | None = None,
        fresh: bool = False,
        loader_workers: int = 0,
    ) -> None:
        data_dir, model_dir = (None if path is None else path.resolve() for path in (data_dir, model_dir))
        self.store, self.cluster, self.fresh = store, cluster, fresh
        self.place = Place(store.root.resolve(), device, batch_size, data_dir, model_dir, keep, loader_workers)
        # With a cluster the driver only reads and lends: it needs no GPU of its own.
        self.executor = Executor(self.place if cluster is None else replace(self.place, device="cpu"))
        self.results: dict[str, Result] = {}
        """By job name: what `execute` returned, where it was kept, and the `key` it is found by."""
        self.failures: dict[str, str] = {}
        self._lent: dict[Need, Any] = {}

    def run(self, planned: Sequence[Job], reporter: Reporter, here: bool = False) -> None:
        """Finish every job that can be; results by job name are in `results`, reasons in `failures` afterwards.

        `here`: in this process, whatever the cluster.
        """
        self.store.plan(planned)
        self._estimate(planned, reporter)
        known = {job.name: job for job in planned}

        def told(message: dict[str, Any]) -> None:
            reporter.update(known[message["job"]], message["done"], message["total"], message["robust"])

        if self.cluster is None or here:
            workplace: Here | There = Here(self.executor, self.store, reporter)
        else:
            workplace = There(self.cluster, self.place.device, told)
        with workplace:
            _Progress(self, workplace, planned, reporter).run()

    def _estimate(self, planned: Sequence[Job], reporter: Reporter) -> None:
        """Say how much the end points may take, and warn where the disk is smaller."""
        keep, most = self.place.keep, 0
        for job in planned:
            if job.kind == "attack" and keep.kind != "none":
                rows = job.spec["stop"] - job.spec["start"]
                rows = min(rows, keep.count) if keep.kind == "sample" else rows
                shape = self.executor.test(job.spec["dataset"], job.spec.get("preprocessing", "")).shape
                most += rows * math.prod(shape) * 4
        free = shutil.disk_usage(self.store.root).free
        if most:
            reporter.note(f"examples ({keep}): at most {most / 2**20:.1f} MiB")
        if most > free:
            reporter.note(f"only {free / 2**20:.1f} MiB are free: --keep-examples sample:N keeps fewer")

    def task(self, job: Job, key: str, content: dict[str, Any], topic: str) -> Task:
        return Task(job, key, self._inputs(job), content, self.place, topic, versions())

    def reusable(self, job: Job, key: str) -> Result | None:
        """The finished job's result, where all that it speaks of is still there."""
        found = self.store.find(key)
        if found is None:
            return None
        root = self.store.root
        try:
            if job.kind == "train" and trained.load(root / found["folder"]).sha256 != found["sha256"]:
                return None
            if job.kind == "craft":
                # Others read it: a damaged set must not stop them later.
                self.store.read_examples(found["examples"])
        except InputError:
            return None
        if job.kind == "attack":
            # A store of an older version says nothing of what was kept: it is run anew.
            if not {"kept", "hardware"} <= found.keys() or not Keep.parse(found["kept"]).covers(self.place.keep):
                return None
            if "examples" in found and not (root / found["examples"]["path"]).is_file():
                return None
        return found

    def keep(self, job: Job, key: str, result: Result, tensors: dict[str, Any]) -> Result:
        """Write what a finished job leaves behind, and the result that speaks of it."""
        if job.kind == "train":
            folder = self.store.root / "victims" / file_stem(job.spec["victim"])
            with self.store.room():
                card = trained.save(folder, tensors, ModelCard(**result.pop("card")))
            return result | {"folder": str(folder.relative_to(self.store.root)), "sha256": card.sha256}
        if tensors and result.get("kept") != "none":
            return result | {"examples": self.store.write_examples(key, tensors)}
        return result

    def lent(self, job: Job) -> dict[Need, Any]:
        """Handles to what the job needs and workers were found not to have."""
        needs = self.executor.needs(job, self._inputs(job))
        return {need: self._lent[need] for need in needs if need in self._lent}

    def lend(self, need: Need, job: Job, share: Callable[[Any], Any]) -> None:
        """Give workers something by content. The handles that were made first are let go, and made again if need be."""
        if need not in self._lent:
            self._lent[need] = share(self.executor.lend(need, job, self._inputs(job)))
        while len(self._lent) > _HANDLES:
            del self._lent[next(iter(self._lent))]

    def _inputs(self, job: Job) -> dict[str, Result]:
        return {name: self.results[name] for name in job.inputs}

    def raise_failures(self) -> None:
        """FaultError naming what failed, if anything did."""
        if self.failures:
            first = next(iter(self.failures.values()))
            others = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise FaultError(f"{first}{others}; the rest is finished and kept: transferbench runs {self.store.root}")


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as ever, and is also noted: where a library's callback swallows it, whoever
    looks at the list sees it still."""
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


class _Progress:
    """One run over a plan: which jobs wait for which, which are under way."""

    def __init__(self, runner: Runner, place: Here | There, planned: Sequence[Job], reporter: Reporter) -> None:
        self.runner, self.place, self.planned, self.reporter = runner, place, planned, reporter
        self.waits_for: dict[int, int] = {}
        self.followers: dict[str, list[int]] = defaultdict(list)
        self.ready: list[int] = []
        self.asked: dict[str, set[Need]] = defaultdict(set)
        self.running: dict[str, tuple[int, str, dict[str, Any]]] = {}
        for number, job in enumerate(planned):
            missing = [name for name in set(job.inputs) if name not in runner.results]
            self.waits_for[number] = len(missing)
            for name in missing:
                self.followers[name].append(number)
            if not missing:
                heapq.heappush(self.ready, number)

    def run(self) -> None:
        try:
            with _interruptible() as interrupted:
                self._run(interrupted)
        except BaseException:
            # Whatever stopped us, answers that are there already are not thrown away.
            while self.running and self.place.finished:
                self._settle(self.place.next())
            raise

    def _run(self, interrupted: list[int]) -> None:
        while self.ready or self.running:
            while self.ready and self.place.room > 0:
                self._start(heapq.heappop(self.ready))
            if self.running:
                self._settle(self.place.next())
            if interrupted:
                raise KeyboardInterrupt

    def _start(self, number: int) -> None:
        job, runner = self.planned[number], self.runner
        lost = [name for name in job.inputs if name in runner.failures]
        if lost:
            self._failed(number, "", f"{job.label}: not run, because what it needs has failed")
            return
        content = runner.executor.content(job, {name: runner.results[name] for name in job.inputs})
        if isinstance(self.place, There):
            content["device"] = runner.place.device.partition(":")[0]
        key = key_of(job, content)
        self.reporter.begin(job, number, len(self.planned))
        found = None if runner.fresh else runner.reusable(job, key)
        if found is not None:
            runner.store.mark(job, key, "done")
            self._done(number, key, found, reused=True)
            return
        changes = [] if runner.store.find(key) is not None else runner.store.changes(job, content)
        if changes:
            self.reporter.note(f"{job.label}: run anew, {'; '.join(changes[:3])}")
        if runner.fresh:
            runner.store.checkpoint(key).remove()
        runner.store.mark(job, key, "running")
        self._give(number, key, content)

    def _give(self, number: int, key: str, content: dict[str, Any]) -> None:
        job = self.planned[number]
        self.running[job.name] = (number, key, content)
        self.place.give(self.runner.task(job, key, content, self.place.topic), self.runner.lent(job))

    def _settle(self, answer: Answer) -> None:
        number, key, content = self.running.pop(answer.name)
        job, runner = self.planned[number], self.runner
        if isinstance(answer.error, NotHereError):
            need = answer.error.args[0]
            if need in self.asked[job.name]:
                self._failed(number, key, f"{job.label}: a worker finds another {need[0]} than the driver gave it")
                return
            self.asked[job.name].add(need)
            runner.lend(need, job, self.place.share)
            self._give(number, key, content)
        elif isinstance(answer.error, UnwantedError):
            # A worker that lost sight of us for a while stops, though we still want its answer.
            self._give(number, key, content)
        elif answer.lost:
            self._failed(number, key, f"{job.label}: {answer.lost}")
        elif isinstance(answer.error, FaultError):
            self._failed(number, key, f"{job.label}: {answer.error}")
        elif answer.error is not None:
            raise answer.error
        else:
            result, tensors = answer.value
            result = runner.keep(job, key, dict(result), tensors)
            runner.store.finish(key, job, content, result, result["seconds"])
            self._done(number, key, result, reused=False)

    def _done(self, number: int, key: str, result: Result, reused: bool) -> None:
        job = self.planned[number]
        self.runner.results[job.name] = result | {"key": key}
        self.reporter.end(job, reused)
        self._release(job)

    def _failed(self, number: int, key: str, reason: str) -> None:
        job = self.planned[number]
        self.runner.failures[job.name] = reason
        self.runner.store.mark(job, key, "failed", reason)
        self.reporter.failed(job, reason)
        self._release(job)

    def _release(self, job: Job) -> None:
        for follower in self.followers.pop(job.name, []):
            self.waits_for[follower] -= 1
            if self.waits_for[follower] == 0:
                heapq.heappush(self.ready, follower)
