"""The command line: parses, calls, prints. No logic, and no heavy import before a command runs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from transferbench import __version__
from transferbench.base.atomic_files import check_writable
from transferbench.base.errors import FaultError, InputError
from transferbench.base.specifications import Keep, Norm, parse_norm

if TYPE_CHECKING:
    from transferbench.base import registry
    from transferbench.results.records import Record
    from transferbench.scheduling.scheduler import Runner
    from transferbench.store.store import Store

_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LISTS = ("models", "networks", "datasets", "methods", "attacks", "suites")


class _Parser(argparse.ArgumentParser):
    """Errors in one line with exit status 2, without the usage block in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"transferbench: error: {message} (see {self.prog} --help)\n")


def _norms(text: str) -> tuple[Norm, ...]:
    return tuple(parse_norm(norm) for norm in text.split(","))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise InputError(f"--seeds {text!r}: write whole numbers with commas, 0,1,2") from None
    if len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds {text!r}: a seed is named twice")
    return seeds


def _pairs(option: str, items: Sequence[str]) -> dict[str, str]:
    """`["a=1", "b=2"]` -> {"a": "1", "b": "2"}. InputError for an item without `=` or a name given twice."""
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option} {item!r}: write it as name=value")
        if name in pairs:
            raise InputError(f"{option}: {name} is given twice")
        pairs[name] = value
    return pairs


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="transferbench",
        description="Is a network that was fine-tuned from a public one robust, and against whom?",
    )
    parser.add_argument("--version", action="version", version=f"transferbench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    run = commands.add_parser("run", help="run a suite: train, craft, attack, judge, write the leaderboard")
    run.add_argument("suite", metavar="SUITE", help="name of a suite, or a YAML file")
    run.add_argument("--out", type=Path, metavar="DIR", help="where everything goes (default: runs/<suite>)")
    run.add_argument("--seeds", metavar="0,1,2", help="seeds of the trainings and attacks (default: 0)")
    run.add_argument("--full", action="store_true", help="the suite's full protocol (10 x 100)")
    run.add_argument("--n", type=int, metavar="N", help="attack the first N test examples (default: the suite's)")
    run.add_argument(
        "--smoke", action="store_true", help="every method, network and loader once on made data, in a minute or two"
    )
    run.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    run.set_defaults(call=_run)

    evaluate = commands.add_parser("eval", help="attack any model, at the radii of its card")
    evaluate.add_argument("--model", required=True, metavar="ID", help="a model of `list models`, a folder or a card")
    evaluate.add_argument("--network", metavar="NAME", help="architecture of a model given as file:<path>")
    evaluate.add_argument("--dataset", metavar="ID", help="data set (default: the one on the model's card)")
    evaluate.add_argument("--norms", default="Linf,L2,L1", metavar="N,N", help="norms (default: Linf,L2,L1)")
    evaluate.add_argument(
        "--eps", default="", metavar="N=E,N=E", help="radii as Linf=8/255,L2=0.5 (default: card, else data set)"
    )
    evaluate.add_argument(
        "--attacks",
        default="",
        metavar="A,A",
        help="attacks in order (default: apgd-ce,apgd-t); standard is all of AutoAttack, with --backend autoattack",
    )
    evaluate.add_argument("--source", metavar="ID", help="also attack with this public model alone")
    evaluate.add_argument("--n", type=int, metavar="N", help="first N test examples (default: 1000, or all if fewer)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the random starts (default: 0)")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="where everything goes (default: runs/eval)")
    evaluate.add_argument("--download", action="store_true", help="fetch weights that are missing in --model-dir")
    evaluate.add_argument(
        "--allow-low-accuracy", action="store_true", help="attack a model whose clean accuracy is not above chance"
    )
    evaluate.add_argument("--backend", choices=("transferbench", "autoattack"), default="transferbench")
    evaluate.set_defaults(call=_eval)

    active = commands.add_parser("selftest", help="plant adversarial regions around examples: are they found?")
    active.add_argument("--model", required=True, metavar="ID", help="a model of `list models`, a folder or a card")
    active.add_argument("--dataset", metavar="ID", help="data set (default: the one on the model's card)")
    active.add_argument("--norms", default="Linf,L2,L1", metavar="N,N", help="norms (default: Linf,L2,L1)")
    active.add_argument("--eps", default="", metavar="N=E,N=E", help="radii (default: card, else data set)")
    active.add_argument("--n", type=int, default=32, metavar="N", help="first N test examples (default: 32)")
    active.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the planted points (default: 0)")
    active.set_defaults(call=_selftest)

    train = commands.add_parser("train", help="train one victim with a method")
    train.add_argument("--plugin", required=True, metavar="NAME", help="a method of `list methods`")
    train.add_argument("--source", metavar="ID", help="the pre-trained model to start from")
    train.add_argument(
        "--network",
        default="",
        metavar="NAME",
        help="architecture where it is not the source's (without a source: small-resnet)",
    )
    train.add_argument("--target", required=True, metavar="DATASET", help="data set to train on")
    train.add_argument("--shots", type=int, metavar="K", help="train on K images of each class, chosen by the seed")
    train.add_argument("--download", action="store_true", help="fetch what is missing of source and data set")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter")
    train.add_argument("--config", type=Path, metavar="FILE", help="hyper-parameters as YAML; --set goes before it")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new victim's folder")
    train.add_argument(
        "--eval-freq", type=int, metavar="E", help="look at robustness every E epochs: APGD-100 on 200 + 200 images"
    )
    train.add_argument("--tensorboard", action="store_true", help="also log to <out>/tensorboard")
    train.set_defaults(call=_train)

    for command in (run, evaluate, active, train):
        command.add_argument("--device", default="cpu", metavar="DEV", help="cpu, cuda, cuda:1 (default: cpu)")
        command.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with the data sets' files")
        command.add_argument("--model-dir", type=Path, metavar="DIR", help="folder with the models' weights")
    for command in (run, train):
        command.add_argument(
            "--loader-workers", type=int, default=0, metavar="N", help="processes that decode images ahead (default: 0)"
        )
    for command in (run, evaluate):
        command.add_argument(
            "--cluster", metavar="WHERE", help="local:N processes here, or the tcp:// or tls:// address of a scheduler"
        )
        command.add_argument(
            "--keep-examples",
            default="fooled",
            metavar="WHICH",
            help="end points to keep: fooled, all, sample:N of a shard, none (default: fooled)",
        )
    for command in (run, evaluate, train):
        command.add_argument("--fresh", action="store_true", help="begin anew instead of going on from what is done")
    for command in (run, evaluate, active):
        command.add_argument(
            "--batch-size", type=int, metavar="B", help="rows in flight (verdicts do not depend on it)"
        )

    runs = commands.add_parser("runs", help="what of a run is done, under way, failed or missing")
    runs.add_argument("dir", type=Path, metavar="DIR", help="a run's folder")
    runs.add_argument("--verdicts", type=Path, metavar="FILE", help="also write every example's verdicts as CSV")
    runs.set_defaults(call=_runs)

    second = commands.add_parser("verify", help="check a run's stored points, predictions and counts again, stamp it")
    second.add_argument("dir", type=Path, metavar="DIR", help="a run's folder")
    second.add_argument("--device", default="cpu", metavar="DEV", help="cpu, cuda, cuda:1 (default: cpu)")
    second.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with the data sets' files")
    second.add_argument("--model-dir", type=Path, metavar="DIR", help="folder with the models' weights")
    second.set_defaults(call=_verify)

    board = commands.add_parser("leaderboard", help="check or rebuild tables from their records")
    board.add_argument("dir", nargs="?", type=Path, metavar="DIR", help="a leaderboard (default: all of leaderboards/)")
    board.add_argument("--check", action="store_true", help="fail when a table differs from its records")
    board.add_argument("--html", action="store_true", help="write the page: index.html and a page per victim")
    board.add_argument("--rebuild", action="store_true", help="write the tables anew from their records")
    board.add_argument(
        "--published",
        nargs="?",
        type=Path,
        const=Path("leaderboards/published.csv"),
        metavar="FILE",
        help="put published numbers beside the measured ones (default: leaderboards/published.csv)",
    )
    board.add_argument(
        "--export", metavar="WHAT,WHAT", help="write exports/: robustbench (model_info files), latex (a table)"
    )
    board.add_argument("--robustbench", type=Path, metavar="DIR", help="a checkout of RobustBench, for its numbers")
    board.set_defaults(call=_leaderboard)

    publish = commands.add_parser("publish", help="copy a finished run to leaderboards/ and model_cards/")
    publish.add_argument("dir", type=Path, metavar="DIR", help="a run's folder")
    publish.set_defaults(call=_publish)

    card = commands.add_parser("card", help="show the card of a model")
    card.add_argument("model", metavar="ID", help="a model of `list models`, a folder or a card")
    card.set_defaults(call=_card)

    listing = commands.add_parser("list", help="what there is, one line each")
    listing.add_argument("kind", choices=_LISTS)
    listing.add_argument("--data-dir", type=Path, metavar="DIR", help="datasets: where to look which are there")
    listing.set_defaults(call=_list)
    return parser


def _device(name: str, cluster: str | None = None) -> str:
    """A device that is here; with a cluster, one that its workers may have."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name!r} is not a device: use cpu, cuda or cuda:1") from None
    elsewhere = cluster is not None and not cluster.startswith("local:")
    if device.type == "cuda" and not elsewhere and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: {torch.cuda.device_count()} CUDA devices are visible; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: only cpu and cuda are supported")
    return name


def _batch_size(args: argparse.Namespace) -> None:
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size}: must be at least 1")


def _run(args: argparse.Namespace) -> None:
    from transferbench import suites

    suite = suites.load(args.suite)
    suite = suite.in_full() if args.full else suite
    if args.n is not None:
        if args.n < 1:
            raise InputError(f"--n {args.n}: ask for at least 1 example")
        suite = suite.model_copy(update={"n": args.n})
    if args.smoke:
        given = {"--cluster": args.cluster, "--data-dir": args.data_dir, "--model-dir": args.model_dir}
        for option, value in given.items():
            if value is not None:
                raise InputError(f"--smoke runs here, on images and weights of its own making: leave {option} out")
        from transferbench.smoke.shorten import shorten

        suite = shorten(suite)
    seeds = _seeds(args.seeds) if args.seeds is not None else suite.seeds
    _batch_size(args)
    from transferbench.leaderboard import figures, page
    from transferbench.scheduling.plan import describe, plan
    from transferbench.workflows import run_suite

    planned = plan(suite, seeds)
    device, keep = _device(args.device, args.cluster), Keep.parse(args.keep_examples)
    if args.loader_workers < 0 or (args.loader_workers and args.cluster is not None):
        raise InputError(
            "--loader-workers: a number from 0 up, and not with --cluster: its workers are one process each"
        )
    run_suite.check(suite)
    if args.dry_run:
        print("\n".join(describe(planned)))
        return
    _cluster(args.cluster, device)
    from transferbench.cli.console import Bars
    from transferbench.store.store import Store

    out = args.out or Path("runs") / suite.name
    with ExitStack() as stack:
        store, bars = stack.enter_context(Store(out)), stack.enter_context(Bars())
        if args.smoke:
            from transferbench import smoke

            args.data_dir, args.model_dir = stack.enter_context(smoke.made(suite, out / "made"))
        runner = _runner(args, store, device, keep)
        if args.smoke:
            smoke.use_all_cores()
        records = run_suite.run_suite(suite, seeds, runner, bars)
    if args.smoke:
        print(smoke.told(suite, records))
        return
    figures.write(out, records)
    page.write(out, records)
    _print_board(out, records, f"{bars.reused} of {len(planned.jobs)} jobs were done before" if bars.reused else "")


def _cluster(address: str | None, device: str) -> None:
    if address is not None:
        from transferbench.scheduling.backends import dask

        dask.check(address, device)


def _runner(args: argparse.Namespace, store: Store, device: str, keep: Keep) -> Runner:
    from transferbench.scheduling.scheduler import Runner

    folders = args.data_dir, args.model_dir
    workers = getattr(args, "loader_workers", 0)
    return Runner(store, device, args.batch_size, *folders, keep, args.cluster, args.fresh, workers)


def _radii(text: str) -> dict[Norm, str]:
    return {parse_norm(norm): eps for norm, eps in _pairs("--eps", [p for p in text.split(",") if p]).items()}


def _selftest(args: argparse.Namespace) -> None:
    from transferbench.workflows import evaluate

    request = evaluate.Request(args.model, args.dataset, _norms(args.norms), _radii(args.eps), n=args.n, seed=args.seed)
    _batch_size(args)
    evaluate.check(request)
    device = _device(args.device)
    found = evaluate.locate(request, args.data_dir, args.model_dir)
    passed = True
    for name, planted, count in evaluate.selftest(found, request.seed, device, args.batch_size, args.data_dir):
        print(f"{name:<12} {count} of {planted} planted regions found")
        passed = passed and planted == count
    if not passed:
        raise FaultError(
            "selftest failed: the attacks do not find what is certainly there; robust accuracy means little"
        )


def _eval(args: argparse.Namespace) -> None:
    from transferbench.workflows import evaluate

    eps = _radii(args.eps)
    request = evaluate.Request(
        model=args.model,
        dataset=args.dataset,
        norms=_norms(args.norms),
        eps=eps,
        attacks=tuple(id for id in args.attacks.split(",") if id),
        source=args.source,
        n=args.n,
        seed=args.seed,
        backend=args.backend,
        network=args.network,
        download=args.download,
        allow_low_accuracy=args.allow_low_accuracy,
    )
    _batch_size(args)
    evaluate.check(request)
    from transferbench.cli.console import Bars, evaluation_report
    from transferbench.store.store import Store

    device, keep = _device(args.device, args.cluster), Keep.parse(args.keep_examples)
    _cluster(args.cluster, device)
    found = evaluate.locate(request, args.data_dir, args.model_dir)
    out = args.out or Path("runs/eval")
    with Store(out) as store, Bars() as bars:
        record = evaluate.evaluate(request, found, _runner(args, store, device, keep), bars)
        if bars.reused:
            bars.note(f"{bars.reused} jobs were done before")
    print(evaluation_report(record, found.victim.card.weights))
    print(f"files: {out}/ (leaderboard.csv, leaderboard.md, cost.csv, records/, examples/)")
    print(f"page: {out / 'index.html'}")


def _settings(path: Path) -> dict[str, Any]:
    """The hyper-parameters of a YAML file: a mapping of names to plain values. InputError otherwise."""
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config {path}: not readable as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(given, dict) or not all(isinstance(value, str | int | float | bool) for value in given.values()):
        raise InputError(f"--config {path}: write it as lines of 'name: value'")
    return {str(name): value for name, value in given.items()}


def _train(args: argparse.Namespace) -> None:
    from transferbench import data, methods
    from transferbench.base import registry

    registry.find("methods", args.plugin)
    registry.find("data", args.target.partition(":")[0])
    if args.network:
        registry.find("networks", args.network.partition(":")[0])
    for option, value, least in (("--loader-workers", args.loader_workers, 0), ("--eval-freq", args.eval_freq, 1)):
        if value is not None and value < least:
            raise InputError(f"{option} {value}: must be at least {least}")
    given = _settings(args.config) if args.config is not None else {}
    method = methods.build(args.plugin, {**given, **_pairs("--set", args.set)})
    import torch

    from transferbench.cli.console import Bars
    from transferbench.models import networks, trained, victims
    from transferbench.models.catalogue.classes import RADII
    from transferbench.training import loop, monitor, plots, tensorboard

    device = _device(args.device)
    # As in a run: the sums inside a convolution are split by threads, so another number trains other weights.
    torch.set_num_threads(1)
    source = victims.load(args.source, args.model_dir, args.download).to(device) if args.source else None
    if (args.out / trained.CARD).exists() and not args.fresh:
        raise InputError(f"--out {args.out}: a trained model is there already; give another folder, or --fresh")
    if args.download:
        data.download(args.target, args.data_dir)
    network = args.network or ("" if source is not None else "small-resnet")
    seen = source.card if source is not None else networks.build(network, 2)
    view = data.View.of(source.card.preprocessing if source is not None else "", seen.input_shape)
    splits = loop.load_splits(args.target, args.data_dir, view, args.shots, method.params.seed)
    check_writable(args.out)
    threats: dict[str, str] = dict(source.card.threats if source is not None else RADII.get(args.target, {}))
    recipe = loop.Recipe(args.out.name, args.plugin, {}, args.target, network, args.shots)
    what = loop.identity(recipe, method, source, splits, device)
    looks = None
    if args.eval_freq is not None:
        if not threats:
            raise InputError(f"--eval-freq: nothing says at which radii: neither the source's card nor {args.target}")
        looks = monitor.Watch(*splits, threats, args.eval_freq)
    with ExitStack() as stack:
        checkpoint = stack.enter_context(loop.resumable(args.out, what, args.fresh))
        shown = stack.enter_context(Bars()).training(f"train {args.out.name}", checkpoint)
        if args.tensorboard:
            shown = stack.enter_context(tensorboard.recorded(args.out / "tensorboard", shown))
        model, card, result = loop.train_victim(
            recipe, method, source, *splits, device, shown, checkpoint, args.loader_workers, looks
        )
        trained.save(args.out, model.state_dict(), card.model_copy(update={"threats": threats}))
    loop.write_log(args.out / "log.csv", result.log)
    plots.draw(args.out / "curve.png", result.log, card.id)
    print(f"{card.id}: validation accuracy {100 * result.validation_accuracy:.2f} % on {len(splits[1])} images")
    print(f"files: {args.out}/ ({trained.CARD}, {trained.WEIGHTS}, log.csv, plots.png)")
    print(f"attack it: transferbench eval --model {args.out}")


def _runs(args: argparse.Namespace) -> None:
    from transferbench.store.reader import Reader
    from transferbench.workflows import run_status

    reader = Reader(args.dir)
    print("\n".join(run_status.describe(reader)))
    if args.verdicts is not None:
        rows = run_status.write_verdicts(reader, args.verdicts)
        print(f"{args.verdicts}: {rows} verdicts")


def _verify(args: argparse.Namespace) -> None:
    from transferbench.results.verification import Tally, verify

    def told(record: Record, found: Tally) -> None:
        ties = f", {found.changed_ties} ties fell the other way" if found.changed_ties else ""
        others = f", {found.disagreements} predictions differ (randomised)" if found.disagreements else ""
        print(f"{record.victim}: {found.points} end points and all counts hold{ties}{others}")

    complaints = verify(args.dir, args.data_dir, args.model_dir, _device(args.device), told)
    for complaint in complaints:
        print(f"transferbench: error: {complaint}", file=sys.stderr)
    if complaints:
        raise SystemExit(1)


def _leaderboard(args: argparse.Namespace) -> None:
    from transferbench.base import registry
    from transferbench.leaderboard import build, exports, figures, page, published
    from transferbench.results.records import read_all

    kinds = args.export.split(",") if args.export is not None else []
    for kind in kinds:
        if kind not in exports.KINDS:
            raise InputError(registry.unknown("export", kind, exports.KINDS))
    folders = [args.dir] if args.dir is not None else build.published(Path("leaderboards"))
    complaints = []
    for folder in folders:
        if args.rebuild:
            figures.write(folder, build.rebuild(folder))
        if args.html or (args.rebuild and (folder / "index.html").is_file()):
            print(f"page: {page.write(folder, read_all(folder))}")
        if kinds:
            files = exports.write(folder, read_all(folder), kinds)
            print(f"files: {folder / 'exports'}/ ({len(files)})")
        if args.check:
            complaints += [*build.check(folder), *page.check(folder, read_all(folder))]
        if args.published is not None or args.robustbench is not None:
            files = published.write(folder, read_all(folder), args.published, args.robustbench)
            print(files[-1].read_text(encoding="utf-8"))
            print(f"files: {', '.join(map(str, files))}")
        elif not (args.rebuild or args.check or args.html or kinds):
            _print_board(folder, read_all(folder), "")
    for complaint in complaints:
        print(f"transferbench: error: {complaint}", file=sys.stderr)
    if complaints:
        raise SystemExit(1)


def _publish(args: argparse.Namespace) -> None:
    from transferbench.leaderboard.publish import publish

    target = publish(args.dir, Path())
    print(f"published to {target}/ and model_cards/")


def _card(args: argparse.Namespace) -> None:
    from transferbench.models import cards, catalogue

    path = Path(args.model)
    if path.exists():
        print(cards.write(cards.read(path / "README.md" if path.is_dir() else path)), end="")
        return
    found = catalogue.card(args.model)
    if found is None:
        from transferbench.models import victims

        found = victims.card(args.model)
    print(cards.write(found), end="")


def _presence(entry: registry.Entry, root: Path | None) -> str:
    """`ready` for what comes with packages, else whether its files lie below the folder of data sets."""
    from transferbench.base import registry

    if not registry.literal(entry, "NEEDS").get(entry.id):
        return "any path" if entry.id == "folder" else "ready"
    return "missing" if registry.missing(entry, root or Path("data")) else "present"


def _list(args: argparse.Namespace) -> None:
    from transferbench.base import registry

    if args.kind == "suites":
        from transferbench import suites

        lines = suites.available()
    else:
        kinds: dict[str, registry.Kind] = {
            "models": "models",
            "networks": "networks",
            "datasets": "data",
            "methods": "methods",
            "attacks": "attacks",
        }
        lines = {id: entry.description for id, entry in registry.entries(kinds[args.kind]).items()}
    if args.kind == "datasets":
        known = registry.entries("data")
        lines = {id: f"{_presence(entry, args.data_dir):<9}{entry.description}" for id, entry in known.items()}
    if args.kind == "models":
        from transferbench.models import catalogue

        public = catalogue.lines()
        families = {id.partition(":")[0] for id in public} | {"RB"}
        lines = dict(sorted((public | {id: line for id, line in lines.items() if id not in families}).items()))
    width = max(map(len, lines), default=0)
    for id, description in lines.items():
        print(f"{id:<{width}}  {description}")


def _print_board(out: Path, records: Sequence[Record], note: str) -> None:
    from rich.console import Console

    from transferbench.cli.console import summary_table

    Console().print(summary_table(records))
    if note:
        print(note)
    tables = ("leaderboard.md", "leaderboard.csv", "cost.csv", "transfer.csv")
    present = (*tables, "figures", "strips", "records", "cards", "victims", "examples")
    print(f"files: {out}/ ({', '.join(name for name in present if (out / name).exists())})")
    if (out / "index.html").is_file():
        print(f"page: {out / 'index.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. 0, or 2 for bad input, 1 for a fault, 130 for Ctrl-C; always one line, no traceback."""
    try:
        args = _parser().parse_args(argv)
        call: Callable[[argparse.Namespace], None] = args.call
        call(args)
    except InputError as error:
        print(f"transferbench: error: {error}", file=sys.stderr)
        return 2
    except FaultError as error:
        print(f"transferbench: fault: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read our output has gone (`| head`): not an error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if error.errno not in _WRITING:
            raise
        print(f"transferbench: fault: {error}: make room, the same command goes on from there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("transferbench: stopped; finished jobs are kept, the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
