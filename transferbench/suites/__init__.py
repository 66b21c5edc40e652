"""What is measured: one YAML file per suite, checked field by field. Budgets, n and seeds live here alone.

An unknown key or a bad value is refused in one line that names the file, the key and what is allowed.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.ids import chain_at
from transferbench.base.specifications import (
    NORMS,
    PREPROCESSING,
    AttackSpec,
    Chain,
    Norm,
    Scalar,
    ThreatModel,
    ThreatName,
)

_FOLDER = Path(__file__).parent


def _listed(given: Any) -> Any:
    """One may be written as it is; several are a list."""
    return (given,) if isinstance(given, dict | BaseModel) else given


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attack(_Checked):
    """`{id: apgd-t, n_iter: 20, targets: 3}`: an attack and its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str

    @field_validator("id")
    @classmethod
    def _known(cls, id: str) -> str:
        registry.find("attacks", id)
        return id

    def spec(self) -> AttackSpec:
        params: dict[str, Scalar] = dict(self.model_extra or {})
        return AttackSpec.of(self.id, **params)


class NamedChain(_Checked):
    """A chain beside the norms' own: `{name: pgd20_linf, norm: Linf, attacks: [...]}`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    norm: Norm
    attacks: Annotated[tuple[Attack, ...], Field(min_length=1)]


class SourceOnly(_Checked):
    """An attack that holds only the source, and its noise control with as many draws.

    `also` are further such attacks, compared with the control's first draws. `every_source` shows what each source of
    the suite makes to every victim: the transfer matrix.
    """

    norm: ThreatName = "Linf"
    eps: str
    attack: Attack
    control: Attack
    also: tuple[Attack, ...] = ()
    every_source: bool = False

    @property
    def parts(self) -> tuple[Attack, ...]:
        """Every attack of it, the control last."""
        return (self.attack, *self.also, self.control)

    @model_validator(mode="after")
    def _threat(self) -> SourceOnly:
        ThreatModel.parse(self.norm, self.eps)
        return self


class Protocol(_Checked):
    """What every victim goes through: the chain of each norm, further chains, source-only attacks.

    `curve` runs a norm's chain at more radii (a robustness curve); those chains are named `Linf@0.05`.
    """

    description: str
    chains: dict[Norm, Annotated[tuple[Attack, ...], Field(min_length=1)]]
    further: tuple[NamedChain, ...] = ()
    curve: dict[Norm, tuple[str, ...]] = {}
    source_only: Annotated[tuple[SourceOnly, ...], BeforeValidator(_listed)] = ()

    def chain(self, norm: Norm, eps: str) -> Chain:
        if norm not in self.chains:
            raise InputError(f"the protocol has no chain for {norm}: it has {', '.join(self.chains)}")
        return Chain(norm, ThreatModel.parse(norm, eps), tuple(attack.spec() for attack in self.chains[norm]))

    @field_validator("curve")
    @classmethod
    def _curve(cls, given: dict[Norm, tuple[str, ...]]) -> dict[Norm, tuple[str, ...]]:
        for norm, radii in given.items():
            for eps in radii:
                ThreatModel.parse(norm, eps)
        return given

    def curve_chains(self) -> list[Chain]:
        """The norm's chain at every radius of its curve."""
        points = [(norm, eps) for norm, radii in self.curve.items() for eps in radii]
        return [replace(self.chain(norm, eps), name=chain_at(norm, eps)) for norm, eps in points]

    def further_chains(self, radii: dict[Norm, str]) -> list[Chain]:
        return [
            Chain(item.name, ThreatModel.parse(item.norm, radii[item.norm]), tuple(a.spec() for a in item.attacks))
            for item in self.further
            if item.norm in radii
        ]


Preprocessing = Annotated[str, Field(pattern=f"^{PREPROCESSING}$")]


def _method(id: str) -> str:
    registry.find("methods", id)
    return id


def _network(id: str) -> str:
    registry.find("networks", id.partition(":")[0])
    return id


def _dataset(id: str) -> str:
    registry.find("data", id.partition(":")[0])
    return id


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
MethodId = Annotated[str, AfterValidator(_method)]
NetworkId = Annotated[str, AfterValidator(_network)]
DatasetId = Annotated[str, AfterValidator(_dataset)]


class Source(_Checked):
    """A pre-trained network: one that the suite trains with a `method` on the source data, or a public `model`.

    `network` is a trained source's architecture where it is not the block's.
    """

    name: Name
    model: str = ""
    method: MethodId | None = None
    network: NetworkId | None = None
    set: dict[str, Scalar] = {}

    @model_validator(mode="after")
    def _either(self) -> Source:
        if (not self.model) == (self.method is None):
            raise ValueError(f"source {self.name}: write either model (a public one) or method (to train it)")
        if self.model and (self.set or self.network):
            raise ValueError(f"source {self.name}: a public model is not trained: it has neither set nor network")
        return self


class Row(_Checked):
    """One training on the target: a method with its settings, from one of the block's sources, or, where `source` is
    left out, from each of them. `network` is the student's where that is not the source's."""

    name: Name
    method: MethodId
    source: str | None = None
    network: NetworkId | None = None
    set: dict[str, Scalar] = {}


class Training(_Checked):
    """A block of trainings: sources on the source data, rows on the target data.

    `name` begins its victims' names where a suite has several blocks. `network` is what sources are trained with, and
    what methods train that take nothing of a source. Without a `source_dataset`, or where `attack_sources` is
    false, sources are not attacked themselves.
    The preprocessings (`Res256Crop224`) are for photographs of any size; `shots` limits the target's training images
    per class.
    """

    name: Name | Literal[""] = ""
    network: NetworkId | None = None
    source_dataset: DatasetId | None = None
    attack_sources: bool = True
    target_dataset: DatasetId
    source_preprocessing: Preprocessing = ""
    target_preprocessing: Preprocessing = ""
    shots: Annotated[int, Field(ge=1)] | None = None
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sources_exist(self) -> Training:
        names = [source.name for source in self.sources]
        for given in (names, [row.name for row in self.rows]):
            if len(set(given)) != len(given):
                raise ValueError(f"names are used twice: {', '.join(sorted({n for n in given if given.count(n) > 1}))}")
        for row in self.rows:
            if row.source is not None and row.source not in names:
                raise ValueError(f"row {row.name}: " + registry.unknown("source", row.source, names))
        for source in self.sources:
            if source.method is not None and (self.source_dataset is None or not (source.network or self.network)):
                raise ValueError(f"source {source.name} is trained: say with which network on which source_dataset")
        return self

    def pairs(self) -> list[tuple[Row, Source, str]]:
        """(row, its source, the victim's name without its seed), in order."""
        prefix = f"{self.name}-" if self.name else ""
        return [
            (row, source, f"{prefix}{row.name}" + (f"-{source.name}" if row.source is None else ""))
            for row in self.rows
            for source in self.sources
            if row.source in (None, source.name)
        ]


class Suite(_Checked):
    """A suite file. `protocol` is the one run by default, `full` the one run by --full.

    All that comes of an `untrained` suite (--smoke) is marked so, and is never a row of a leaderboard.
    """

    name: str
    title: str
    n: Annotated[int, Field(ge=1)]
    seeds: tuple[int, ...] = (0,)
    untrained: bool = False
    threats: dict[Norm, str] = {}
    protocol: Protocol
    full: Protocol | None = None
    training: Annotated[tuple[Training, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [name for block in self.training for *_, name in block.pairs()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"training: {twice[0]} is named twice: give every block a name of its own")
        return self

    @field_validator("threats")
    @classmethod
    def _threats(cls, given: dict[Norm, str]) -> dict[Norm, str]:
        for norm, eps in given.items():
            ThreatModel.parse(norm, eps)
        return {norm: given[norm] for norm in NORMS if norm in given}

    def adapted(self, full: bool = False, n: int | None = None) -> Suite:
        """The suite with its full protocol if asked, on n examples if given. InputError where that is impossible."""
        if n is not None and n < 1:
            raise InputError(f"--n {n}: ask for at least 1 example")
        suite = self.in_full() if full else self
        return suite if n is None else suite.model_copy(update={"n": n})

    def in_full(self) -> Suite:
        """The suite with its full protocol, under a name of its own. InputError when it has none."""
        if self.full is None:
            raise InputError(f"suite {self.name} has no full protocol: run it without --full")
        return self.model_copy(update={"name": f"{self.name}-full", "protocol": self.full, "full": None})


def available() -> dict[str, str]:
    """Suite name -> title, sorted."""
    return {path.stem: str(yaml.safe_load(path.read_text())["title"]) for path in sorted(_FOLDER.glob("*.yaml"))}


def load(name: str) -> Suite:
    """A suite that ships with the package by name, or any YAML file by path. InputError in one line."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        if path.suffix and path.parent != _FOLDER:
            raise InputError(f"suite {name}: there is no such file")
        raise InputError(registry.unknown("suite", name, (p.stem for p in _FOLDER.glob("*.yaml"))))
    return parse(path)


def parse(path: Path) -> Suite:
    """Read and check a suite file. InputError names file, key and what is allowed."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"suite {path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(given, dict):
        raise InputError(f"suite {path}: expected a mapping with the keys {', '.join(Suite.model_fields)}")
    try:
        suite = Suite.model_validate(given)
    except InputError as error:
        raise InputError(f"suite {path}: {error}") from None
    except ValidationError as error:
        raise InputError(f"suite {path}: {_problem(error)}") from None
    if suite.name != path.stem:
        raise InputError(f"suite {path}: name is {suite.name!r}, the file's name says {path.stem!r}")
    return suite


def _problem(error: ValidationError) -> str:
    """The first complaint: its key, and for an unknown key the keys that exist there."""
    problems: list[Any] = error.errors(include_url=False)
    # A misspelt key also makes the right one missing: the misspelling is what helps.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = sorted({field for model in _models() for field in model.model_fields if _holds(model, first["loc"])})
        near = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{place}: unknown key; {hint}(allowed: {', '.join(allowed)})"
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{place}: {first['msg']}{shown}"


def _models() -> list[type[BaseModel]]:
    return [Suite, Protocol, Training, Source, Row, NamedChain, SourceOnly]


def _holds(model: type[BaseModel], loc: tuple[int | str, ...]) -> bool:
    """Whether an unknown key at `loc` lies directly in `model`, judged by the keys that lead there."""
    parents = [part for part in loc[:-1] if isinstance(part, str)]
    home = {
        (): Suite,
        "protocol": Protocol,
        "full": Protocol,
        "training": Training,
        "sources": Source,
        "rows": Row,
        "further": NamedChain,
        "source_only": SourceOnly,
    }
    return home.get(parents[-1] if parents else (), Suite) is model
