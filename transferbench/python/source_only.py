"""`evaluate(source=...)`: attacks that hold the source alone, their controls, and the differences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from transferbench import attacks as attack_plugins
from transferbench import suites
from transferbench.attacks.source_attack import passes_of
from transferbench.base.bits import number_of
from transferbench.base.checkpoint import NO_CHECKPOINT
from transferbench.base.errors import InputError
from transferbench.base.ids import RANDOM_SIGN
from transferbench.base.query_rates import success_rates
from transferbench.base.settings import MIN_ROWS
from transferbench.base.specifications import AttackSpec, ThreatModel
from transferbench.data import Dataset
from transferbench.engine import canonical, controls, preflight
from transferbench.engine.chain import Target, default_slots
from transferbench.engine.crafting import Crafting
from transferbench.engine.memory import Rows
from transferbench.engine.querying import Querying
from transferbench.engine.source_model import SourceModel
from transferbench.engine.universal import UniversalCrafting
from transferbench.engine.verdicts import Examples
from transferbench.jobs.judge import judge_points, points_on
from transferbench.leaderboard import paired
from transferbench.models.features import find_layers
from transferbench.models.victim import Victim
from transferbench.suites import SourceOnly
from transferbench.workflows.carried_attacks import carried
from transferbench.workflows.chosen_attacks import ChosenAttacks
from transferbench.workflows.evaluate_model import as_dataset

if TYPE_CHECKING:
    import pandas as pd


class _Set(NamedTuple):
    """A crafted set, judged: which examples each try flips; `of`: the attack that a control was made of."""

    attack: str
    of: str
    images: str
    flips: list[list[bool]]
    passes: int

    def flipped(self, tries: int | None = None) -> int:
        """The examples that any of the first tries flips, as the bits of a whole number."""
        return number_of([any(row) for row in zip(*self.flips[:tries], strict=True)])


class Held(NamedTuple):
    """What the attacker holds: the source, images of the attacker's own, and the measurements by threat."""

    source: SourceModel
    pool: Tensor | None
    protocols: dict[str, SourceOnly]


def held(
    source: nn.Module | Victim,
    threats: dict[str, ThreatModel],
    chosen: ChosenAttacks,
    every: bool,
    examples: Examples,
    attacker_images: object = None,
) -> Held:
    """Before anything is attacked. InputError for an attack that the source cannot carry, unless `every` one that it
    can was asked for, and for bad images of the attacker's."""
    prepared = _prepared(source, examples)
    defaults = {part.norm: part for part in suites.load("eval").protocol.source_only}
    names = [name for name, threat in threats.items() if threat.norm in defaults]
    wanted = [
        chosen.protocol(defaults[threats[name].norm].model_copy(update={"eps": threats[name].eps})) for name in names
    ]
    kept, _ = carried(prepared, type(prepared.model).__name__, wanted, every)
    pool = None if attacker_images is None else _pool(attacker_images, examples)
    return Held(prepared, pool, dict(zip(names, kept, strict=True)))


def table(held: Held, target: Target, threats: dict[str, ThreatModel], examples: Examples, seed: int) -> pd.DataFrame:
    """Under every threat that defines them: a row per attack, then its control of random signs, then the controls that
    are made of each (`of`).

    `flipped` of the `correct` examples by any of `tries`; `noise`: by as many random signs; `difference` less `noise`
    in points, `low` and `high` its 95 % interval for paired proportions; `images`: what a universal delta was made on.
    """
    import pandas as pd

    shard = as_dataset(examples, target.num_classes)
    rows: list[dict[str, Any]] = []
    for name, protocol in held.protocols.items():
        made = [
            one
            for part in protocol.parts
            for one in _sets(part.spec(), threats[name], held.source, target, shard, seed, held.pool)
        ]
        # A randomised model may be right on an image here and wrong where a set was judged: both must be right.
        correct = number_of((target.clean_logits(examples.x, examples.ids).argmax(1) == examples.y).tolist())
        made.sort(key=lambda one: bool(one.of))
        noise = next(one for one in made if one.attack == RANDOM_SIGN)
        rows += [{"threat": name, **_row(one, noise, correct), "n": len(shard)} for one in made]
    return pd.DataFrame(rows)


def _prepared(source: nn.Module | Victim, examples: Examples) -> SourceModel:
    network = source.model if isinstance(source, Victim) else source
    checked = preflight.check_model(network, examples.x[:16], None)
    network = checked.model
    layers = source.layers if isinstance(source, Victim) and network is source.model else find_layers(network)
    return SourceModel.prepare(network, layers, examples.x[:16], not checked.batch_dependent)


def queried(
    held: Held, target: Target, threats: dict[str, ThreatModel], examples: Examples, seed: int
) -> pd.DataFrame | None:
    """A row per query attack and number of queries, with its control: `fooled` and `control` of the `correct` examples
    within so many `queries`, `difference` in points, `low` and `high` its 95 % interval; None where none was named."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    shard = as_dataset(examples, target.num_classes)
    for name, protocol in held.protocols.items():
        threat = threats[name]
        for part in protocol.queries:
            spec = part.spec()
            field, value = attack_plugins.build(spec, threat, target.num_classes).control
            answers = [
                _answers(one, threat, held.source, target, shard, protocol.starting.spec(), seed)
                for one in (spec, AttackSpec.of(spec.id, **{**dict(spec.params), field: value}))
            ]
            rows += [{"threat": name, "attack": spec.id, **_gap(*pair)} for pair in zip(*answers, strict=True)]
    return pd.DataFrame(rows) if rows else None


class _Within(NamedTuple):
    """The numbers of queries of all examples, to be counted up to `queries`; `n` clean-correct examples."""

    queries: int
    numbers: list[int]
    n: int

    @property
    def fooled(self) -> int:
        """The examples that are fooled, as the bits of a whole number."""
        return number_of([0 < number <= self.queries for number in self.numbers])


def _gap(attack: _Within, control: _Within) -> dict[str, Any]:
    first, second = attack.fooled, control.fooled
    row: dict[str, Any] = {
        "queries": attack.queries,
        "correct": attack.n,
        "fooled": first.bit_count(),
        "control": second.bit_count(),
        "difference": None,
        "low": None,
        "high": None,
    }
    if attack.n:
        row |= zip(("difference", "low", "high"), paired.difference(first, second, attack.n), strict=True)
    return row


def _answers(
    spec: AttackSpec,
    threat: ThreatModel,
    source: SourceModel,
    target: Target,
    shard: Dataset,
    start: AttackSpec,
    seed: int,
) -> list[_Within]:
    """A query attack's counts at each number of queries that is told."""
    attack = attack_plugins.build(spec, threat, target.num_classes)
    slots = target.batch_size or default_slots(shard.pixels[0].numel())
    begin = shard.pixels
    if attack.begins == "crafted":
        built = attack_plugins.build(start, threat, target.num_classes)
        crafting = Crafting(source, built, threat, shard, seed, Rows(slots, MIN_ROWS), NO_CHECKPOINT)
        begin = crafting.run()[0].to(shard.pixels.device)
    querying = Querying(target.judge, source, attack, threat, seed, Rows(slots, MIN_ROWS), NO_CHECKPOINT)
    numbers = querying.run(Examples(shard.pixels, shard.labels, shard.ids), begin).queries
    return [_Within(rate.queries, numbers, rate.n) for rate in success_rates(numbers, attack.queries)]


def _row(one: _Set, noise: _Set, correct: int) -> dict[str, Any]:
    """`correct`: the examples that are right on the clean image, as the bits of a whole number."""
    tries, flipped, n = len(one.flips), one.flipped() & correct, correct.bit_count()
    row: dict[str, Any] = {
        "attack": one.attack,
        "of": one.of,
        "tries": tries,
        "flipped": flipped.bit_count(),
        "correct": n,
        "passes": one.passes,
        "images": one.images,
        "noise": None,
        "difference": None,
        "low": None,
        "high": None,
    }
    if one is not noise and len(noise.flips) >= tries and n:
        other = noise.flipped(tries) & correct
        row["noise"] = other.bit_count()
        row |= zip(("difference", "low", "high"), paired.difference(flipped, other, n), strict=True)
    return row


def _sets(
    spec: AttackSpec,
    threat: ThreatModel,
    source: SourceModel,
    target: Target,
    shard: Dataset,
    seed: int,
    pool: Tensor | None,
) -> Iterator[_Set]:
    """The judged set of an attack, and those of the controls made of it."""
    if pool is None and "images" in attack_plugins.parameters(spec) and _wants_images(spec, threat):
        spec = AttackSpec.of(spec.id, **{**dict(spec.params), "images": "gaussian"})
    attack = attack_plugins.build(spec, threat, target.num_classes)

    def judged(tensors: dict[str, Tensor]) -> list[list[bool]]:
        return [list(flips) for flips in judge_points(target, threat, shard, points_on(shard.pixels, tensors)).flips]

    if attack.scope == "universal":
        crafting = UniversalCrafting(
            source,
            attack,
            shard.shape,
            pool,
            (seed, threat.norm, threat.eps.text),
            str(shard.pixels.device),
            NO_CHECKPOINT,
        )
        deltas = crafting.run()
        passes = attack.tries * attack.steps * max(1, attack.batch)
        yield _Set(spec.id, "", attack.images, judged({"deltas": deltas}), passes)
        for change in controls.OF_DELTAS:
            changed = {"deltas": controls.changed_deltas(change, deltas, threat, seed)}
            yield _Set(change, spec.id, "", judged(changed), 0)
        return
    slots = Rows(target.batch_size or default_slots(shard.pixels[0].numel()), MIN_ROWS)
    points = Crafting(source, attack, threat, shard, seed, slots, NO_CHECKPOINT).run()
    yield _Set(spec.id, "", "", judged({"points": points}), len(shard) * passes_of(attack).backwards)
    for change in controls.OF_POINTS if spec.id != RANDOM_SIGN else ():
        if change == "other-image" and len(shard) == 1:
            continue
        changed = {"points": controls.changed_points(change, shard, points, threat, seed)}
        yield _Set(change, spec.id, "", judged(changed), 0)


def _wants_images(spec: AttackSpec, threat: ThreatModel) -> bool:
    """Whether the attack would be made on images that are not there."""
    return attack_plugins.build(spec, threat, 10).images in ("target", "source")


def _pool(given: object, examples: Examples) -> Tensor:
    """The attacker's images. InputError for another shape, or where they hold an attacked image."""
    images, _, _ = canonical.examples(given, torch.zeros(len(given), dtype=torch.int64))  # type: ignore[arg-type]
    if images.shape[1:] != examples.x.shape[1:]:
        raise InputError(
            f"attacker_images are of shape {tuple(images.shape[1:])}, x is of {tuple(examples.x.shape[1:])}"
        )
    attacked = {image.numpy().tobytes() for image in examples.x.cpu()}
    if any(image.numpy().tobytes() in attacked for image in images.cpu()):
        raise InputError("attacker_images hold an image of x: a delta must not be made on what it is shown on")
    return images.to(examples.x.device)
