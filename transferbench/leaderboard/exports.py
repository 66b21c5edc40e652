"""What others read: RobustBench's model_info files, and a LaTeX table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from transferbench.base import atomic_files
from transferbench.base.errors import InputError
from transferbench.base.names import file_stem
from transferbench.base.specifications import NORMS
from transferbench.leaderboard.escape import plain
from transferbench.leaderboard.markdown import RATES, mean_and_range, rank_range
from transferbench.leaderboard.pooling import pooled, values
from transferbench.leaderboard.rows import leaderboard_rows, percent, union
from transferbench.models.cards import first_problem
from transferbench.results.records import Record

_STANDARD = {"apgd-ce", "apgd-t", "fab-t", "square"}
KINDS = ("robustbench", "latex")


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
    found: dict[str, Any] = json.loads(text)
    return found


def dump(info: dict[str, Any]) -> str:
    """As RobustBench writes its files: one line."""
    return json.dumps(info)


def model_infos(records: Sequence[Record]) -> dict[str, str]:
    """Path below a checkout of RobustBench -> file, for every victim and norm that was measured.

    RobustBench has no threat L1; its file is written all the same, in a folder of that name. `autoattack_acc` is filled
    where AutoAttack's whole standard version was run, and no other chain; what another chain left standing is what its
    authors report. What was run stands in the footnote.
    """
    ranked = {str(row["victim"]) for row in leaderboard_rows(records)}
    found = {}
    for record in (record for record in records if record.victim in ranked):
        together = union(record)
        for norm in NORMS:
            chain = record.chain(norm)
            if chain is None:
                continue
            whole = {part["id"] for part in chain.attacks} == _STANDARD
            info = {
                "link": "",
                "name": plain(f"{record.method} from {record.source}" if record.source else record.method),
                "authors": "",
                "additional_data": bool(record.source) and record.source_dataset != record.target_dataset,
                "number_forward_passes": 1,
                "dataset": record.target_dataset,
                "venue": "Unpublished",
                "architecture": record.network,
                "eps": chain.eps,
                "clean_acc": percent(record.clean.count, record.n),
                "reported": "" if whole else percent(chain.robust.count, record.n),
                "autoattack_acc": percent(chain.robust.count, record.n) if whole else "",
                "unreliable": bool(record.flags),
                "footnote": plain(
                    f"Measured by transferbench on the first {record.n} test examples"
                    + (", by AutoAttack's standard version." if whole else f", not by AutoAttack: {record.protocol}.")
                ),
                "eps_by_norm": {one: other.eps for one in NORMS if (other := record.chain(one)) is not None},
                "union_acc": "" if together is None else percent(together.count, record.n),
            }
            place = f"model_info/{file_stem(record.target_dataset)}/{norm}/{file_stem(record.victim)}.json"
            found[place] = dump(read(dump(info)))
    return found


def latex(records: Sequence[Record]) -> str:
    """The table over seeds, as leaderboard.md has it: booktabs, every name escaped."""
    import pandas as pd

    table, lines = leaderboard_rows(records), []
    for method, source, rows in pooled(table):
        rates = {label: mean_and_range(rows, column) for column, label in RATES.items()}
        lines.append({"method": plain(method), "source": plain(source), "rank": rank_range(rows), **rates})
    filled = [label for column, label in RATES.items() if values(table, column)]
    frame = pd.DataFrame(lines, columns=["method", "source", "rank", *filled])
    style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    text: str = style.to_latex(hrules=True, column_format="ll" + "r" * (len(filled) + 1))
    return "% Needs \\usepackage{booktabs}. Mean over seeds, in brackets the range; %.\n" + text


def write(folder: Path, records: Sequence[Record], kinds: Sequence[str]) -> list[Path]:
    """Write exports/ below a board's folder. Returns the files."""
    found = model_infos(records) if "robustbench" in kinds else {}
    if "latex" in kinds:
        found["leaderboard.tex"] = latex(records)
    written = []
    for name, content in found.items():
        path = folder / "exports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_text(path, content)
        written.append(path)
    return written
