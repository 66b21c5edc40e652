"""`transferbench leaderboard import`: somebody else's evaluation of a victim, judged here."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.base.errors import InputError
from transferbench.cli import options
from transferbench.cli.output import say


@click.command("leaderboard import", cls=options.Command)
@options.run_folder
@click.option("--victim", required=True, metavar="ID", help="The attacked victim of DIR, with its seed.")
@click.option("--norm", required=True, metavar="N", help="Norm of the points.")
@click.option("--eps", default="", metavar="E", help="Their radius (default: that of the record's own chain).")
@click.option("--points", type=options.FOLDER, metavar="FILE", help="Points: .pt, .npy, .npz, .safetensors.")
@click.option("--verdicts", type=options.FOLDER, metavar="CSV", help="Or verdicts alone, which stay a claim.")
@click.option("--by", required=True, metavar="TEXT", help="Whose evaluation it is.")
@click.option("--link", default="", metavar="URL", help="Where it is described.")
@click.option("--claim", type=float, metavar="PERCENT", help="The robust accuracy that it claims.")
@options.places
def command(
    dir: Path,
    victim: str,
    norm: str,
    eps: str,
    points: Path | None,
    verdicts: Path | None,
    by: str,
    link: str,
    claim: float | None,
    device: str | None,
    data_dir: Path | None,
    model_dir: Path | None,
) -> None:
    """Import an external evaluation of a victim into the run or board in DIR.

    Adversarial points of the first N test examples, in the data set's order, are judged by the original model; what is
    outside the ball or the box is no attack. Verdicts alone are shown as a claim. Neither enters a rank.
    """
    from transferbench.base.settings import RunSettings
    from transferbench.results import external
    from transferbench.workflows import boards, external_evaluations
    from transferbench.workflows.external_evaluations import Author, Locations
    from transferbench.workflows.settings import placed

    if claim is not None and not 0 <= claim <= 100:
        raise InputError(f"--claim {claim}: a robust accuracy in percent, 0 to 100")
    external.checked_author(by)
    external.checked_link(link)
    threat = external_evaluations.threat_of(dir, victim, norm, eps)
    author = Author(by, link, claim)
    if points is not None and verdicts is None:
        places = Locations(data_dir, model_dir, placed(RunSettings(), device, 1).device)
        evaluation = external_evaluations.import_points(dir, victim, threat, points, author, places)
    elif verdicts is not None and points is None:
        evaluation = external_evaluations.import_verdicts(dir, victim, threat, verdicts, author)
    else:
        raise InputError("give either --points or --verdicts")
    say(external_evaluations.describe(dir, evaluation))
    boards.rebuild(dir)
    if (dir / "index.html").is_file():
        boards.write_page(dir)
    say(f"files: {dir / 'external' / evaluation.file_name}, {dir / 'external.csv'}")
