"""Options that several commands share, and the types that read their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from transferbench.base import registry
from transferbench.base.corruptions import CORRUPTION_THREATS
from transferbench.base.errors import InputError
from transferbench.base.specifications import Epsilon, Keep, ThreatName

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]
FOLDER = click.Path(path_type=Path)


class Command(click.Command):
    """A command whose options are given once each; click would take the last and drop the others without a word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        seen: set[str] = set()
        for param in order:
            if isinstance(param, click.Option) and not param.multiple and not param.is_flag:
                if str(param.name) in seen:
                    raise InputError(f"{param.opts[-1]} is given twice: write it once, several values with commas")
                seen.add(str(param.name))
        return super().parse_args(ctx, args)


class Value(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A value that a function reads from text; the function's InputError is the message."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self.read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.read(value) if isinstance(value, str) else value


def _check_threat(name: str) -> None:
    """InputError for what is neither a threat of attacks nor one of corruptions."""
    known = registry.entries("threats")
    if name not in CORRUPTION_THREATS and name not in known:
        raise InputError(registry.unknown("norm", name, (*known, *CORRUPTION_THREATS)))


def _threats(text: str) -> tuple[ThreatName, ...]:
    names = tuple(text.split(",")) if text else ()
    for name in names:
        _check_threat(name)
    if len(set(names)) != len(names):
        raise InputError(f"--norms {text!r}: a norm is named twice")
    return names


def _radii(text: str) -> dict[ThreatName, Epsilon]:
    given = pairs("--eps", [part for part in text.split(",") if part])
    return {registry.find("threats", name).id: Epsilon.parse(eps) for name, eps in given.items()}


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise InputError(f"--seeds {text!r}: write whole numbers with commas, 0,1,2") from None
    if len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds {text!r}: a seed is named twice")
    return seeds


def names(text: str) -> tuple[str, ...]:
    """`a,b` -> ("a", "b"); empty parts are left out. InputError for commas alone."""
    found = tuple(name for name in text.split(",") if name)
    if text and not found:
        raise InputError(f"{text!r}: write names with commas")
    return found


def pairs(option: str, items: Sequence[str]) -> dict[str, str]:
    """`["a=1", "b=2"]` -> {"a": "1", "b": "2"}. InputError for an item without `=` or a name given twice."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option} {item!r}: write it as name=value")
        if name in found:
            raise InputError(f"{option}: {name} is given twice")
        found[name] = value
    return found


def _replaced(text: str) -> tuple[str, str]:
    """`cifar10=cifar10-jpeg` -> both names. A path behind `folder:` may hold an `=` itself."""
    old, equals, new = text.partition("=")
    if not old or not equals or not new:
        raise InputError(f"--dataset {text!r}: write it as the suite's data set, =, and the one to read in its place")
    return old, new


DOWNLOAD = "Fetch what is missing of models (--model-dir) and data sets (--data-dir), where that is possible."
SEEDS = Value("seeds", _seeds)
NAMES = Value("names", names)
REPLACED = Value("replaced data set", _replaced)


def group(*options: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator, in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


model = click.option("--model", required=True, metavar="ID", help="A model of `list models`, a folder or a card.")
dataset = click.option("--dataset", metavar="ID", help="Data set (default: the one on the model's card).")
norms = click.option(
    "--norms",
    default="",
    metavar="N,N",
    type=Value("norms", _threats),
    help="Norms (default: Linf,L2,L1; of a model for corruptions these); renofeation, the box of that paper's own "
    "evaluation (with --source); corruptions, and corruptions_3d of ImageNet: accuracy on corrupted images.",
)
eps = click.option(
    "--eps",
    default="",
    metavar="N=E,N=E",
    type=Value("radii", _radii),
    help="Radii as Linf=8/255,L2=0.5 (default: the card's, else the data set's).",
)


def _trust(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        from transferbench.models import python_function

        python_function.trust_cards()


trust_code = click.option(
    "--trust-code",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Run the function that a model's card names (python:<module>:<function>).",
)
device = click.option(
    "--device", metavar="DEV", help="auto (every free GPU, else every core), cpu, cuda or cuda:1 (default: auto)."
)
workers = click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes on this machine, each on a core or a GPU (default: one for each; 1: this process).",
)
data_dir = click.option("--data-dir", type=FOLDER, metavar="DIR", help="Folder with the data sets' files.")
model_dir = click.option("--model-dir", type=FOLDER, metavar="DIR", help="Folder with the models' weights.")
places = group(device, data_dir, model_dir, trust_code)
precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    help="Of the search; verdicts are of the model itself in fp32 (default: fp32).",
)
batch_size = click.option("--batch-size", type=int, metavar="B", help="Rows in flight (verdicts do not depend on it).")
loader_workers = click.option(
    "--loader-workers", type=int, default=0, metavar="N", help="Processes that decode images ahead (default: 0)."
)
cluster = click.option(
    "--cluster", metavar="WHERE", help="local:N processes here, or the tcp:// or tls:// address of a scheduler."
)
keep_examples = click.option(
    "--keep-examples",
    default="fooled",
    metavar="WHICH",
    type=Value("which", Keep.parse),
    help="End points to keep: fooled, all, sample:N of a shard, none (default: fooled).",
)
fresh = click.option("--fresh", is_flag=True, help="Begin anew instead of going on from what is done.")
run_folder = click.argument("dir", type=FOLDER, metavar="DIR")
