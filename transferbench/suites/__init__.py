"""What is measured: one YAML file per suite, checked field by field. Budgets, n and seeds live here alone.

An unknown key or a bad value is refused in one line that names the file, the key and what is allowed.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from transferbench import registry
from transferbench.types import NORMS, PREPROCESSING, AttackSpec, Chain, InputError, Norm, Scalar, ThreatModel

_FOLDER = Path(__file__).parent


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

    norm: Norm = "Linf"
    eps: str
    attack: Attack
    control: Attack
    also: tuple[Attack, ...] = ()
    every_source: bool = False

    @field_validator("eps")
    @classmethod
    def _eps(cls, eps: str) -> str:
        ThreatModel.parse("Linf", eps)
        return eps


class Protocol(_Checked):
    """What every victim goes through: the chain of each norm, further chains, source-only attacks.

    `curve` runs a norm's chain at more radii (a robustness curve); those chains are named `Linf@0.05`.
    """

    description: str
    chains: dict[Norm, Annotated[tuple[Attack, ...], Field(min_length=1)]]
    further: tuple[NamedChain, ...] = ()
    curve: dict[Norm, tuple[str, ...]] = {}
    source_only: SourceOnly | None = None

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
        return [replace(self.chain(norm, eps), name=f"{norm}@{eps}") for norm, eps in points]

    def further_chains(self, radii: dict[Norm, str]) -> list[Chain]:
        return [
            Chain(item.name, ThreatModel.parse(item.norm, radii[item.norm]), tuple(a.spec() for a in item.attacks))
            for item in self.further
            if item.norm in radii
        ]


Preprocessing = Annotated[str, Field(pattern=f"^{PREPROCESSING}$")]


class Row(_Checked):
    """One training: a method with its settings; `source` names one of the suite's sources."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    method: str
    source: str = ""
    set: dict[str, Scalar] = {}

    @field_validator("method")
    @classmethod
    def _known(cls, id: str) -> str:
        registry.find("methods", id)
        return id


class Training(_Checked):
    """The trainings of a suite: sources on the source data, rows on the target data.

    The preprocessings (`Res256Crop224`) are for photographs of any size; `shots` limits the target's training
    images per class.
    """

    network: str
    source_dataset: str
    target_dataset: str
    source_preprocessing: Preprocessing = ""
    target_preprocessing: Preprocessing = ""
    shots: Annotated[int, Field(ge=1)] | None = None
    sources: tuple[Row, ...]
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]

    @field_validator("network")
    @classmethod
    def _network(cls, id: str) -> str:
        registry.find("networks", id)
        return id

    @field_validator("source_dataset", "target_dataset")
    @classmethod
    def _dataset(cls, id: str) -> str:
        registry.find("data", id.partition(":")[0])
        return id

    @model_validator(mode="after")
    def _sources_exist(self) -> Training:
        names = [row.name for row in self.sources]
        rows = [row.name for row in self.rows]
        for given in (names, rows):
            if len(set(given)) != len(given):
                raise ValueError(f"names are used twice: {', '.join(sorted({n for n in given if given.count(n) > 1}))}")
        for row in self.rows:
            if row.source not in names:
                raise ValueError(f"row {row.name}: " + registry.unknown("source", row.source, names))
        return self


class Suite(_Checked):
    """A suite file. `protocol` is the one run by default, `full` the one run by --full."""

    name: str
    title: str
    n: Annotated[int, Field(ge=1)]
    seeds: tuple[int, ...] = (0,)
    threats: dict[Norm, str] = {}
    protocol: Protocol
    full: Protocol | None = None
    training: Training | None = None

    @field_validator("threats")
    @classmethod
    def _threats(cls, given: dict[Norm, str]) -> dict[Norm, str]:
        for norm, eps in given.items():
            ThreatModel.parse(norm, eps)
        return {norm: given[norm] for norm in NORMS if norm in given}

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
    return [Suite, Protocol, Training, Row, NamedChain, SourceOnly]


def _holds(model: type[BaseModel], loc: tuple[int | str, ...]) -> bool:
    """Whether an unknown key at `loc` lies directly in `model`, judged by the keys that lead there."""
    parents = [part for part in loc[:-1] if isinstance(part, str)]
    home = {
        (): Suite,
        "protocol": Protocol,
        "full": Protocol,
        "training": Training,
        "sources": Row,
        "rows": Row,
        "further": NamedChain,
        "source_only": SourceOnly,
    }
    return home.get(parents[-1] if parents else (), Suite) is model
