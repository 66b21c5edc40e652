"""The attacks that a user names, `apgd-ce:restarts=5,source-pgd:k=10`, sorted by what the attacker holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transferbench import attacks
from transferbench.base import attack_parameters, registry
from transferbench.base.errors import InputError
from transferbench.base.ids import RANDOM_SIGN, RENOFEATION, SOURCE_PGD
from transferbench.base.specifications import NORMS, AttackSpec, Epsilon, Scalar, ThreatModel, ThreatName
from transferbench.engine import reference
from transferbench.jobs.attack import EngineName
from transferbench.suites import Attack, SourceOnly

SOURCE_ONLY_THREATS: tuple[ThreatName, ...] = ("Linf", RENOFEATION)
"""Threats in which an attacker who holds the source alone is defined."""

_CLASSES = 10
"""Attacks are built once for this many classes, to check their parameters."""
_ANY_RADIUS = Epsilon.parse("0.1")


@dataclass(frozen=True)
class ChosenAttacks:
    """`on_victim` take the place of every norm's chain, `source_only` of the attacks that hold the source alone; empty
    where the user named none of the kind."""

    on_victim: tuple[AttackSpec, ...] = ()
    source_only: tuple[AttackSpec, ...] = ()

    def with_source_only(self, specs: Sequence[AttackSpec]) -> ChosenAttacks:
        """These attacks, with further ones that hold the source alone. InputError where one is named twice."""
        _require_distinct([*self.source_only, *specs])
        return ChosenAttacks(self.on_victim, (*self.source_only, *specs))

    def protocol(self, default: SourceOnly) -> SourceOnly:
        """The source-only measurement with those of the chosen attacks that its threat defines; its control has as many
        draws as all of them have tries, unless the user gave the control."""
        if not self.source_only:
            return default
        usual = {part.id: part.spec() for part in default.parts}
        # What the user leaves open is the default measurement's: one neuron in Renofeation's box, eight in Linf.
        named = [AttackSpec.of(one.id, **{**_params(usual.get(one.id)), **_params(one)}) for one in self.source_only]
        defined = [spec for spec in named if spec.id != RANDOM_SIGN and _is_defined(spec, default.threat)]
        asking = [spec for spec in defined if attacks.build(spec, default.threat, _CLASSES).scope == "query"]
        usual_attacks = [part.spec() for part in default.parts if part.id != RANDOM_SIGN]
        chosen = [spec for spec in defined if spec not in asking] or usual_attacks
        built = [attacks.build(spec, default.threat, _CLASSES) for spec in chosen]
        most, tries = max(attack.tries for attack in built), sum(attack.tries for attack in built)
        control = next((spec for spec in named if spec.id == RANDOM_SIGN), None)
        if control is None:
            control = AttackSpec.of(RANDOM_SIGN, draws=tries)
        elif attacks.build(control, default.threat, _CLASSES).tries < most:
            raise InputError(
                f"attack {RANDOM_SIGN}: the control needs as many draws as the attack has tries, {most}: write "
                f"{RANDOM_SIGN}:draws={most}, or leave it out"
            )
        first, *others = (Attack.of(spec) for spec in chosen)
        parts: dict[str, Any] = {"attack": first, "also": tuple(others), "control": Attack.of(control)}
        start = SOURCE_PGD if SOURCE_PGD in [spec.id for spec in chosen] else first.id
        return default.model_copy(update={**parts, "queries": tuple(map(Attack.of, asking)), "start": start})


def _params(spec: AttackSpec | None) -> dict[str, Scalar]:
    return {} if spec is None else dict(spec.params)


def parse(texts: Sequence[str | AttackSpec], threats: Sequence[ThreatName], backend: EngineName) -> ChosenAttacks:
    """The attacks in texts, for an evaluation under the threats. InputError for an unknown attack or parameter, a bad
    value, or an attack that is not defined in one of the threats."""
    if backend == "autoattack":
        if not any(threat in NORMS for threat in threats):
            raise InputError("--backend autoattack attacks the victim in a norm: name one (--norms), or leave it out")
        return ChosenAttacks(on_victim=reference.parse(texts))
    on_victim: list[AttackSpec] = []
    source_only: list[AttackSpec] = []
    for text in texts:
        spec = _spec(text)
        holds_source = _sees(spec, threats) != "victim"
        (source_only if holds_source else on_victim).append(spec)
        for threat in threats:
            if (threat in SOURCE_ONLY_THREATS) if holds_source else threat != RENOFEATION:
                attacks.build(spec, ThreatModel(threat, _ANY_RADIUS), _CLASSES)
    for group in (on_victim, source_only):
        _require_distinct(group)
    return ChosenAttacks(tuple(on_victim), tuple(source_only))


def parse_source(texts: Sequence[str | AttackSpec], threats: Sequence[ThreatName]) -> tuple[AttackSpec, ...]:
    """The attacks of --attacks-source: `all` are those that hold the source, those that also ask the victim included.

    InputError for an attack that holds the victim, or that none of the threats defines.
    """
    found: list[AttackSpec] = []
    for text in texts:
        if text == "all":
            every = [AttackSpec.of(id) for id in registry.entries("attacks") if id != RANDOM_SIGN]
            found += [spec for spec in every if any(_is_source_only(spec, threat) for threat in threats)]
            continue
        spec = _spec(text)
        if _sees(spec, threats) == "victim":
            raise InputError(f"--attacks-source {spec.id}: it attacks the victim itself: name it with --attacks")
        found.append(spec)
    return tuple(found)


def _is_defined(spec: AttackSpec, threat: ThreatModel) -> bool:
    try:
        attacks.build(spec, threat, _CLASSES)
    except InputError:
        return False
    return True


def _is_source_only(spec: AttackSpec, threat: ThreatName) -> bool:
    """Whether the attack holds the source alone and is defined in the threat."""
    try:
        attack = attacks.build(spec, ThreatModel(threat, _ANY_RADIUS), _CLASSES)
    except InputError:
        return False
    return attack.sees == "source"


def _spec(given: str | AttackSpec) -> AttackSpec:
    if isinstance(given, AttackSpec):
        return attack_parameters.normalised(given)
    if given.partition(":")[0] in reference.VERSIONS:
        raise InputError(
            f"{given!r} is a version of AutoAttack, which the reference runs: add --backend autoattack "
            "(backend='autoattack'), or name attacks, apgd-ce,apgd-t"
        )
    id = given.partition(":")[0].strip()
    if id in reference.PARAMETERS and id not in registry.entries("attacks"):
        raise InputError(f"attack {id} is the reference's alone: add --backend autoattack (backend='autoattack')")
    return attack_parameters.parse(given)


def _sees(spec: AttackSpec, threats: Iterable[ThreatName]) -> str:
    """What the attack's `output` is of. InputError where it is defined in none of the threats."""
    problem: InputError | None = None
    for threat in threats:
        try:
            return attacks.build(spec, ThreatModel(threat, _ANY_RADIUS), _CLASSES).sees
        except InputError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _require_distinct(specs: Sequence[AttackSpec]) -> None:
    """InputError where an attack is named twice: records and tables name results by the attack's id."""
    ids = [spec.id for spec in specs]
    for id in ids:
        if ids.count(id) > 1:
            raise InputError(f"attack {id} is named twice: use its parameters (restarts, targets, neurons) instead")


def check_source(chosen: ChosenAttacks, threats: Sequence[ThreatName], has_source: bool) -> None:
    """InputError where source-only attacks are asked for without a source, or without a threat they are defined in."""
    wants = [*(spec.id for spec in chosen.source_only), *(threat for threat in threats if threat == RENOFEATION)]
    if wants and not has_source:
        raise InputError(f"{wants[0]}: the attacker holds the public model alone: name it (--source, source=)")
    if has_source and not set(threats) & set(SOURCE_ONLY_THREATS):
        raise InputError(
            f"a source is given, and attacks that hold it alone are defined in {' and '.join(SOURCE_ONLY_THREATS)}: "
            "name one of them (--norms, threats=), or leave the source out"
        )
