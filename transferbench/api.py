"""evaluate(): any nn.Module with [0,1] inputs, in three lines. `transferbench` has further functions of python/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from transferbench import attacks as attack_plugins
from transferbench.attacks.apgd import SCREEN
from transferbench.base.errors import FaultError, InputError
from transferbench.base.ids import APGD_CE, APGD_T
from transferbench.base.numbers import whole_number
from transferbench.base.results import AttackTally
from transferbench.base.settings import MIN_ROWS, EngineOptions, Precision, RunSettings
from transferbench.base.specifications import NORMS, AttackSpec, Chain, ThreatModel
from transferbench.data import Dataset
from transferbench.engine import canonical, preflight, reference
from transferbench.engine.chain import Target, run_whole
from transferbench.engine.process_state import plain_process
from transferbench.engine.replay import REPLAYED, run_replay
from transferbench.engine.threads import fastest_threads
from transferbench.engine.verdicts import ChainResult, Examples
from transferbench.jobs.attack import ENGINES
from transferbench.models.outputs import Output, with_output
from transferbench.models.victim import Victim
from transferbench.python import image_sources, source_only
from transferbench.python.chain_progress import chain_progress
from transferbench.python.image_sources import default_radii
from transferbench.python.report import Report, TotalCost
from transferbench.scheduling import machine
from transferbench.scheduling.machine import Places
from transferbench.workflows import chosen_attacks
from transferbench.workflows.chosen_attacks import ChosenAttacks
from transferbench.workflows.evaluate_model import run_stored

if TYPE_CHECKING:
    pass

Threats = Mapping[str, str | float | int] | Sequence[tuple[str, str | float | int]]
Attacks = str | AttackSpec | Sequence[str | AttackSpec]
Array = Tensor | np.ndarray[Any, Any] | Sequence[Any]

DEFAULT = (AttackSpec.of(APGD_CE), AttackSpec.of(APGD_T))
"""The attacks on the victim where none is named."""

ITERATIONS = {"apgd-ce": "n_iter", "apgd-dlr": "n_iter", "apgd-t": "n_iter", "l1-screen": "n_iter", "pgd": "k"}
"""The parameter of each attack that `n_iter` sets."""

_LARGEST_BATCH = 1_000_000


def evaluate(
    model: nn.Module | Victim | Callable[[Tensor], Tensor],
    x: Array | Dataset | TorchDataset[Any] | DataLoader[Any],
    y: Array | None = None,
    threats: Threats | None = None,
    attacks: Attacks | None = None,
    n_iter: int | None = None,
    seed: int = 0,
    screen: bool = True,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    ids: Array | None = None,
    backend: str = "transferbench",
    replay: bool = False,
    source: nn.Module | Victim | None = None,
    store: str | Path | None = None,
    progress: bool = True,
    workers: int = 1,
    precision: Precision = "fp32",
    output: Output | None = None,
    attacks_source: Any = None,
    attacker_images: Any = None,
) -> Report:
    """Attack a model in eval mode on images x [n, ...] in [0,1] with labels y [n].

    The model is a module, a function of the images or a victim; x and y are tensors, numpy arrays or lists
    (engine/canonical.py says how other types than float32 are brought to it), or x alone is a torch Dataset or
    DataLoader of (image, label), or what `load_dataset` returns (python/image_sources.py). `threats` is {"Linf":
    "8/255", "L2": 0.5} or a list of (norm, eps) for several radii of one norm, which are then named `Linf:8/255`; by
    default the radii of a victim's card, or of its data set. `attacks` are
    names with parameters, as of the command line: "apgd-ce:restarts=5,apgd-t:targets=3" or a list of such texts
    (`transferbench list attacks` has the parameters), by default "apgd-ce,apgd-t". `n_iter` sets the iterations of
    all (default: each attack's own), and is refused for attacks that do not iterate. `ids` int64 [n] key the random
    starts (0..n-1 by default), `batch_size` is rows in flight: neither it nor the order changes a verdict, except of a
    model that is flagged randomised, state-between-calls or mixes-rows; `Report.batch` is then the batch size that the
    verdicts belong to. `screen` puts 10 APGD iterations at the target radius before the L1 chain.
    `backend="autoattack"` runs pyautoattack instead, with `attacks="standard"` (or "plus", "rand") a whole version of
    it; `replay` runs our attacks on the starts, batches (`batch_size`) and order of tries that pyautoattack would have,
    without screen or early exit. `source` is the public network that the model was
    fine-tuned from (its own classes may be others): the attacks that hold it alone are crafted and judged on the
    model under the Linf threats and under {"renofeation": 0.1}, the box of that paper's evaluator, with as many draws
    of random signs as their control, and further controls. `attacks_source` names them, "all" or as `attacks`;
    `attacker_images` [m, ...] are the images on which universal deltas are made, never x itself (without them Gaussian
    ones are). `store` is a folder that makes the evaluation resumable:
    shards of the same model, images, threats and seed that it holds are not run again; without it, an evaluation that
    is stopped leaves nothing. `progress` shows a bar in a terminal or a notebook; elsewhere it writes a line to stderr
    every half minute. `device` is where the model is by default; "auto" is a GPU that nobody uses, else the CPU. With
    `workers` the examples are divided among so many processes, each on a core or a GPU (the script's own code is not
    run again); else this process attacks them all, with torch's threads or with one where that is faster.
    `precision="bf16"` searches in bfloat16 and judges in fp32 (engine/bf16.py). `output` is the part of the model's
    output that is the logits: a key ("logits"), a field, or a position in a tuple. Model, tensors, random states,
    autocast and torch's defaults are unchanged afterwards.

    Raises InputError for what engine/preflight.py refuses, FaultError when a logit stops being finite.
    """
    engine = next((name for name in ENGINES if name == backend), None)
    if engine is None:
        raise InputError(f"unknown backend {backend!r}: use {' or '.join(ENGINES)}")
    if backend == "autoattack" and replay:
        raise InputError("replay runs our attacks on the reference's starts: give it without backend='autoattack'")
    if store is not None and replay:
        raise InputError("replay goes through all examples at once and cannot be stored: leave store or replay out")
    seed = whole_number("seed", seed)
    batch_size = None if batch_size is None else whole_number("batch_size", batch_size, at_least=1)
    if batch_size is not None and batch_size > _LARGEST_BATCH:
        raise InputError(f"batch_size={batch_size} is more than {_LARGEST_BATCH}")
    workers = whole_number("workers", workers, at_least=1)
    if workers > 1 and replay:
        raise InputError("replay goes through all examples at once and cannot be divided: leave workers or replay out")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision={precision!r}: write fp32 or bf16")
    if precision == "bf16" and (backend == "autoattack" or replay):
        raise InputError("precision='bf16' is of our search: leave out backend='autoattack' and replay")
    for name, value in (("screen", screen), ("replay", replay), ("progress", progress)):
        if not isinstance(value, bool):
            raise InputError(f"{name}={value!r} must be True or False")
    if store is not None and not isinstance(store, str | Path):
        raise InputError(f"store={store!r} must be the path of a folder")
    with plain_process():
        plain = backend == "autoattack" or replay
        measured = _threats(default_radii(model) if threats is None else threats)
        norms = [threat.norm for threat in measured.values()]
        chosen = chosen_attacks.parse(_texts(attacks), norms, engine)
        chosen = chosen.with_source_only(chosen_attacks.parse_source(_texts(attacks_source), norms))
        chosen_attacks.check_source(chosen, norms, source is not None)
        if source is None and attacker_images is not None:
            raise InputError("attacker_images are for attacks that hold the public model: name it (source=)")
        if not chosen.on_victim:
            chosen = replace(chosen, on_victim=DEFAULT)
        chains = _chains(measured, chosen, n_iter, screen and not plain)
        if plain:
            for chain in chains.values():
                reference.check(chain.attacks, REPLAYED if replay else reference.PARAMETERS)
        x, y, ids = image_sources.examples(model, x, y, ids)
        x, y, clamped = canonical.examples(x, y)
        places = _places(model, x, device, workers)
        where = canonical.device(places.device)
        examples = Examples(x.to(where), y.to(where), canonical.ids(ids, len(x)).to(where))
        given = model if output is None else with_output(model, output)
        target = Target.prepare(given, examples.x, examples.y, batch_size, EngineOptions(precision=precision))
        if not plain:
            for chain in chains.values():
                attack_plugins.build_chain(chain, target.num_classes)
        held = None
        if source is not None:
            every = "all" in _texts(attacks_source)
            held = source_only.held(source, measured, chosen, every, examples, attacker_images)
        with ExitStack() as stack:
            show = stack.enter_context(chain_progress(progress, store is not None, len(x) * len(chains)))
            stack.enter_context(fastest_threads(target.search.network, examples.x[:MIN_ROWS]))
            if workers > 1 and store is None:
                store = stack.enter_context(TemporaryDirectory())
            if store is not None:
                settings = RunSettings(
                    Path(store), str(where), places.workers, places.gpus, engine=EngineOptions(precision=precision)
                )
                results = run_stored(settings, target, chains, examples, seed, engine, show)
            else:
                run = run_replay if replay else ENGINES[engine]
                results = {
                    name: run_whole(run, target, chain, examples, seed, show.of(name, len(x)))
                    for name, chain in chains.items()
                }
                for name, chain in chains.items() if target.batch_dependent else ():
                    # A later chain may be the first to find that the model mixes rows.
                    if results[name].batch is None:
                        results[name] = run_whole(run, target, chain, examples, seed)
        before = target.judge.checks
        # The chains' own clean predictions, which are cached.
        clean = target.clean_logits(examples.x, examples.ids).argmax(1)
        table = asked = None
        if held is not None:
            asked = source_only.queried(held, target, measured, examples, seed)
            table = source_only.table(held, target, measured, examples, seed)
        other_checks = target.preflight + target.judge.checks - before
    flags = {*target.flags, *(["clamped-input"] if clamped else [])}
    flags |= {flag for result in results.values() for flag in result.flags}
    correct = int(torch.eq(clean, examples.y).sum())
    if preflight.at_chance(correct, len(x), target.num_classes):
        flags.add("accuracy-at-chance")
    report = _report(len(x), correct, chains, results, TotalCost(checks=other_checks))
    radii = {name: threat.eps.text for name, threat in measured.items()}
    return replace(report, source_only=table, queried=asked, flags=tuple(sorted(flags)), radii=radii)


def _places(model: object, x: Tensor, device: torch.device | str | None, workers: int) -> Places:
    """Where the evaluation runs: `device`, else the images' GPU, else where the model is."""
    module = model.model if isinstance(model, Victim) else model
    if device is None:
        parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
        is_elsewhere = parameter is not None and not parameter.is_meta and not x.is_cuda
        device = parameter.device if parameter is not None and is_elsewhere else x.device
        # The GPU that happens to hold the tensors is one of those that workers may take.
        device = device.type if workers > 1 else device
    if workers == 1 and str(device) != "auto":
        return Places(str(device), 1, (), "")
    return machine.choose(str(device), workers)


def _threats(given: object) -> dict[str, ThreatModel]:
    """Threats by their name in the report: the norm for a mapping, `norm:eps` for a list."""
    if isinstance(given, str):
        raise InputError(f'threats={given!r}: give radii with the names, as {{"Linf": "8/255"}}')
    named = isinstance(given, Mapping)
    try:
        items: Any = given.items() if isinstance(given, Mapping) else given
        pairs = [(norm, eps) for norm, eps in items]
    except (TypeError, ValueError):
        raise InputError('threats must be {"Linf": "8/255", ...} or a list of (norm, eps)') from None
    if not pairs:
        raise InputError("give at least one threat and one attack")
    threats: dict[str, ThreatModel] = {}
    for norm, eps in pairs:
        threat = ThreatModel.parse(norm, eps)
        name = threat.norm if named else str(threat)
        if name in threats:
            raise InputError(f"threat {name} is given twice")
        threats[name] = threat
    return threats


def _texts(attacks: Any) -> list[str | AttackSpec]:
    """The attacks one by one, from a text with commas or a list; none for None."""
    if attacks is None:
        return []
    given = [attacks] if isinstance(attacks, str | AttackSpec) else attacks
    if not isinstance(given, Sequence) or not all(isinstance(one, str | AttackSpec) for one in given):
        raise InputError(f"attacks={attacks!r}: give names of attacks, as ('apgd-ce', 'apgd-t:targets=3')")
    parts = [part for one in given for part in (one.split(",") if isinstance(one, str) else [one])]
    found = [part for part in parts if part]
    if not found:
        raise InputError("give at least one threat and one attack")
    return found


def _chains(
    threats: dict[str, ThreatModel], chosen: ChosenAttacks, n_iter: int | None, screen: bool
) -> dict[str, Chain]:
    """The chain of every norm's threat by its name, in L1 after the screen."""
    specs = tuple(_with_iterations(spec, n_iter) for spec in chosen.on_victim)
    chains: dict[str, Chain] = {}
    for name, threat in threats.items():
        if threat.norm in NORMS:
            has_ce = any(spec.id == APGD_CE for spec in specs)
            first = (SCREEN,) if screen and threat.norm == "L1" and has_ce else ()
            chains[name] = Chain(name, threat, first + specs)
    return chains


def _with_iterations(spec: AttackSpec, n_iter: int | None) -> AttackSpec:
    """The attack with so many iterations. InputError where it has none to set, or sets them itself."""
    if n_iter is None:
        return spec
    name = ITERATIONS.get(spec.id)
    if name is None:
        raise InputError(f"n_iter={n_iter}: attack {spec.id} takes no number of iterations; leave it out")
    if name in dict(spec.params):
        raise InputError(f"n_iter={n_iter}: attack {spec.id} sets {name} itself; leave one of them out")
    return AttackSpec.of(spec.id, **{**dict(spec.params), name: whole_number("n_iter", n_iter, at_least=1)})


def _report(n: int, correct: int, chains: dict[str, Chain], results: dict[str, ChainResult], cost: TotalCost) -> Report:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    by_attack: list[dict[str, Any]] = []
    robust: dict[str, float] = {}
    for name, result in results.items():
        for position, verdict in enumerate(result.verdicts):
            row = verdict._asdict()
            row |= {"example": position, "threat": name, "try": row.pop("rank")}
            rows.append(row)
        robust[name] = sum(not verdict.fooled for verdict in result.verdicts) / n
        cost.add(result.cost)
        by_attack += [{"threat": name, **asdict(part)} for part in result.by_attack]
    # Without an attacked example there is no row, but the columns are there.
    names = ["threat", *(item.name for item in fields(AttackTally))]
    cost.by_attack = pd.DataFrame(by_attack, columns=names)
    columns = ["example", "threat", "fooled", "attack", "try", "pred", "distance", "tie"]
    norms = [chain.threat.norm for chain in chains.values()]
    union = None
    if norms and len(set(norms)) == len(norms):
        standing = [[not verdict.fooled for verdict in result.verdicts] for result in results.values()]
        union = sum(map(all, zip(*standing, strict=True))) / n
        if union > min(robust.values()):
            raise FaultError("the union is above a norm's rate: verdicts are inconsistent")
    points = {name: result.points for name, result in results.items()}
    flag_rows: dict[str, int] = {}
    for result in results.values():
        for flag, count in result.flag_rows.items():
            flag_rows[flag] = max(count, flag_rows.get(flag, 0))
    return Report(
        n,
        correct / n,
        robust,
        union,
        pd.DataFrame(rows, columns=columns),
        points,
        cost,
        flag_rows=flag_rows,
        batch=next((result.batch for result in results.values() if result.batch is not None), None),
        draws={name: result.draws for name, result in results.items() if result.draws is not None},
    )
