"""The columns of leaderboard.csv and cost.csv, in order. Another column is another entry of a list."""

from __future__ import annotations

from collections.abc import Callable

from transferbench.base.ids import PGD20, PRETRAINED_NEURON, RENOFEATION, SOURCE_PGD
from transferbench.base.names import file_stem
from transferbench.base.results import FileFormat
from transferbench.base.specifications import NORMS, Norm
from transferbench.leaderboard.column import Cell, Column, Group
from transferbench.leaderboard.corruptions import Score
from transferbench.leaderboard.families import (
    BoardColumn,
    RateColumn,
    accuracy,
    as_file,
    change,
    corrupted,
    cost,
    crafted_radius,
    end,
    ends,
    ends_of,
    expected,
    flagged,
    identity,
    of_source,
    over_all,
    radius,
    variant_text,
)
from transferbench.leaderboard.links import card_link, page_of
from transferbench.leaderboard.measurements import Measurements
from transferbench.leaderboard.rates import Rate
from transferbench.results.records import ChainRecord, CraftedRecord, Record


def _neurons(m: Measurements) -> Cell:
    crafted = m.record.crafted_set(PRETRAINED_NEURON)
    return "" if crafted is None else len(crafted.flips)


def _clean_full(m: Measurements) -> Rate | None:
    return None if m.record.clean_full is None else Rate(*m.record.clean_full)


def _n_full(m: Measurements) -> Cell:
    return "" if m.record.clean_full is None else m.record.clean_full[1]


def _corruptions_acc(threat: str) -> Callable[[Measurements], Score | None]:
    return lambda m: found.accuracy if (found := m.corruptions.get(threat)) else None


def _corruptions_mce(threat: str) -> Callable[[Measurements], Score | None]:
    return lambda m: found.mce if (found := m.corruptions.get(threat)) else None


def _chain_of(norm: Norm) -> Callable[[Record], ChainRecord | None]:
    return lambda record: record.chain(norm)


def _pretrained(record: Record) -> CraftedRecord | None:
    return record.crafted_set(PRETRAINED_NEURON)


def image_files() -> list[BoardColumn]:
    """Of the norms' chains and the pre-trained-neuron attack, by format."""
    columns: list[BoardColumn] = []
    formats: dict[FileFormat, str] = {"8bit": "8 bits a value", "jpeg90": "JPEG of quality 90"}
    for format, words in formats.items():
        for norm in NORMS:
            meaning = (
                f"share of the {norm} chain's fooling points that still fool when saved with {words} and read, %; "
                "judged, not attacked"
            )
            name, heading = f"{norm.lower()}_{format}", f"{norm} {format}"
            columns.append(as_file(name, meaning, heading, format, _chain_of(norm), norm))
        meaning = f"likewise of the examples that pretrained_asr counts, with {words}, %"
        columns.append(as_file(f"pretrained_{format}", meaning, f"pre-trained {format}", format, _pretrained, None))
    return columns


RANK: BoardColumn = Column(
    "rank",
    "1 + the number of rows of the same suite, target, n and seed that beat this one in union accuracy "
    "(exact McNemar test, Holm-corrected, at .05); empty for incomplete rows",
    lambda m: "" if m.rank is None else m.rank,
    "rank",
    Group.VICTIM,
    page_order=-2,
)
VICTIM: BoardColumn = Column(
    "victim",
    "id of the trained network; it ends in the seed",
    lambda m: m.record.victim,
    "victim",
    Group.VICTIM,
    text=True,
    link=lambda _, victim: page_of(victim),
)
CLEAN = RateColumn(
    "clean_acc",
    "accuracy on the n attacked examples before any attack, %",
    "clean",
    Group.ROBUST,
    rate=lambda m: m.clean,
    interval=ends_of("clean_acc"),
    summary="clean",
    readme=True,
    terminal="clean",
    metric="accuracy",
)
LINF = accuracy("linf_acc", "share of the n examples that survive the Linf chain, %", "Linf")
L2 = accuracy("l2_acc", "share that survives the L2 chain, %", "L2")
L1 = accuracy("l1_acc", "share that survives the L1 chain, %", "L1")
UNION = RateColumn(
    "union_acc",
    "share that survives all three chains, %",
    "union",
    Group.VICTIM,
    rate=lambda m: m.union,
    interval=ends_of("union"),
    summary="union",
    readme=True,
    terminal="union",
    metric="robust_accuracy",
    # It ranks, and stands beside the rank.
    page_order=-1,
)
PGD = RateColumn(
    "pgd20_linf_acc",
    "share right at the end point of Madry PGD-20 (random start) at linf_eps, %",
    "PGD-20 Linf",
    Group.ROBUST,
    rate=lambda m: m.robust.get(PGD20),
    interval=ends_of("pgd20_linf_acc"),
    norm="Linf",
    summary="PGD-20",
)
SOURCE_UNION = of_source("source_union_acc", "likewise the union, %", UNION, summary="source union")
PRETRAINED = RateColumn(
    "pretrained_asr",
    "share of the clean-correct examples that any of the k points flips; the attacker has the source alone, %",
    "pre-trained ASR",
    Group.CRAFTED,
    rate=lambda m: m.flipped(PRETRAINED_NEURON),
    interval=ends_of("pretrained_asr"),
    summary="pre-trained ASR",
    summary_order=1,
    readme=True,
    terminal="ASR",
)
NOISE = RateColumn(
    "noise_asr",
    "the control: the same for k draws of random signs at the same radius, %",
    "noise ASR",
    Group.CRAFTED,
    rate=lambda m: m.matched_noise(PRETRAINED_NEURON),
    interval=ends_of("noise_asr"),
    summary="noise ASR",
    summary_order=1,
    readme=True,
    terminal="noise",
)

LEADERBOARD: list[BoardColumn] = [
    RANK,
    VICTIM,
    identity("method", "transfer method (plugin)", lambda m: m.record.method, "method"),
    identity("source", "the pre-trained network it started from", lambda m: m.record.source, "source"),
    identity("network", "architecture", lambda m: m.record.network, "network", setting=True),
    identity(
        "source_dataset",
        "what the source was trained on",
        lambda m: m.record.source_dataset,
        "source data",
        setting=True,
    ),
    identity(
        "target_dataset",
        "what the victim was trained and attacked on",
        lambda m: m.record.target_dataset,
        "target data",
        setting=True,
    ),
    Column("n", "attacked test examples", lambda m: m.record.n, "n", Group.VICTIM, setting=True, page_order=1),
    CLEAN,
    radius("linf_eps", "Linf radius, [0,1] pixel units", "Linf"),
    LINF,
    radius("l2_eps", "L2 radius", "L2"),
    L2,
    radius("l1_eps", "L1 radius", "L1"),
    L1,
    UNION,
    PGD,
    of_source("source_clean_acc", "the source's own clean accuracy on its own task's n attacked examples, %", CLEAN),
    of_source(
        "source_linf_acc",
        "the source's Linf accuracy on its own task, same chain and radius, %",
        LINF,
        summary="source Linf",
    ),
    of_source("source_l2_acc", "likewise L2, %", L2),
    of_source("source_l1_acc", "likewise L1, %", L1),
    SOURCE_UNION,
    crafted_radius("pretrained_eps", "Linf radius of the pre-trained-model attack", "pre-trained eps", "Linf"),
    Column(
        "pretrained_neurons",
        "k: penultimate neurons of the source driven one by one",
        _neurons,
        "pre-trained neurons",
        Group.MORE,
    ),
    PRETRAINED,
    NOISE,
    Column(
        "forwards",
        "rows forward through the net in all chains, cancelled tries apart",
        lambda m: sum(chain.forwards for chain in m.record.chains),
        "forwards",
        Group.COST,
    ),
    Column(
        "backwards",
        "rows backward, likewise",
        lambda m: sum(chain.backwards for chain in m.record.chains),
        "backwards",
        Group.COST,
    ),
    RateColumn(
        "clean_acc_full",
        "clean accuracy on the whole test split, %",
        "clean acc full",
        Group.MORE,
        rate=_clean_full,
        page_order=1,
    ),
    Column("n_full", "examples in the whole test split", _n_full, "n full", Group.MORE, page_order=1),
    Column("union_low", "lower end of the union's 95 % Wilson interval, %", end(UNION, 0)),
    Column("union_high", "upper end, %", end(UNION, 1)),
    Column("seed", "seed of the trainings and attacks", lambda m: m.record.seed, "seed", Group.VICTIM),
    Column("suite", "suite", lambda m: m.record.suite, "suite", Group.MORE, text=True, page_order=1),
    change(
        "change_clean",
        "clean_acc less source_clean_acc, points: what the transfer cost, or gained on an easier task",
        CLEAN,
    ),
    change("change_linf", "linf_acc less source_linf_acc, points", LINF),
    change("change_l2", "likewise L2", L2),
    change("change_l1", "likewise L1", L1),
    change("change_union", "likewise the union", UNION),
    expected(
        "linf_expected",
        "expected Linf robustness: the mean robust accuracy over radii from 0 to linf_eps, by the "
        "trapezoid rule through the clean accuracy and the curve's radii, %; empty without a curve",
        "Linf",
        summary="expected Linf",
        summary_order=2,
    ),
    expected("l2_expected", "likewise L2", "L2"),
    expected("l1_expected", "likewise L1", "L1"),
    RateColumn(
        "source_pgd_asr",
        "share of the clean-correct examples that PGD on the source alone flips, %",
        "source PGD ASR",
        Group.CRAFTED,
        rate=lambda m: m.flipped(SOURCE_PGD),
        summary="source-PGD ASR",
    ),
    RateColumn(
        "source_pgd_noise_asr",
        "its control: as many draws of random signs as it has tries, %",
        "source PGD noise ASR",
        Group.CRAFTED,
        rate=lambda m: m.matched_noise(SOURCE_PGD),
    ),
    crafted_radius(
        "pretrained_renofeation_eps",
        "radius of the pre-trained-model attack in Renofeation's own normalised space, clipped there at +-2.2 "
        "(threat renofeation)",
        "pre-trained Renofeation eps",
        RENOFEATION,
    ),
    RateColumn(
        "pretrained_renofeation_asr",
        "pretrained_asr in that threat, %",
        "pre-trained Renofeation ASR",
        Group.CRAFTED,
        rate=lambda m: m.flipped(PRETRAINED_NEURON, RENOFEATION),
    ),
    RateColumn(
        "noise_renofeation_asr",
        "its control: as many draws of random signs in that threat, %",
        "noise Renofeation ASR",
        Group.CRAFTED,
        rate=lambda m: m.matched_noise(PRETRAINED_NEURON, RENOFEATION),
    ),
    over_all(PRETRAINED),
    over_all(NOISE),
    *(column for rate in (CLEAN, LINF, L2, L1, PGD, PRETRAINED, NOISE) for column in ends(rate)),
    Column(
        "n_chains",
        "the chains attacked the first so many of the n: what survives them is a share of these; source-only attacks "
        "and clean accuracy are of all n",
        lambda m: m.record.n_chains if m.record.n_chains < m.record.n else "",
        "n chains",
        Group.VICTIM,
        setting=True,
        optional=True,
        page_order=1,
    ),
    *corrupted(
        "corruptions_acc",
        "RobustBench's score on common corruptions (CIFAR-10-C, CIFAR-100-C, ImageNet-C): the mean accuracy over 15 "
        "corruptions at 5 severities, on the first n images of each, %",
        "corruptions",
        _corruptions_acc("corruptions"),
        summary="corruptions",
    ),
    *corrupted(
        "corruptions_mce",
        "likewise the mean corruption error: the mean over corruptions of the error over severities, relative to "
        "AlexNet's, %; ImageNet-C alone",
        "mCE",
        _corruptions_mce("corruptions"),
        summary="mCE",
    ),
    *corrupted(
        "corruptions_acc_3d",
        "the mean accuracy over ImageNet-3DCC's 12 corruptions at 5 severities, %",
        "3D corruptions",
        _corruptions_acc("corruptions_3d"),
        summary="3D corruptions",
    ),
    *corrupted(
        "corruptions_mce_3d",
        "likewise the mean corruption error, relative to AlexNet's, %",
        "3D mCE",
        _corruptions_mce("corruptions_3d"),
        summary="3D mCE",
    ),
    *image_files(),
    Column(
        "images",
        "size of the attacked images, CxHxW, with what files went through: radii mean something at one size only",
        lambda m: m.record.images,
        "images",
        Group.MORE,
        text=True,
    ),
    Column(
        "precision",
        "in which the attacks searched, where it is not fp32; verdicts are of the model itself in fp32",
        lambda m: " ".join(sorted({chain.precision for chain in m.record.chains if chain.precision})),
        "search precision",
        Group.MORE,
        text=True,
        summary="search",
        summary_order=3,
        optional=True,
    ),
    Column(
        "preset_of",
        "the method whose setting the row's method names",
        lambda m: m.record.preset_of,
        "preset of",
        Group.MORE,
        text=True,
        optional=True,
    ),
    Column(
        "variant",
        "hyper-parameters of the method that are an extension of their own",
        lambda m: variant_text(m.record),
        "variant",
        Group.MORE,
        text=True,
        optional=True,
    ),
    Column(
        "train_forwards",
        "rows forward through the networks of its training, inner attacks included",
        lambda m: "" if m.record.train_forwards is None else m.record.train_forwards,
        "train forwards",
        Group.COST,
        optional=True,
    ),
    Column(
        "train_backwards",
        "rows backward, likewise; a pass counts as one however far it goes",
        lambda m: "" if m.record.train_backwards is None else m.record.train_backwards,
        "train backwards",
        Group.COST,
        optional=True,
    ),
    Column(
        "flags",
        "what pre-flight or the run suspects (docs/protocol.md), separated by spaces",
        lambda m: " ".join(flagged(m.record)),
        "flags",
        Group.MORE,
        text=True,
        page_order=1,
    ),
    Column(
        "card",
        "the victim's card, below model_cards/",
        lambda m: f"{file_stem(m.record.victim)}.md",
        "card",
        Group.MORE,
        text=True,
        link=card_link,
        page_order=1,
    ),
]

COST: list[BoardColumn] = [
    Column("victim", VICTIM.meaning, VICTIM.value),
    cost("train_seconds", "wall time of its training", "train seconds", Group.COST),
    cost("seconds", "wall time of its evaluation", "seconds", Group.COST),
    cost("wasted", "backwards of cancelled tries"),
    cost("checks", "rows through the original model alone: clean predictions, confirmations"),
    cost("source_passes", "gradient passes through sources for its crafted sets, which all victims of a source share"),
    cost("halvings", "how often the rows in flight were halved because memory ran out"),
    cost("peak_memory_mb", "peak resident memory of the process, MiB"),
    cost("hardware", "what it ran on"),
]
