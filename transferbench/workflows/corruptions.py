"""Measuring a model on corrupted images, as RobustBench does: accuracy at every corruption and severity of a benchmark.

The clean images of an evaluation and the corrupted ones are the same images, the first n; RobustBench's own n is all of
them (10000 of CIFAR, 5000 of ImageNet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transferbench import data
from transferbench.base import registry
from transferbench.base.corruptions import CORRUPTION_THREATS, CorruptionBenchmark, CorruptionThreat, benchmark
from transferbench.base.dataset_id import DatasetId
from transferbench.base.errors import InputError
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import ThreatName
from transferbench.data import Dataset, View, cifar_c, imagenet_c
from transferbench.jobs.correct import CorrectJob
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Results
from transferbench.jobs.networks import NetworkReference
from transferbench.models.cards import ModelCard
from transferbench.models.victim import Victim
from transferbench.results.records import Bits, CorruptedRecord, CorruptionRecord
from transferbench.scheduling.plan import CorruptedImages, Evaluation, Images

_ROBUSTBENCH = "robustbench-"
"""Begins the method on the cards of RobustBench's models; the rest is the threat of its board."""


def own_threat(card: ModelCard) -> str:
    """The threat that a public model was trained for, by its card; empty where the card names none."""
    return card.method.removeprefix(_ROBUSTBENCH) if card.method.startswith(_ROBUSTBENCH) else ""


def named(threats: Sequence[ThreatName]) -> tuple[CorruptionThreat, ...]:
    """The threats of corruptions among those that the user named."""
    return tuple(threat for threat in CORRUPTION_THREATS if threat in threats)


def unmeasured(card: ModelCard, threats: Sequence[ThreatName]) -> str:
    """The model's own threat where an evaluation leaves it out: a model for corruptions that is attacked, and one for
    a norm that is measured on corrupted images alone. Empty otherwise."""
    own, corrupted = own_threat(card), named(threats)
    if not own or own in threats:
        return ""
    return own if own in CORRUPTION_THREATS or len(corrupted) == len(threats) else ""


def check_data(
    threats: Sequence[CorruptionThreat], clean: Dataset, victim: Victim, settings: RunSettings, download: bool
) -> list[CorruptionBenchmark]:
    """The benchmarks of the threats on a data set. InputError where one does not exist, files are missing, or the
    images do not fit the network; all corruptions are looked for, one is read."""
    root, dataset = settings.data_dir, clean.id
    benchmarks = [benchmark(threat, DatasetId.parse(dataset).base) for threat in threats]
    for one in benchmarks:
        if download and registry.missing(registry.find("data", one.family), root or data.FOLDER):
            data.download(one.family, root)
        module = cifar_c if one.family in cifar_c.IDS else imagenet_c
        for part in one.parts():
            module.require(part.dataset, root or data.FOLDER)
        first = _dataset_id(next(one.parts()).dataset, dataset)
        images = data.load(first, "test", root, View())
        victim.check_fits(first, images.shape, images.classes)
        if images.first(len(clean)).labels.tolist() != clean.labels.tolist():
            raise InputError(f"data set {first}: its labels are not those of the clean images of {dataset}, in order")
    return benchmarks


def plan(
    evaluation: Evaluation, benchmarks: Sequence[CorruptionBenchmark], network: NetworkReference, images: Images
) -> Evaluation:
    """The evaluation with a job for every corruption and severity, and one for the clean images where there is no
    chain."""
    prepared_on = (images.dataset, images.preprocessing)
    corrupted = [
        CorruptedImages(
            one,
            part.corruption,
            part.severity,
            CorrectJob(
                f"{evaluation.victim}: {part.corruption} {part.severity}",
                network,
                ImagesInput(_dataset_id(part.dataset, images.dataset), "", stop=images.n),
                prepared_on=prepared_on,
            ),
        )
        for one in benchmarks
        for part in one.parts()
    ]
    clean = CorrectJob(f"{evaluation.victim}: clean images", network, ImagesInput(*prepared_on, stop=images.n))
    needs_clean = bool(corrupted) and not evaluation.chains
    return replace(evaluation, corrupted=corrupted, clean_bits=clean if needs_clean else None)


def _dataset_id(corrupted: str, clean: str) -> str:
    """The corrupted data set with the classes of the clean one."""
    return str(DatasetId(corrupted, DatasetId.parse(clean).items))


def records(evaluation: Evaluation, results: Results, fingerprints: dict[str, str]) -> list[CorruptionRecord]:
    """The benchmarks of which every part has a result. `fingerprints` are the images', by the name of the job."""
    found = []
    for one in dict.fromkeys(part.benchmark.threat for part in evaluation.corrupted):
        parts = [part for part in evaluation.corrupted if part.benchmark.threat == one]
        if all(part.job.name in results for part in parts):
            measured = [_record(part, results, fingerprints) for part in parts]
            found.append(CorruptionRecord(threat=one, parts=measured))
    return found


def _record(part: CorruptedImages, results: Results, fingerprints: dict[str, str]) -> CorruptedRecord:
    result = results.of(part.job)
    return CorruptedRecord(
        corruption=part.corruption,
        severity=part.severity,
        correct=Bits(n=result.n, hex=result.correct),
        data_fingerprint=fingerprints[part.job.name],
        job=result.key,
    )


def description(benchmarks: Sequence[CorruptionBenchmark]) -> str:
    """The protocol of an evaluation on corrupted images alone, in a sentence."""
    parts = [f"{len(one.names)} corruptions at 5 severities of {one.family}" for one in benchmarks]
    return f"RobustBench's corruptions: accuracy over {' and over '.join(parts)}, no attack"


def check_request(threats: Sequence[ThreatName], attacks: Sequence[str], backend: str, has_source: bool) -> None:
    """InputError for words about attacks where corrupted images alone are asked for."""
    if not threats or len(named(threats)) < len(threats):
        return
    for given, option in ((attacks, "--attacks"), (backend != "transferbench", "--backend"), (has_source, "--source")):
        if given:
            raise InputError(f"{option}: nothing is attacked under {','.join(threats)}; leave it out, or add a norm")
