"""`transferbench submit`: pack a verified run for a board, and check such an archive."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.base.errors import InputError
from transferbench.cli import options
from transferbench.cli.output import say


@click.command("submit", cls=options.Command, short_help="Pack a verified run for a board, or check such an archive.")
@click.argument("path", type=options.FOLDER, metavar="DIR|ARCHIVE")
@click.option("--check", is_flag=True, help="Check the archive instead, as a maintainer does.")
@click.option("--with-run", is_flag=True, help="Pack points and weights too, so that every number can be verified.")
@click.option("--out", type=options.FOLDER, metavar="FILE", help="The archive (default: <name of DIR>.zip here).")
@click.option("--data-dir", type=options.FOLDER, metavar="DIR", help="Folder with the data sets' files (for --check).")
def command(path: Path, check: bool, with_run: bool, out: Path | None, data_dir: Path | None) -> None:
    """Pack the records, cards and hashes of the verified run in DIR with a filled-in checklist into one archive.

    `--check ARCHIVE` checks names, hashes, schemas, stamps, tables and checklist, and with the run inside every number.
    """
    from transferbench.cli import console
    from transferbench.workflows import submission

    if check:
        if with_run or out is not None:
            raise InputError("--check: not with --with-run or --out, which are for packing")
        items, complaints = submission.check(path, data_dir)
    else:
        archive = out if out is not None else Path(f"{path.resolve().name}.zip")
        items, complaints = submission.pack(path, archive, with_run), []
    for item in items:
        say(f"[{'x' if item.holds else ' '}] {item.text}")
    console.exit_on(complaints)
    if check:
        say(f"{path}: its records, cards and tables agree, and every record is verified")
    else:
        say(f"file: {archive} ({archive.stat().st_size / 2**20:.1f} MiB)")
