"""Results of jobs -> the record of a victim."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from transferbench import beside
from transferbench.cards import ModelCard
from transferbench.data import Dataset
from transferbench.engine import summarise
from transferbench.engine.checks import at_chance
from transferbench.plan import Measured
from transferbench.records import Record, dump
from transferbench.suites import Suite
from transferbench.train import versions
from transferbench.types import Chain, Job, file_stem


def write_records(root: Path, records: list[Record]) -> None:
    """records/<victim>.json below the folder, each beside and renamed."""
    (root / "records").mkdir(exist_ok=True)
    for record in records:
        beside.write_text(root / "records" / f"{file_stem(record.victim)}.json", dump(record))


def record_of(
    suite: Suite,
    measured: Measured,
    card: ModelCard,
    sha256: str,
    source_dataset: str,
    results: Mapping[str, dict[str, Any]],
    shard: Dataset,
    device: str,
    training: dict[str, Any] | None,
) -> Record:
    """The record of one victim. `results` by job name; `shard` the n attacked examples; `training` its job's
    result, None for a victim that was not trained in this run."""
    chains = [
        summarise.chain_record(Chain.from_dict(done[0].spec["chain"]), [results[job.name] for job in done], suite.n)
        for done in measured.chains.values()
    ]
    first = [results[job.name] for job in next(iter(measured.chains.values()))]
    source_only = None
    if measured.crafted:
        judged: dict[str, list[dict[str, Any]]] = {}
        crafts: dict[str, Job] = {}
        for craft, judge in measured.crafted:
            id = craft.spec["attack"]["id"]
            crafts[id] = craft
            judged.setdefault(id, []).append(results[judge.name])
        (attack, craft), (control, control_craft) = crafts.items()
        source_only = summarise.source_only_record(
            craft.spec["norm"],
            craft.spec["eps"],
            craft.spec["attack"],
            control_craft.spec["attack"],
            judged[attack],
            judged[control],
        )
    evaluated = [results[job.name] for done in measured.chains.values() for job in done]
    evaluated += [results[judge.name] for _, judge in measured.crafted]
    clean = results[measured.clean.name] if measured.clean is not None else None
    cost = summarise.total_cost(evaluated)
    correct = summarise.clean_bits(first)
    flags = {flag for result in evaluated for flag in result.get("flags", [])}
    if at_chance(correct.count, suite.n, len(card.classes)):
        flags.add("accuracy-at-chance")
    trainings = [training] if training is not None else []
    return Record(
        suite=suite.name,
        protocol=suite.protocol.description,
        role="source" if measured.role == "source" else "victim",
        victim=measured.name,
        method=card.method,
        source=card.source,
        network=card.network,
        source_dataset=source_dataset,
        target_dataset=measured.dataset,
        seed=measured.seed,
        n=suite.n,
        data_fingerprint=shard.fingerprint,
        class_counts=shard.class_counts(),
        weights_sha256=sha256,
        flags=sorted(flags),
        clean=correct,
        clean_full=None if clean is None else (clean["correct"], clean["n"]),
        chains=chains,
        source_only=source_only,
        versions=versions(),
        cost={
            "train_seconds": round(sum(result["seconds"] for result in trainings), 2),
            "seconds": round(sum(result["seconds"] for result in evaluated), 2),
            "wasted": cost.wasted,
            "checks": cost.checks,
            "peak_memory_mb": max(result["memory"] for result in [*trainings, *evaluated]),
            "hardware": hardware(device),
        },
    )


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
