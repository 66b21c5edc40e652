"""What others read: RobustBench's model_info files, Hugging Face's evaluation results, and a LaTeX table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from transferbench.base import atomic_files, registry
from transferbench.base.errors import InputError
from transferbench.base.ids import APGD_CE, APGD_T, FAB_T, SQUARE
from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS
from transferbench.base.strict_model import first_problem
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.markdown import mean_and_range, summary_columns
from transferbench.leaderboard.measurements import Measurements
from transferbench.leaderboard.pooling import pooled, rank_range
from transferbench.leaderboard.rates import Rate
from transferbench.leaderboard.rows import leaderboard_rows
from transferbench.results.records import ChainRecord, Record

_STANDARD = (APGD_CE, APGD_T, FAB_T, SQUARE)
KINDS = ("robustbench", "huggingface", "latex")

POINTS = "points"
"""The export that needs the run's stored points (workflows/exported_points.py)."""


class ModelInfo(BaseModel):
    """One file of RobustBench's `model_info/<data set>/<threat>/`: percentages and radii are text there.

    Further keys are kept as they are, in their order: a file that is read and written again is the same bytes.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    link: str
    name: str
    authors: str
    additional_data: bool
    number_forward_passes: int
    dataset: str
    venue: str
    architecture: str
    eps: str | None
    clean_acc: str
    reported: str = ""
    autoattack_acc: str = ""


def read(text: str) -> dict[str, Any]:
    """The content of a model_info file in its own order. InputError for a missing field or a wrong type."""
    try:
        ModelInfo.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"model_info: {first_problem(error)}") from None
    info: dict[str, Any] = json.loads(text)
    return info


def dump(info: dict[str, Any]) -> str:
    """As RobustBench writes its files: one line."""
    return json.dumps(info)


def model_infos(records: Sequence[Record]) -> dict[str, str]:
    """Path below a checkout of RobustBench -> file, for every victim and norm that was measured.

    RobustBench has no threat L1; its file is written all the same, in a folder of that name.
    """
    victims = {str(row["victim"]) for row in leaderboard_rows(records)}
    infos = {}
    for record in (record for record in records if record.victim in victims):
        for norm in NORMS:
            chain = record.chain(norm)
            if chain is not None:
                path = f"model_info/{file_stem(record.target_dataset)}/{norm}/{file_stem(record.victim)}.json"
                infos[path] = dump(read(dump(_model_info(Measurements(record), chain))))
        if record.corruptions:
            # RobustBench has both threats of corruptions in one file.
            path = f"model_info/{file_stem(record.target_dataset)}/corruptions/{file_stem(record.victim)}.json"
            infos[path] = dump(read(dump(_corruptions_info(Measurements(record)))))
    return infos


def _corruptions_info(measurements: Measurements) -> dict[str, Any]:
    """The content of a model_info file of corruptions: mean accuracies and mCE as text, in percent."""
    record, found = measurements.record, measurements.corruptions
    fields: dict[str, str] = {}
    for threat, ending in (("corruptions", ""), ("corruptions_3d", "_3d")):
        scores = found.get(threat)
        if scores is not None:
            fields[f"corruptions_acc{ending}"] = scores.accuracy.percent
        if scores is not None and scores.mce is not None:
            fields[f"corruptions_mce{ending}"] = scores.mce.percent
    return {
        **_identity(measurements),
        "eps": None,
        "images": record.images,
        "clean_acc": measurements.clean.percent,
        "reported": "",
        **fields,
        "unreliable": bool(record.flags),
        "footnote": f"Measured by transferbench on the first {record.n} images of every corruption.",
    }


def _identity(measurements: Measurements) -> dict[str, Any]:
    """What a model_info file says of the model, whatever the threat."""
    record = measurements.record
    return {
        "link": "",
        "name": plain(f"{record.method} from {record.source}" if record.source else record.method),
        "authors": "",
        # Without a classifier, kept or new, the training took nothing of the source.
        "additional_data": bool(record.head) and record.source_dataset != record.target_dataset,
        "number_forward_passes": 1,
        "dataset": record.target_dataset,
        "venue": "Unpublished",
        "architecture": record.network,
    }


def _model_info(measurements: Measurements, chain: ChainRecord) -> dict[str, Any]:
    """The content of a model_info file.

    `autoattack_acc` is there where AutoAttack's whole standard version was run, and no other chain. The accuracy under
    another chain is `reported` and `external`, which is RobustBench's word for what was not measured by AutoAttack, and
    the footnote says what was run: its own reader takes the first of `external` and `autoattack_acc` as a number, and
    ends at an empty text.
    """
    record = measurements.record
    # With parameters of its own an attack is not the standard version's.
    standard = chain.attacks == [{"id": id} for id in _STANDARD]
    robust = measurements.robust[chain.name].percent
    return {
        **_identity(measurements),
        "eps": chain.eps,
        "images": record.images,
        "clean_acc": measurements.clean.percent,
        "reported": "" if standard else robust,
        **({"autoattack_acc": robust} if standard else {"external": robust}),
        "unreliable": bool(record.flags),
        "footnote": plain(
            f"Measured by transferbench on the first {chain.robust.n} test examples"
            + (" of each class in turn" if record.stratified else "")
            + (", by AutoAttack's standard version." if standard else f", not by AutoAttack: {record.protocol}.")
        ),
        "eps_by_norm": {norm: other.eps for norm in NORMS if (other := record.chain(norm)) is not None},
        "union_acc": "" if measurements.union is None else measurements.union.percent,
    }


def eval_results(records: Sequence[Record]) -> dict[str, str]:
    """Path below a model's repository on the Hugging Face hub -> file: `.eval_results/` as the hub reads it
    (https://huggingface.co/docs/hub/eval-results), for every victim: clean, each norm, the union, in percent."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    victims = {str(row["victim"]) for row in leaderboard_rows(records)}
    files = {}
    for record in (record for record in records if record.victim in victims):
        measurements = Measurements(record)
        rates: dict[str, Rate | None] = {"clean": measurements.clean, "union": measurements.union}
        rates |= {norm: measurements.robust.get(norm) for norm in NORMS}
        entries = [
            EvalResultEntry(
                dataset_id=record.target_dataset,
                task_id=f"{record.suite}-{name}",
                value=float(rate.percent),
                notes=plain(_note(record, name, rate)),
            )
            for name, rate in rates.items()
            if rate is not None
        ]
        path = f"huggingface/{file_stem(record.victim)}/.eval_results/transferbench.yaml"
        files[path] = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    return files


def _note(record: Record, name: str, rate: Rate) -> str:
    """What a reader must know beside the number: n, interval, radius, attacks, verified or not."""
    chain = record.chain(name)
    what = (
        "no attack" if name == "clean" else record.protocol if chain is None else f"eps {chain.eps}, {record.protocol}"
    )
    state = "verified" if record.stamp is not None else "not verified"
    low, high = rate.interval
    sample = f"{record.sample_of(rate.n)} test examples, 95 % interval {low} to {high}"
    return f"{sample}; {what}; images {record.images}; {state}"


def latex(records: Sequence[Record]) -> str:
    """The table over seeds, as leaderboard.md has it: booktabs, every name escaped."""
    import pandas as pd

    table, lines = leaderboard_rows(records), []
    columns = [column for column in summary_columns(table) if any(row[column.name] != "" for row in table)]
    for method, source, rows in pooled(table):
        rates = {column.summary: mean_and_range(rows, column) for column in columns}
        lines.append({"method": plain(method), "source": plain(source), "rank": rank_range(rows), **rates})
    frame = pd.DataFrame(lines, columns=["method", "source", "rank", *(column.summary for column in columns)])
    style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    text: str = style.to_latex(hrules=True, column_format="ll" + "r" * (len(columns) + 1))
    return "% Needs \\usepackage{booktabs}. Mean over seeds, in brackets the range; %.\n" + text


def check_kinds(kinds: Sequence[str]) -> None:
    """InputError for an export that does not exist."""
    for kind in kinds:
        if kind not in (*KINDS, POINTS):
            raise InputError(registry.unknown("export", kind, (*KINDS, POINTS)))


def write(folder: Path, records: Sequence[Record], kinds: Sequence[str]) -> list[Path]:
    """Write exports/ below a board's folder. Returns the files."""
    contents = model_infos(records) if "robustbench" in kinds else {}
    if "latex" in kinds:
        contents["leaderboard.tex"] = latex(records)
    if "huggingface" in kinds:
        contents |= eval_results(records)
    paths = []
    for name, content in contents.items():
        path = folder / "exports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(path, content)
        paths.append(path)
    return paths
