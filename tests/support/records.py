"""Made records, for the tests of everything that is a function of records."""

from __future__ import annotations

import csv
import io
from typing import Any

from transferbench.leaderboard import build
from transferbench.results.records import Bits, ChainRecord, CraftedRecord, Origin, Record, Stamp, digest

N = 40


ORIGIN = Origin(command=["test"], commit="", dirty=False, suite={}, keep_examples="fooled", python="3.11")


def stamped(record: Record) -> Record:
    stamp = Stamp(record=digest(record), examples={}, version="0", points=0, changed_ties=0, disagreements=0)
    return record.model_copy(update={"stamp": stamp})


def first(k: int) -> list[bool]:
    return [place < k for place in range(N)]


def chain(name: str, bits: list[bool], norm: str = "") -> ChainRecord:
    return ChainRecord(
        name=name,
        norm=norm or name,  # type: ignore[arg-type]
        eps="8/255",
        attacks=[{"id": "apgd-ce"}],
        robust=Bits.of(bits),
        by_attack=[],
        ties=0,
        jobs=[],
        forwards=100,
        backwards=90,
    )


def crafted(attack: str, flipped: int, source: str = "src-s0", tries: int = 8) -> CraftedRecord:
    """The last try flips the first `flipped` examples, the others none."""
    flips = [Bits.of(first(0))] * (tries - 1) + [Bits.of(first(flipped))]
    return CraftedRecord(source=source, norm="Linf", eps="0.1", attack={"id": attack}, flips=flips, jobs=[])


def record(victim: str = "a-s0", robust: int = 20, **changes: Any) -> Record:
    given: dict[str, Any] = {
        "suite": "test",
        "protocol": "short",
        "role": "victim",
        "victim": victim,
        "method": "lwf",
        "source": "src-s0",
        "network": "net",
        "source_dataset": "letters",
        "target_dataset": "digits",
        "seed": 0,
        "n": N,
        "image_shape": (1, 8, 8),
        "data_fingerprint": "f" * 32,
        "class_counts": [20, 20],
        "weights_sha256": "a" * 64,
        "flags": [],
        "clean": Bits.of(first(36)),
        "clean_full": (90, 100),
        # The survivors of L1 are the last of Linf's, so that the union is not the smallest rate.
        "chains": [
            chain("Linf", first(robust)),
            chain("L2", first(robust + 2)),
            chain("L1", [4 <= place < robust + 4 for place in range(N)]),
            chain("pgd20_linf", first(robust + 1), "Linf"),
        ],
        "crafted": [crafted("pretrained-neuron", 9), crafted("random-sign", 3), crafted("source-pgd", 7, tries=1)],
        "versions": {},
        "folded": True,
        "origin": ORIGIN,
        "cost": {"seconds": 1.5, "hardware": "cpu"},
    }
    return Record(**{**given, **changes})


def source() -> Record:
    chains = [chain(norm, first(30)) for norm in ("Linf", "L2", "L1")]
    return record("src-s0", role="source", source="", chains=chains, crafted=[], clean_full=None)


def table(records: list[Record]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(build.render(records)["leaderboard.csv"])))


def three() -> list[Record]:
    """A source, a whole row with a curve, and a row of which one norm is missing."""
    curve = [chain("Linf@2/255", first(30), "Linf"), chain("Linf@16/255", first(4), "Linf")]
    at = {"Linf@2/255": "2/255", "Linf@16/255": "16/255"}
    curve = [part.model_copy(update={"eps": at[part.name]}) for part in curve]
    whole = record("whole-s0", flags=["randomised"])
    whole = whole.model_copy(
        update={"chains": [*whole.chains, *curve], "crafted": [*whole.crafted, crafted("source-pgd", 2, "other-s0", 1)]}
    )
    partial = record("part-s0", chains=[chain("Linf", first(25))], crafted=[], clean_full=None, method="probe")
    return [source(), whole, partial]
