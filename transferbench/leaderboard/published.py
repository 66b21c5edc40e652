"""Published numbers beside measured ones: where they speak of the same thing, with every known difference said.

`leaderboards/published.csv` holds numbers with their paper and table; RobustBench's come from a checkout of it. They
never enter a rank.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transferbench.base import atomic_files as files
from transferbench.base.errors import InputError
from transferbench.base.specifications import NORMS, Epsilon
from transferbench.leaderboard.escape import csv_cell, markdown_cell
from transferbench.leaderboard.rows import Row, percent, union
from transferbench.leaderboard.statistics import wilson
from transferbench.leaderboard.tables import table
from transferbench.results.records import Bits, ChainRecord, Record

COLUMNS = (
    *("victim", "measure", "eps", "measured", "low", "high", "n"),
    *("published", "difference", "paper", "table", "notes"),
)

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
}
"""The papers' words, longest first where one begins with another; what follows the words is told as a variant."""
NETWORKS = {
    "PreActResNet-18": "preact-resnet18",
    "WideResNet-32-10 (Madry)": "madry-wrn-32-10",
    "ResNet-18": "torchvision:resnet18",
    "ResNet-50": "torchvision:resnet50",
    "ResNet-101": "torchvision:resnet101",
    "MobileNetV2": "torchvision:mobilenet_v2",
}
DATASETS = {
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "ImageNet": "imagenet",
    "MIT67": "mit67",
    "CUB-200-2011": "cub200",
    "Flower102": "flowers102",
    "StanfordDogs120": "dogs120",
    "Stanford40": "stanford40",
}
CHAINS = {
    "APGD-CE+APGD-T (E-AT protocol)": "",
    "AutoAttack (as worded by RAMP; E-AT-style protocol)": "the paper says AutoAttack and describes E-AT's protocol",
}
"""Attacks that are our norms' chains, with what is to be said about the wording."""


class Published(NamedTuple):
    """One number of a paper in our words; `robustbench` is the model it is about, where it is RobustBench's."""

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


def read(path: Path) -> list[Published]:
    """The numbers of a published.csv that our words exist for.

    InputError for a missing column, a value that is no percentage, or a union above one of its norms.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--published {path}: cannot be read ({error})") from None
    needed = ("paper", "table", "method", "architecture", "source_dataset", "target_dataset", "metric", "norm", "eps")
    for column in (*needed, "attack", "value_percent", "note", "source"):
        if not rows or column not in rows[0]:
            raise InputError(f"--published {path}: there is no column {column!r}")
    found = []
    for number, row in enumerate(rows, 2):
        try:
            value = float(row["value_percent"])
        except ValueError:
            value = -1.0
        if not 0 <= value <= 100:
            raise InputError(f"--published {path}, line {number}: {row['value_percent']!r} is no percentage")
        found.append(_in_our_words(row, value))
    _refuse_impossible_unions(path, rows)
    return [number for number in found if number is not None]


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


def _in_our_words(row: dict[str, str], value: float) -> Published | None:
    words = next((words for words in METHODS if row["method"] == words or row["method"].startswith(f"{words} ")), None)
    network, target = NETWORKS.get(row["architecture"]), DATASETS.get(row["target_dataset"])
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
    eps = "" if measure == "clean" else row["eps"]
    said = tuple(note for note in notes if note)
    return Published(
        row["paper"], row["table"], METHODS[words], network, dataset or "", target, measure, eps, value, said
    )


def _measure(row: dict[str, str]) -> str | None:
    """clean, Linf, L2, L1, union or PGD-20; None for what is not measured here in the same way."""
    if row["metric"] == "clean_acc":
        return "clean"
    if row["metric"] == "union_robust_acc" and row["attack"] in CHAINS and row["norm"] == "Linf+L2+L1":
        return "union"
    if row["metric"] == "robust_acc" and row["norm"] in NORMS and row["attack"] in CHAINS:
        return row["norm"]
    if row["metric"] == "robust_acc" and row["norm"] == "Linf" and row["attack"] == "PGD-20":
        return "PGD-20"
    return None


def robustbench(folder: Path) -> list[Published]:
    """The numbers of the model_info files below a checkout of RobustBench, for its Linf and L2 models.

    InputError where the folder holds none, or one cannot be read.
    """
    paths = sorted((folder / "model_info").glob("*/*/*.json"))
    if not paths:
        raise InputError(f"--robustbench {folder}: there is no model_info/<data set>/<threat>/<id>.json below it")
    found = []
    for path in paths:
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(info, dict):
                raise ValueError("not a JSON object")
            found += _of_model(info, path.stem, path.parent.parent.name, path.parent.name)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"--robustbench: {path}: cannot be read ({error})") from None
    return found


def _of_model(info: dict[str, object], id: str, dataset: str, threat: str) -> list[Published]:
    """Clean and AutoAttack accuracy; corruption models (no radius) have clean accuracy alone."""
    said = [f"reported by its authors: {info['reported']}" if info.get("reported") else ""]
    said += [f"best known attack: {info['external']}" if info.get("external") else ""]
    said += [
        "marked as potentially unreliable there" if info.get("unreliable") else "",
        str(info.get("footnote") or ""),
    ]
    notes = tuple(note for note in said if note)
    shared = {"paper": "RobustBench", "table": f"{dataset}/{threat}", "method": "", "network": "", "source_dataset": ""}
    found = []
    for measure, name, eps in (("clean", "clean_acc", ""), (threat, "autoattack_acc", str(info.get("eps") or ""))):
        if info.get(name) and (measure == "clean" or (measure in NORMS and eps)):
            value = float(str(info[name]))
            own = (*notes, "there AutoAttack's standard version on all test images") if measure != "clean" else notes
            found.append(
                Published(
                    **shared,
                    target_dataset=dataset,
                    measure=measure,
                    eps=eps,
                    value=value,
                    notes=own,
                    robustbench=f"RB_{id}@{dataset}/{threat}",
                )
            )
    return found


def beside(records: Sequence[Record], published: Sequence[Published]) -> list[Row]:
    """A row for every measured rate that a published one speaks of as well."""
    found: list[Row] = []
    for record in records:
        for number in published:
            bits, chain = _measured(record, number)
            if bits is None or not _same_thing(record, number, chain):
                continue
            low, high = wilson(bits.count, record.n)
            found.append(
                {
                    "victim": record.victim,
                    "measure": number.measure,
                    "eps": number.eps,
                    "measured": percent(bits.count, record.n),
                    "low": f"{100 * low:.2f}",
                    "high": f"{100 * high:.2f}",
                    "n": record.n,
                    "published": f"{number.value:.2f}",
                    "difference": f"{100 * bits.count / record.n - number.value:+.2f}",
                    "paper": number.paper,
                    "table": number.table,
                    "notes": "; ".join([*_differences(record, number, chain), *number.notes]),
                }
            )
    order = ("clean", *NORMS, "union", "PGD-20")
    return sorted(found, key=lambda row: (row["victim"], order.index(str(row["measure"])), row["paper"], row["table"]))


def _measured(record: Record, number: Published) -> tuple[Bits | None, ChainRecord | None]:
    if number.measure == "clean":
        return record.clean, None
    if number.measure == "union":
        return union(record), record.chain("Linf")
    chain = record.chain("pgd20_linf" if number.measure == "PGD-20" else number.measure)
    return (None, None) if chain is None else (chain.robust, chain)


def _same_thing(record: Record, number: Published, chain: ChainRecord | None) -> bool:
    """Method, network, source, target, norm and radius are the same; protocols of one kind."""
    if number.robustbench:
        if number.robustbench not in (record.victim, record.source if record.role == "source" else ""):
            return False
    elif (record.method, record.network, record.source_dataset, record.target_dataset) != number[2:6]:
        return False
    if number.measure == "union":
        chains = [record.chain(norm) for norm in NORMS]
        radii = [Epsilon.parse(chain.eps).value for chain in chains if chain is not None]
        return radii == [Epsilon.parse(eps).value for eps in number.eps.split("|")]
    return chain is None or Epsilon.parse(chain.eps).value == Epsilon.parse(number.eps).value


def _differences(record: Record, number: Published, chain: ChainRecord | None) -> list[str]:
    """What is known to differ between here and there, beside what the paper's own notes say."""
    said = [f"n = {record.n} here"]
    if chain is not None and number.measure != "PGD-20":
        plain = [attack for attack in chain.attacks if attack["id"] != "l1-screen"]
        if plain != [{"id": "apgd-ce"}, {"id": "apgd-t"}]:
            said.append(f"protocol here: {record.protocol}")
    if record.source and not number.robustbench:
        said.append(f"source here: {record.source}")
    if record.flags:
        said.append(f"flags here: {', '.join(record.flags)}")
    return said


def render(rows: Sequence[Row], looked_at: int, with_robustbench: bool) -> dict[str, str]:
    """published.csv and published.md: the rows, footnotes below, and what was not looked at."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    notes: dict[str, int] = {}
    lines = []
    for row in rows:
        marks = [notes.setdefault(note, len(notes) + 1) for note in str(row["notes"]).split("; ")]
        cells = [markdown_cell(row["victim"]), str(row["measure"]), markdown_cell(row["eps"])]
        cells += [f"{row['measured']} [{row['low']}, {row['high']}]", str(row["published"]), str(row["difference"])]
        lines.append([*cells, markdown_cell(f"{row['paper']}, {row['table']}"), ", ".join(map(str, marks))])
    header = ["victim", "measure", "eps", "measured", "published", "difference", "from", "notes"]
    told = (
        table(header, lines, 3)
        if rows
        else f"None of the {looked_at} published numbers that our words exist for is about a row of this table: "
        "method, network, source, target, norm, radius and protocol must be the same."
    )
    missing = (
        "" if with_robustbench else "RobustBench's own numbers were not given (`--robustbench` names a checkout).\n\n"
    )
    footnotes = "\n".join(f"{number}. {markdown_cell(note)}" for note, number in notes.items())
    page = f"# Published numbers beside measured ones\n\nNone of them enters a rank.\n\n{missing}{told}\n\n{footnotes}"
    text: str = frame.map(csv_cell).to_csv(index=False, lineterminator="\n")
    return {"published.csv": text, "published.md": re.sub(r"\n+$", "", page) + "\n"}


def write(folder: Path, records: Sequence[Record], file: Path | None, checkout: Path | None) -> list[Path]:
    """published.csv and published.md in a board's folder, from a published.csv, a checkout of RobustBench, or both."""
    numbers = [*(read(file) if file is not None else []), *(robustbench(checkout) if checkout is not None else [])]
    written = []
    for name, content in render(beside(records, numbers), len(numbers), checkout is not None).items():
        files.write_text(folder / name, content)
        written.append(folder / name)
    return written
