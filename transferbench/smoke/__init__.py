"""`run SUITE --smoke`: every method, network and loader of a suite at least once, in a minute or two, on a CPU.

Trainings of a few steps on made images from random source weights, attacked for two iterations on four examples. It
tells whether a suite can run here before days are spent on it, and nothing else: all that it writes is marked
untrained, and is never a row of a leaderboard.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from transferbench.base.errors import InputError
from transferbench.results.records import Record
from transferbench.smoke import trees
from transferbench.suites import Suite

N = 4


class _Patches(ExitStack):
    """Attributes replaced until the end of the block, by the names pytest's monkeypatch has for it."""

    def setattr(self, target: object, name: str, value: object) -> None:
        self.enter_context(mock.patch.object(target, name, value))


@contextmanager
def made(suite: Suite, folder: Path) -> Iterator[tuple[Path, Path]]:
    """(folder of data sets, folder of models) with made images and random weights of all that the suite names.

    Files are in their official layouts and go through the real loaders; within the block those check them by the
    hashes of what was made. InputError for a data set or a model that cannot be made.
    """
    import torch

    from transferbench.base import registry
    from transferbench.engine import chain, judge
    from transferbench.engine.search_model import as_is
    from transferbench.jobs import executor
    from transferbench.models import networks, victims
    from transferbench.models.loaders import torchvision_models

    data, models = folder / "data", folder / "models"
    shutil.rmtree(folder, ignore_errors=True)
    with _Patches() as patches:
        ids = {id for block in suite.training for id in (block.source_dataset, block.target_dataset) if id}
        for id in sorted(ids):
            needs = registry.literal(registry.find("data", id.partition(":")[0]), "NEEDS").get(id)
            if needs:
                trees.make(id, data, patches)
        patches.setattr(torchvision_models, "_check_hash", lambda path: None)
        # No verdict is kept, so a row's bits may depend on its neighbours, and making a fast copy does not pay.
        patches.setattr(judge, "FLOOR", 1)
        patches.setattr(chain, "freeze", lambda model, sample: as_is(model))
        patches.setattr(executor, "PREFLIGHT", 2)
        threads = torch.get_num_threads()
        patches.callback(torch.set_num_threads, threads)
        for id in sorted({source.model for block in suite.training for source in block.sources if source.model}):
            card = victims.card(id)
            if not card.weights:
                raise InputError(f"--smoke: the weights of {id} are not one file below --model-dir")
            path = models / card.weights
            path.parent.mkdir(parents=True, exist_ok=True)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                torch.save(networks.build(card.network, len(card.classes)).model.state_dict(), path)
        yield data, models


def told(suite: Suite, records: Sequence[Record]) -> str:
    """What a smoke run prints at its end."""
    used = {
        "methods": {record.method for record in records},
        "networks": {record.network for record in records},
        "data sets": {id for record in records for id in (record.source_dataset, record.target_dataset) if id},
    }
    parts = [f"{len(names)} {kind} ({', '.join(sorted(names))})" for kind, names in used.items()]
    return (
        f"{suite.name}: {len(records)} networks went through everything; {'; '.join(parts)}; no number means anything"
    )


def use_all_cores() -> None:
    """After the runner was made, which takes one thread so that a seed is a result."""
    import os

    import torch

    torch.set_num_threads(os.cpu_count() or 1)
