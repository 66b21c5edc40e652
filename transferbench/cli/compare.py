"""`transferbench compare`: victims pair by pair on the same examples."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("compare", cls=options.Command, short_help="Whether victims differ, on the same examples.")
@click.argument("what", nargs=-1, required=True, metavar="A B [C ...]")
@click.option("--in", "within", type=options.FOLDER, metavar="DIR",
              help="A, B, ... are names of victims of this run or board, with or without their seed.")  # fmt: skip
@click.option("--columns", type=options.NAMES, metavar="C,C",
              help="clean, a norm, union, another chain, or a source-only attack such as pretrained-neuron (default: "
              "clean, the norms, union).")  # fmt: skip
@click.option("--seed", type=int, metavar="S", help="This seed alone (default: every common seed, and all pooled).")
@click.option("--pairs", is_flag=True, help="Of more than two victims: every pair with its interval, not matrices.")
@click.option("--json", "as_json", is_flag=True, help="For machines: every pair, column and seed.")
def command(
    what: tuple[str, ...],
    within: Path | None,
    columns: tuple[str, ...] | None,
    seed: int | None,
    pairs: bool,
    as_json: bool,
) -> None:
    """Compare victims on the same examples: differences with 95 % intervals, exact McNemar tests, Holm-corrected.

    A, B, ... are folders of runs or boards (all of their victims), records (.json), CSV files of verdicts of any tool
    (the format of `runs --verdicts`; docs/protocol.md), or PATH:VICTIM for one victim of them.
    """
    from transferbench.python.victim_comparisons import compare

    found = compare(*what, within=within, columns=columns, seed=seed)
    if as_json:
        say(found.to_json())
    else:
        say(found.pairs_text() if pairs else str(found))
        if len(found.victims) > 2 and not pairs:
            say("every pair with its interval and discordant examples, and every seed: --pairs, or --json")
