"""Chains against one model through a folder: what an earlier, killed or smaller evaluation finished is not run again.

For models that come as Python objects (api.py). A victim has a file whose hash names it; here the name is made of
the model's tensors and of what it answers: its logits and input gradients on the first images of a shard, so that
another architecture or normalisation around the same weights is another model.
"""

from __future__ import annotations

import hashlib
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.results import Cost, Verdict
from transferbench.base.specifications import SHARD, Chain
from transferbench.data import Dataset
from transferbench.engine.chain import Target
from transferbench.engine.reference import BATCH_SIZE
from transferbench.engine.search_model import outputs
from transferbench.engine.verdicts import ChainResult
from transferbench.jobs import kinds
from transferbench.jobs.job import Job
from transferbench.models.weights import digest_of
from transferbench.store.store import Store, key_of

_ANSWERS = 16


def run_stored(
    root: Path, target: Target, chains: dict[str, Chain], dataset: Dataset, seed: int, backend: str
) -> dict[str, ChainResult]:
    """Each chain's result by its name. Finished shards of 256 are taken from the store in `root`.

    InputError where the folder cannot be used, or where a model that is randomised or keeps state between calls
    would make what is stored and what is run anew two different things.
    """
    moving = {"randomised", "state-between-calls"} & set(target.flags)
    if moving:
        raise InputError(
            f"store={str(root)!r}: the model is {moving.pop()}, its verdicts cannot be resumed: leave it out"
        )
    weights = digest_of(target.judge.model)
    with Store(root) as store:
        return {
            name: _joined(
                [
                    _shard(
                        store,
                        target,
                        chain,
                        dataset.select(range(start, min(start + SHARD, len(dataset)))),
                        start,
                        seed,
                        backend,
                        weights,
                    )
                    for start in range(0, len(dataset), SHARD)
                ],
                dataset,
            )
            for name, chain in chains.items()
        }


def attack_versions(chain: Chain, backend: str) -> str | list[int]:
    """What must not change between two runs of a chain: the version of each of its attacks, or the reference's."""
    if backend == "autoattack":
        return metadata.version("pyautoattack")
    return [registry.find("attacks", spec.id).load().VERSION for spec in chain.attacks]


def _shard(
    store: Store,
    target: Target,
    chain: Chain,
    shard: Dataset,
    start: int,
    seed: int,
    backend: str,
    weights: str,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    job = Job(
        "attack",
        f"examples from {start}: {chain.threat}",
        {"chain": chain.as_dict(), "start": start, "stop": start + len(shard), "seed": seed, "backend": backend},
    )
    content = {
        "weights": weights,
        "answers": _answers(target.judge.model, shard),
        "data": shard.fingerprint,
        "version": attack_versions(chain, backend),
        "device": shard.pixels.device.type,
        "precision": "fp32",
        "fold": target.frozen.folded,
        **({"batch": target.batch_size or BATCH_SIZE} if backend == "autoattack" else {}),
    }
    key = key_of(job, content)
    found = store.find(key)
    if found is not None:
        return found, store.read_examples(found["examples"])
    began = time.perf_counter()
    result, tensors = kinds.attack(target, chain, shard, seed, backend, checkpoint=store.checkpoint(key))
    result["examples"] = store.write_examples(key, tensors)
    store.finish(key, job, content, result, time.perf_counter() - began)
    return result, tensors


def _joined(shards: list[tuple[dict[str, Any], dict[str, torch.Tensor]]], dataset: Dataset) -> ChainResult:
    verdicts: list[Verdict] = []
    points, cost, by_attack = dataset.pixels.clone(), Cost(), [dict(part) for part in shards[0][0]["by_attack"]]
    place = {int(id): at for at, id in enumerate(dataset.ids)}
    for number, (result, tensors) in enumerate(shards):
        columns = result["verdicts"]
        verdicts += [Verdict(*row) for row in zip(*(columns[name] for name in Verdict._fields), strict=True)]
        at = torch.tensor([place[int(id)] for id in tensors["ids"]], dtype=torch.int64, device=points.device)
        points[at] = tensors["points"].to(points.device)
        cost.add(Cost(**result["cost"]))
        for total, part in zip(by_attack, result["by_attack"], strict=True):
            if number:
                total |= {name: total[name] + part[name] for name in part if name not in ("attack", "tries")}
    return ChainResult(verdicts, points, cost, by_attack)


def _answers(model: nn.Module, shard: Dataset) -> str:
    digest = hashlib.sha256()
    for part in outputs(model, shard.pixels[:_ANSWERS]):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
