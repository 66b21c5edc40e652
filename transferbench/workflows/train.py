"""`train`: one victim with a method, through the same jobs, scheduler and store as a suite."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from transferbench import data, methods
from transferbench.base import dataset_id, registry, strict_yaml
from transferbench.base.errors import InputError
from transferbench.base.names import victim_name
from transferbench.base.results import TrainResult
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import ThreatModel
from transferbench.data import few_shot
from transferbench.data.few_shot import Rule
from transferbench.data.preprocessing import Preprocessing
from transferbench.jobs.networks import PublicNetwork
from transferbench.jobs.train import TrainJob
from transferbench.models import cards, networks, trained
from transferbench.models.catalogue.classes import radii_of
from transferbench.models.victim import Victim
from transferbench.models.victims import canonical
from transferbench.models.victims import load as load_victim
from transferbench.scheduling.reporter import Reporter
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.reader import STORE
from transferbench.store.store import Store, key_of
from transferbench.training import log, plots
from transferbench.training.splits import Splits, load_splits
from transferbench.training.tensorboard import event_writer
from transferbench.training.victim import keeps_head
from transferbench.workflows import read_back
from transferbench.workflows import settings as settings_check
from transferbench.workflows.job_progress import JobProgress

LOG, PICTURE = "log.csv", "curve.png"
FILES = (trained.CARD, trained.WEIGHTS, LOG, PICTURE)
DEFAULT_NETWORK = "small-resnet"
"""The architecture without a source and without --network."""


@dataclass(frozen=True)
class TrainingRequest:
    """What the user asked `train` for. `settings` are hyper-parameters as given, text or numbers."""

    method: str
    target: str
    source: str | None = None
    network: str = ""
    shots: int | None = None
    shots_rule: Rule = "keyed"
    preprocessing: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    download: bool = False


def check(request: TrainingRequest, settings: RunSettings) -> None:
    """InputError for wrong names and values, before any file is looked for."""
    registry.find("methods", request.method)
    victim_name(settings.root)
    dataset_id.find(request.target)
    if request.network:
        registry.find_family("networks", request.network)
    if settings.eval_freq is not None and settings.eval_freq < 1:
        raise InputError(f"--eval-freq {settings.eval_freq}: must be at least 1")
    source = Path(request.source or "").resolve()
    if request.source and (source.parent if source.is_file() else source) == settings.root.resolve():
        raise InputError(f"--out {settings.root}: this is the source's folder; give another one")
    params = methods.build(request.method, dict(request.settings)).params
    few_shot.check(request.target, request.shots_rule, request.shots, params.validation)
    if settings.eval_freq is not None and params.validation == "none":
        raise InputError("--eval-freq measures on validation images, which validation=none does not keep: drop one")


@dataclass(frozen=True)
class PreparedTraining:
    """The training job with its source, loaded and checked before anything is written."""

    job: TrainJob
    source: Victim | None
    splits: Splits
    keeps_head: bool


def load(request: TrainingRequest, settings: RunSettings) -> PreparedTraining:
    """Load the source and find the data. InputError where one is missing."""
    method = methods.build(request.method, dict(request.settings))
    source = None
    if request.source:
        source = load_victim(request.source, settings.model_dir, request.download)
    if request.download:
        data.download(request.target, settings.data_dir)
    network = request.network or ("" if source is not None else DEFAULT_NETWORK)
    shape = source.card.input_shape if source is not None else networks.input_shape(network)
    view = data.View.of(source.card.preprocessing if source is not None else "", shape)
    if request.preprocessing:
        view = data.View(Preprocessing.parse(request.preprocessing).text)
        if not data.are_photographs(request.target):
            raise InputError(f"--preprocessing: {request.target} is no data set of photographs of any size")
    params = method.params
    splits = load_splits(
        request.target, settings.data_dir, view, request.shots, params.seed, params.validation, request.shots_rule
    )
    threats = (source.card.threats if source is not None else {}) or radii_of(request.target)
    if settings.eval_freq is not None and not threats:
        raise InputError(f"--eval-freq: nothing says at which radii: neither the source's card nor {request.target}")
    victim = victim_name(settings.root)
    job = TrainJob(
        f"train {victim}",
        victim=victim,
        method=request.method,
        settings=tuple(methods.stated(method.params).items()),
        dataset=request.target,
        preprocessing=splits[0].preprocessing,
        network=network,
        source=None if source is None else PublicNetwork(canonical(str(request.source), source), source.id),
        shots=request.shots,
        shots_rule=request.shots_rule,
        threats=tuple(ThreatModel(norm, eps) for norm, eps in threats.items()),
    )
    read_back.check(job.recipe, methods.build(request.method, dict(request.settings)), source, splits)
    return PreparedTraining(job, source, splits, keeps_head(method, source, splits[0]))


def check_folder(folder: Path, fresh: bool) -> None:
    """InputError where the folder holds a model that is not the work of `train` itself."""
    has_model = any((folder / name).exists() for name in (trained.CARD, trained.WEIGHTS))
    if has_model and not (folder / STORE).exists() and not fresh:
        raise InputError(f"--out {folder}: a model that is not of `train` is there; give another folder, or --fresh")


def train(prepared: PreparedTraining, scheduler: Scheduler, reporter: Reporter) -> TrainResult:
    """Train the victim into the store's folder: card, weights, log and picture. Returns the result.

    InputError where the folder holds the unfinished training of something else, naming what differs.
    """
    job, store = prepared.job, scheduler.store
    if prepared.source is not None and job.source is not None:
        for note in prepared.source.card.weights_notes:
            reporter.note(f"{prepared.source.id}: {note}")
        scheduler.resources.provide_network(job.source.name, prepared.source)
        kept = "the source's, its classes are the target's" if prepared.keeps_head else "new"
        reporter.note(f"classifier: {kept} (--set new_head=auto|yes|no)")
    images = prepared.splits[0]
    size = "x".join(map(str, images.shape))
    reporter.note(f"images: {size}" + (f" ({images.preprocessing})" if images.preprocessing else ""))
    scheduler.resources.provide_splits(job.splits, prepared.splits)
    if not scheduler.settings.fresh:
        content = job.content(scheduler.resources, scheduler.results)
        changes = store.differs_from_begun(job, key_of(job, content), content)
        if changes:
            raise InputError(
                f"--out {store.root}: the training of something else is there ({'; '.join(changes[:3])}): give another "
                "folder, or --fresh, which drops it"
            )
    scheduler.run([job], reporter)
    scheduler.raise_failures()
    result = scheduler.results.of(job)
    folder = store.root / result.folder
    card = cards.read(folder / trained.CARD)
    trained.save_card(folder, card.model_copy(update={"threats": {threat.norm: threat.eps for threat in job.threats}}))
    log.write(folder / LOG, result.log)
    plots.draw(folder / PICTURE, result.log, card.id)
    return result


class FinishedTraining(NamedTuple):
    """What was prepared and what came of it; `reused`: it was trained before, and nothing was run."""

    prepared: PreparedTraining
    result: TrainResult
    reused: bool


def run(
    request: TrainingRequest,
    settings: RunSettings,
    device: str | None,
    progress: JobProgress,
    tensorboard: bool = False,
) -> FinishedTraining:
    """Train the victim of a checked request (`check`) in the settings' folder, with its store, on the device (None: a
    free GPU, else the CPU), while `progress` shows how far it is; with `tensorboard` also written to its folder
    tensorboard/. InputError before anything is written."""
    settings_check.check(settings)
    settings = settings_check.placed(settings, device, 1)
    if settings.device == "cpu" and settings.threads != 1:
        settings = replace(settings, place=f"using the CPU: {settings.threads} threads in this process")
    prepared = load(request, settings)
    with ExitStack() as stack:
        # Before the folder is created: it refuses to start without the package.
        writer = stack.enter_context(event_writer(settings.root / "tensorboard")) if tensorboard else None
        store = stack.enter_context(open_store(settings))
        stack.enter_context(progress)
        if writer is not None:
            progress.also(writer)
        result = train(prepared, Scheduler(store, settings), progress)
    return FinishedTraining(prepared, result, bool(progress.reused))


def open_store(settings: RunSettings) -> Store:
    """The store of one victim, whose weights and card lie in the folder itself. InputError where it has a victim."""
    check_folder(settings.root, settings.fresh)
    return Store(settings.root, victims="")


def read_config(path: Path) -> dict[str, Any]:
    """The hyper-parameters of a YAML file: a mapping of names to plain values. InputError otherwise."""
    given = strict_yaml.read(path, f"--config {path}")
    if not isinstance(given, dict) or not all(isinstance(value, str | int | float | bool) for value in given.values()):
        raise InputError(f"--config {path}: write it as lines of 'name: value'")
    return {str(name): value for name, value in given.items()}
