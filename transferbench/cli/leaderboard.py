"""`transferbench leaderboard`: check, rebuild, show or export boards."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("leaderboard", cls=options.Command, short_help="Check or rebuild tables from their records.")
@click.argument("dir", type=options.FOLDER, metavar="[DIR]", required=False)
@click.option("--check", is_flag=True, help="Fail when a table differs from its records.")
@click.option("--html", is_flag=True, help="Write the page: index.html and a page per victim.")
@click.option("--rebuild", is_flag=True, help="Write the tables anew from their records.")
@click.option(
    "--published",
    is_flag=False,
    flag_value="leaderboards/published.csv",
    type=options.FOLDER,
    metavar="[FILE]",
    help="Put published numbers beside the measured ones (default: leaderboards/published.csv).",
)
@click.option(
    "--export",
    type=options.NAMES,
    metavar="WHAT,WHAT",
    help="Write exports/: robustbench (model_info), huggingface (.eval_results), latex, points (of a run, as .pt).",
)
@click.option("--data-dir", type=options.FOLDER, metavar="DIR", help="Folder with the data sets' files (for points).")
@click.option("--robustbench", type=options.FOLDER, metavar="DIR", help="A checkout of RobustBench, for its numbers.")
def command(
    dir: Path | None,
    check: bool,
    html: bool,
    rebuild: bool,
    published: Path | None,
    export: tuple[str, ...] | None,
    data_dir: Path | None,
    robustbench: Path | None,
) -> None:
    """Check, rebuild, show or export the board in DIR (default: all of leaderboards/).

    `transferbench leaderboard import DIR` reads somebody else's evaluation of a victim (`--help` after `import`).
    """
    from transferbench.cli import console
    from transferbench.leaderboard import build, exports
    from transferbench.workflows import boards

    exports.check_kinds(export or ())
    folders = [dir] if dir is not None else build.published(Path("leaderboards"))
    complaints: list[str] = []
    for folder in folders:
        if rebuild:
            boards.rebuild(folder)
        if html or (rebuild and (folder / "index.html").is_file()):
            say(f"page: {boards.write_page(folder)}")
        if export:
            files = boards.export(folder, export, data_dir)
            say(f"files: {folder / 'exports'}/ ({len(files)})")
        if check:
            faults = boards.check(folder)
            complaints += faults
            if not faults:
                say(f"{folder}: tables and page are those of its records, and all records are verified")
        if published is not None or robustbench is not None:
            files = boards.compare_published(folder, published, robustbench)
            say(files[-1].read_text(encoding="utf-8"))
            say(f"files: {', '.join(map(str, files))}")
        elif not (rebuild or check or html or export):
            console.print_board(folder, boards.records(folder))
    console.exit_on(complaints)
