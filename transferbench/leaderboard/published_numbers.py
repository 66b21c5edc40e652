"""Published numbers in this package's words, from a published.csv and from a checkout of RobustBench.

`leaderboards/published.csv` holds numbers with their paper and table.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transferbench.base import registry
from transferbench.base.errors import InputError
from transferbench.base.specifications import NORMS

CLEAN = "clean"
UNION = "union"
PGD_20 = "PGD-20"
PGD_10 = "PGD-10"
MEASURES = (CLEAN, *NORMS, UNION, PGD_20, PGD_10)
"""What a number can be a rate of, in the order of tables."""

TABLE, FIGURE, THIRD_PARTY = "table", "figure reading", "third party"
PROVENANCES = {
    TABLE: "printed as a number by the paper or its code",
    FIGURE: "read off a figure, in whole percents",
    THIRD_PARTY: "from the notes of a third party, not from the paper",
}
"""How a number was read: the column `provenance`, and its footnote."""

METHODS = {
    "E-AT fine-tuning": "eat",
    "MAX fine-tuning": "max",
    "SAT fine-tuning": "sat",
    "AVG fine-tuning": "avg",
    "MSD fine-tuning": "msd",
    "Fine-tuning": "finetune",
    "fine-tuning baseline": "finetune",
    "DELTA-R": "delta-r",
    "DELTA": "delta",
    "Re-training": "retrain",
    "Renofeation": "renofeation",
    "Natural training": "natural",
    "Madry": "madry",
    "Free-8": "free",
    "E-AT": "eat",
    "MAX": "max",
    "MSD": "msd",
    "Linf-AT": "apgd-at",
    "RAMP fine-tuning": "ramp",
    "RAMP": "ramp",
    "Vanilla RFT": "madry",
    "TWINS": "twins",
    "RoLI-Full": "roli",
    "RanLI-Full": "madry",
    "FFT-5 TRADES": "fft-5-trades",
    "FFT-50 TRADES": "fft-50-trades",
    "LP-50 TRADES": "lp-50-trades",
    "FFT-5": "fft-5",
    "FFT-50": "fft-50",
    "LP-50": "lp-50",
}
"""The papers' words, longest first where one begins with another; what follows them is noted as a variant."""
NETWORKS = {
    "PreActResNet-18": "preact-resnet18",
    "WideResNet-32-10 (Madry)": "madry-wrn-32-10",
    "ResNet-18": "torchvision:resnet18",
    "ResNet-50": "torchvision:resnet50",
    "ResNet-101": "torchvision:resnet101",
    "MobileNetV2": "torchvision:mobilenet_v2",
}
PUBLIC_NETWORKS = {
    ("ResNet-50", "CIFAR-10 Linf-AT, Engstrom2019"): "robustbench:cifar10/Linf/Engstrom2019Robustness",
    ("WideResNet-28-10", "CIFAR-10 Linf-AT, Carmon2019 (extra data)"): "robustbench:cifar10/Linf/Carmon2019Unlabeled",
    ("ResNet-50", "ImageNet Linf-AT 4/255"): "robustbench:imagenet/Linf/Salman2020Do_R50",
    ("Swin-B", "ImageNet Linf-AT"): "robustbench:imagenet/Linf/Liu2023Comprehensive_Swin-B",
}
"""Architectures that are one network here, by the source they were fine-tuned from."""
DATASETS = {
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "ImageNet": "imagenet",
    "MIT67": "mit67",
    "CUB-200-2011": "cub200",
    "Flower102": "flowers102",
    "StanfordDogs120": "dogs120",
    "Stanford40": "stanford40",
    "Caltech-256": "caltech256",
}
CHAINS = {
    "APGD-CE+APGD-T (E-AT protocol)": "",
    "AutoAttack (as worded by RAMP; E-AT-style protocol)": "the paper says AutoAttack and describes E-AT's protocol",
    "AutoAttack standard": "there AutoAttack's standard version",
}
"""Attacks that are the norms' chains here, with a note on the wording."""


class Published(NamedTuple):
    """One number of a paper; `robustbench` is the id of its model where the number is RobustBench's."""

    paper: str
    table: str
    method: str
    network: str
    source_dataset: str
    target_dataset: str
    measure: str
    eps: str
    value: float
    notes: tuple[str, ...]
    robustbench: str = ""
    provenance: str = TABLE

    @property
    def decimals(self) -> int:
        """Decimals that the number, and a difference from it, can be shown with."""
        return 0 if self.provenance == FIGURE else 2


def read(path: Path) -> list[Published]:
    """The numbers of a published.csv whose method, network, data set and measure exist here.

    InputError for a missing column, a value that is no percentage, an unknown provenance, a figure reading with
    decimals, or a union above one of its norms.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--published {path}: cannot be read ({error})") from None
    needed = ("paper", "table", "method", "architecture", "source_dataset", "target_dataset", "metric", "norm", "eps")
    for column in (*needed, "attack", "value_percent", "note", "source", "provenance"):
        if not rows or column not in rows[0]:
            raise InputError(f"--published {path}: there is no column {column!r}")
    numbers = []
    for line, row in enumerate(rows, 2):
        try:
            value = float(row["value_percent"])
        except ValueError:
            value = -1.0
        if not 0 <= value <= 100:
            raise InputError(f"--published {path}, line {line}: {row['value_percent']!r} is no percentage")
        provenance = row["provenance"]
        if provenance not in PROVENANCES:
            raise InputError(
                f"--published {path}, line {line}: {registry.unknown('provenance', provenance, PROVENANCES)}"
            )
        if provenance == FIGURE and not value.is_integer():
            raise InputError(
                f"--published {path}, line {line}: {row['value_percent']!r} is a figure reading: give whole percents"
            )
        numbers.append(_translation(row, value))
    _refuse_impossible_unions(path, rows)
    return [number for number in numbers if number is not None]


def _refuse_impossible_unions(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """What survives all norms survives each: a union above a norm was a mean, or is a mistake."""
    groups: dict[tuple[str, ...], dict[str, tuple[float, str]]] = defaultdict(dict)
    for row in rows:
        if row["metric"] in ("robust_acc", "union_robust_acc") and row["norm"] in (*NORMS, "Linf+L2+L1"):
            shared = ("paper", "table", "method", "architecture", "source_dataset", "target_dataset", "attack")
            groups[tuple(row[name] for name in shared)][row["norm"]] = (float(row["value_percent"]), row["eps"])
    for key, values in groups.items():
        if "Linf+L2+L1" not in values:
            continue
        union_value, radii = values["Linf+L2+L1"]
        for norm, eps in zip(NORMS, radii.split("|"), strict=False):
            if norm in values and values[norm][1] == eps and union_value > values[norm][0]:
                raise InputError(f"--published {path}: {key[2]} in {key[1]}: union {union_value} is above {norm}'s")


def _translation(row: dict[str, str], value: float) -> Published | None:
    words = next((words for words in METHODS if row["method"] == words or row["method"].startswith(f"{words} ")), None)
    public = PUBLIC_NETWORKS.get((row["architecture"], row["source_dataset"]))
    network, target = public or NETWORKS.get(row["architecture"]), DATASETS.get(row["target_dataset"])
    measure = _measure(row)
    if words is None or network is None or target is None or measure is None:
        return None
    scratch = row["source_dataset"].startswith("none")
    dataset = next((id for name, id in DATASETS.items() if row["source_dataset"].split(" ")[0] == name), None)
    if not scratch and dataset is None:
        return None
    variant = row["method"].removeprefix(words).strip()
    notes = [
        f"variant: {variant}" if variant else "",
        "" if scratch else f"source there: {row['source_dataset']}",
        CHAINS.get(row["attack"], ""),
        row["note"],
        row["source"],
    ]
    eps = "" if measure == CLEAN else row["eps"]
    return Published(
        row["paper"],
        row["table"],
        METHODS[words],
        network,
        dataset or "",
        target,
        measure,
        eps,
        value,
        tuple(filter(None, notes)),
        provenance=row["provenance"],
    )


def _measure(row: dict[str, str]) -> str | None:
    """One of `MEASURES`; None for what is not measured here in the same way."""
    if row["metric"] == "clean_acc":
        return CLEAN
    if row["metric"] == "union_robust_acc" and row["attack"] in CHAINS and row["norm"] == "Linf+L2+L1":
        return UNION
    if row["metric"] == "robust_acc" and row["norm"] in NORMS and row["attack"] in CHAINS:
        return row["norm"]
    if row["metric"] == "robust_acc" and row["norm"] == "Linf" and row["attack"] in (PGD_20, PGD_10):
        return row["attack"]
    return None


def robustbench(folder: Path) -> list[Published]:
    """The numbers of the model_info files below a checkout of RobustBench, for its Linf and L2 models.

    InputError where the folder holds none, or one cannot be read.
    """
    paths = sorted((folder / "model_info").glob("*/*/*.json"))
    if not paths:
        raise InputError(f"--robustbench {folder}: there is no model_info/<data set>/<threat>/<id>.json below it")
    numbers = []
    for path in paths:
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(info, dict):
                raise ValueError("not a JSON object")
            numbers += _of_model(info, path.stem, path.parent.parent.name, path.parent.name)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"--robustbench: {path}: cannot be read ({error})") from None
    return numbers


def _of_model(info: dict[str, object], id: str, dataset: str, threat: str) -> list[Published]:
    """Clean and AutoAttack accuracy; corruption models (no radius) have clean accuracy alone."""
    notes = [
        f"reported by its authors: {info['reported']}" if info.get("reported") else "",
        f"best known attack: {info['external']}" if info.get("external") else "",
        "marked as potentially unreliable there" if info.get("unreliable") else "",
        str(info.get("footnote") or ""),
    ]
    measures = [(CLEAN, "clean_acc", "", "")]
    if threat in NORMS and info.get("eps"):
        protocol = "there AutoAttack's standard version on all test images"
        measures.append((threat, "autoattack_acc", str(info["eps"]), protocol))
    return [
        Published(
            paper="RobustBench",
            table=f"{dataset}/{threat}",
            method="",
            network="",
            source_dataset="",
            target_dataset=dataset,
            measure=measure,
            eps=eps,
            value=float(str(info[key])),
            notes=tuple(filter(None, [*notes, protocol])),
            robustbench=f"RB_{id}@{dataset}/{threat}",
        )
        for measure, key, eps, protocol in measures
        if info.get(key)
    ]
