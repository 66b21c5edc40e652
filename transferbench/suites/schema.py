"""The schema of a suite file: pydantic models that check every key and value.

Budgets (iterations, restarts, targets), radii, the number of examples n and seeds are set in suite files only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from transferbench.base import attack_parameters, dataset_id, registry
from transferbench.base.errors import InputError
from transferbench.base.ids import RANDOM_SIGN, chain_at
from transferbench.base.radius import Radius
from transferbench.base.specifications import (
    NORMS,
    PREPROCESSING,
    AttackSpec,
    Chain,
    Epsilon,
    Norm,
    Scalar,
    ThreatModel,
    ThreatName,
)
from transferbench.base.strict_model import StrictModel


def _as_list(value: Any) -> Any:
    """A single mapping may be written without a list."""
    return (value,) if isinstance(value, dict | BaseModel) else value


class Attack(StrictModel):
    """An attack's id and its parameters: `{id: apgd-t, n_iter: 20, targets: 3}`, or as text, `apgd-t:n_iter=20`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str

    @classmethod
    def of(cls, spec: AttackSpec) -> Attack:
        """The attack of a specification."""
        return cls.model_validate(spec.as_dict())

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return attack_parameters.parse(given).as_dict() if isinstance(given, str) else given

    @model_validator(mode="after")
    def _known(self) -> Attack:
        self.spec()
        return self

    def spec(self) -> AttackSpec:
        """The attack as the specification that jobs and records use."""
        params: dict[str, Scalar] = dict(self.model_extra or {})
        return attack_parameters.normalised(AttackSpec.of(self.id, **params))


class NamedChain(StrictModel):
    """A chain in addition to those of the norms: `{name: pgd20_linf, norm: Linf, attacks: [...]}`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    norm: Norm
    attacks: Annotated[tuple[Attack, ...], Field(min_length=1)]


class SourceOnly(StrictModel):
    """An attack that uses the source alone, and its control: noise of the same size with as many draws.

    `also` are further attacks of this kind, compared with the control's first draws. With `every_source` the examples
    crafted with each source of the suite are judged on every victim: the transfer matrix. `queries` are attacks that
    also ask the victim, each with its own control; those that begin at crafted points begin at the attack `start`'s
    (by default the first attack's).
    """

    norm: ThreatName = "Linf"
    eps: Radius
    attack: Attack
    control: Attack
    also: tuple[Attack, ...] = ()
    every_source: bool = False
    queries: tuple[Attack, ...] = ()
    start: str = ""

    @property
    def parts(self) -> tuple[Attack, ...]:
        """All attacks, the control last."""
        return (self.attack, *self.also, self.control)

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.norm, self.eps)

    @property
    def starting(self) -> Attack:
        """The attack at whose points query attacks begin."""
        return next((part for part in self.parts if part.id == self.start), self.attack)

    @model_validator(mode="after")
    def _valid_threat(self) -> SourceOnly:
        assert self.threat
        if self.start and self.start not in [part.id for part in self.parts]:
            raise ValueError(f"start: {self.start} is none of {', '.join(part.id for part in self.parts)}")
        return self

    @model_validator(mode="after")
    def _told_apart(self) -> SourceOnly:
        """Records name attacks, and the controls made of them, by the attack's id."""
        if self.control.id != RANDOM_SIGN:
            raise ValueError(f"control: {self.control.id} is an attack: the noise control is {RANDOM_SIGN}")
        ids = [part.id for part in (*self.parts, *self.queries)]
        for id in ids:
            if ids.count(id) > 1:
                raise ValueError(f"{id} is named twice: name every attack once (restarts, neurons, deltas are tries)")
        return self


class Protocol(StrictModel):
    """The measurements of every victim: one chain per norm, further chains, source-only attacks.

    `curve` lists more radii for a norm's chain (a robustness curve); these chains are named `Linf@0.05`.
    """

    description: str
    chains: dict[Norm, Annotated[tuple[Attack, ...], Field(min_length=1)]]
    further: tuple[NamedChain, ...] = ()
    curve: dict[Norm, tuple[Radius, ...]] = Field(default={})
    source_only: Annotated[tuple[SourceOnly, ...], BeforeValidator(_as_list)] = ()

    @field_validator("source_only")
    @classmethod
    def _one_radius(cls, source_only: tuple[SourceOnly, ...]) -> tuple[SourceOnly, ...]:
        """Records and tables compare sets of one norm, whatever their radius."""
        norms = [part.norm for part in source_only]
        for norm in norms:
            if norms.count(norm) > 1:
                raise ValueError(f"{norm} is named twice: a suite has one radius for each norm of source_only")
        return source_only

    def chain(self, norm: Norm, eps: Epsilon) -> Chain:
        """The norm's chain at a radius. InputError when the protocol has none for the norm."""
        if norm not in self.chains:
            raise InputError(f"the protocol has no chain for {norm}: it has {', '.join(self.chains)}")
        return Chain(norm, ThreatModel(norm, eps), tuple(attack.spec() for attack in self.chains[norm]))

    @field_validator("curve")
    @classmethod
    def _radii(cls, curve: dict[Norm, tuple[Epsilon, ...]]) -> dict[Norm, tuple[Epsilon, ...]]:
        for norm, radii in curve.items():
            for eps in radii:
                ThreatModel(norm, eps)
        return curve

    def curve_chains(self) -> list[Chain]:
        """The norms' chains at every radius of `curve`."""
        points = [(norm, eps) for norm, radii in self.curve.items() for eps in radii]
        return [replace(self.chain(norm, eps), name=chain_at(norm, eps.text)) for norm, eps in points]

    def further_chains(self, radii: Mapping[Norm, Epsilon]) -> list[Chain]:
        """The chains of `further` whose norm has a radius."""
        return [
            Chain(item.name, ThreatModel(item.norm, radii[item.norm]), tuple(a.spec() for a in item.attacks))
            for item in self.further
            if item.norm in radii
        ]


PreprocessingText = Annotated[str, Field(pattern=f"^{PREPROCESSING}$")]


def _method(id: str) -> str:
    registry.find("methods", id)
    return id


def _network(id: str) -> str:
    registry.find_family("networks", id)
    return id


def _dataset(id: str) -> str:
    dataset_id.find(id)
    return id


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
MethodId = Annotated[str, AfterValidator(_method)]
NetworkId = Annotated[str, AfterValidator(_network)]
DatasetId = Annotated[str, AfterValidator(_dataset)]


class Source(StrictModel):
    """A pre-trained network: a public `model`, or one that the suite trains with a `method` on the source data.

    `network` is a trained source's architecture where it differs from the block's. `set` are the method's
    hyper-parameters.
    """

    name: Name
    model: str = ""
    method: MethodId | None = None
    network: NetworkId | None = None
    set: dict[str, Scalar] = Field(default={})

    @model_validator(mode="after")
    def _either(self) -> Source:
        if (not self.model) == (self.method is None):
            raise ValueError(f"source {self.name}: write either model (a public one) or method (to train it)")
        if self.model and (self.set or self.network):
            raise ValueError(f"source {self.name}: a public model is not trained: it has neither set nor network")
        return self


class SuiteRow(StrictModel):
    """One training on the target data: a method with its hyper-parameters `set`, from one of the block's sources.

    Without `source` the row is trained once from each of them. `network` is the student's architecture where it
    differs from the source's.
    """

    name: Name
    method: MethodId
    source: str | None = None
    network: NetworkId | None = None
    set: dict[str, Scalar] = Field(default={})


class Training(StrictModel):
    """A block of trainings: sources on the source data, rows on the target data.

    `name` is the prefix of its victims' names in a suite of several blocks. `network` is the architecture of trained
    sources, and of rows whose method uses no source. Sources are attacked themselves unless `attack_sources` is false
    or there is no `source_dataset`. The preprocessings (`Res256Crop224`) apply to photographs of any size; `shots` is
    the number of training images per class of the target data (all by default), drawn by the seed, or with `shots_rule`
    `renofeation` as Renofeation's code draws them.
    """

    name: Name | Literal[""] = ""
    network: NetworkId | None = None
    source_dataset: DatasetId | None = None
    attack_sources: bool = True
    target_dataset: DatasetId
    source_preprocessing: PreprocessingText = ""
    target_preprocessing: PreprocessingText = ""
    shots: Annotated[int, Field(ge=1)] | None = None
    shots_rule: Literal["keyed", "renofeation"] = "keyed"
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    rows: Annotated[tuple[SuiteRow, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        source_names = [source.name for source in self.sources]
        for names in (source_names, [row.name for row in self.rows]):
            if len(set(names)) != len(names):
                raise ValueError(f"names are used twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        for row in self.rows:
            if row.source is not None and row.source not in source_names:
                raise ValueError(f"row {row.name}: " + registry.unknown("source", row.source, source_names))
        for source in self.sources:
            if source.method is not None and (self.source_dataset is None or not (source.network or self.network)):
                raise ValueError(f"source {source.name} is trained: say with which network on which source_dataset")
        return self

    def pairs(self) -> list[tuple[SuiteRow, Source, str]]:
        """(row, its source, the victim's name without its seed), in order."""
        prefix = f"{self.name}-" if self.name else ""
        return [
            (row, source, f"{prefix}{row.name}" + (f"-{source.name}" if row.source is None else ""))
            for row in self.rows
            for source in self.sources
            if row.source in (None, source.name)
        ]


class Suite(StrictModel):
    """A suite file. `protocol` is the default one, `full` that of `--full`; `n` is the number of attacked examples,
    with `stratified` of each class in turn. The chains, which cost the most, attack the first `n_chains` of them only,
    where a suite says so: source-only attacks and their controls are judged on all n.

    `device` is the kind of device that its committed numbers come from: bits are equal within one kind only. `threats`
    maps each norm to its radius. An `untrained` suite (`--smoke`) flags its results, which are never
    part of a leaderboard.
    """

    name: str
    title: str
    n: Annotated[int, Field(ge=1)]
    n_chains: Annotated[int, Field(ge=1)] | None = None
    stratified: bool = False
    seeds: tuple[int, ...] = (0,)
    untrained: bool = False
    device: Literal["", "cpu", "cuda"] = ""
    threats: dict[Norm, Radius] = Field(default={})
    protocol: Protocol
    full: Protocol | None = None
    training: Annotated[tuple[Training, ...], BeforeValidator(_as_list)] = ()

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) != len(seeds):
            raise ValueError("name at least one seed, each once")
        return seeds

    @model_validator(mode="after")
    def _chains_within(self) -> Suite:
        if self.n_chains is not None and self.n_chains > self.n:
            raise ValueError(
                f"n_chains: the chains attack some of the n examples: {self.n_chains} is more than {self.n}"
            )
        return self

    @property
    def attacked_by_chains(self) -> int:
        """The number of examples that the chains attack: the first so many of the n."""
        return self.n if self.n_chains is None else self.n_chains

    @model_validator(mode="after")
    def _unique_names(self) -> Suite:
        names = [name for block in self.training for *_, name in block.pairs()]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"training: {repeated[0]} is named twice: give every block a name of its own")
        return self

    @field_validator("threats")
    @classmethod
    def _threats(cls, threats: dict[Norm, Epsilon]) -> dict[Norm, Epsilon]:
        for norm, eps in threats.items():
            ThreatModel(norm, eps)
        return {norm: threats[norm] for norm in NORMS if norm in threats}

    def adapted(self, full: bool = False, n: int | None = None, datasets: Mapping[str, str] | None = None) -> Suite:
        """The suite with its full protocol, on n examples, or with other data sets in the place of those that it names
        (`{"cifar10": "cifar10-jpeg"}`, subsets of their classes too). InputError where it has no full protocol or no
        such data set, or n < 1."""
        if n is not None and n < 1:
            raise InputError(f"--n {n}: ask for at least 1 example")
        suite = self.in_full() if full else self
        for old, new in (datasets or {}).items():
            suite = suite._reading(old, new)
        if n is None:
            return suite
        fewer = None if suite.n_chains is None else min(n, suite.n_chains)
        return suite.model_copy(update={"n": n, "n_chains": fewer})

    def _reading(self, old: str, new: str) -> Suite:
        """The suite with the data set `new` wherever it names `old`, a whole id, or the data set of a subset."""
        dataset_id.find(new)
        named: set[str] = set()

        def replaced(id: str | None) -> str | None:
            if id is None:
                return None
            parsed = dataset_id.DatasetId.parse(id)
            named.add(parsed.base)
            if id == old:
                return new
            return str(parsed._replace(base=new)) if parsed.base == old else id

        blocks = [
            block.model_copy(
                update={
                    "source_dataset": replaced(block.source_dataset),
                    "target_dataset": replaced(block.target_dataset),
                }
            )
            for block in self.training
        ]
        if blocks == list(self.training):
            raise InputError(f"--dataset {old}={new}: " + registry.unknown("data set of the suite", old, named))
        return self.model_copy(update={"training": tuple(blocks)})

    def in_full(self) -> Suite:
        """The suite with its full protocol, named `<name>-full`. InputError when it has none."""
        if self.full is None:
            raise InputError(f"suite {self.name} has no full protocol: run it without --full")
        return self.model_copy(update={"name": f"{self.name}-full", "protocol": self.full, "full": None})
